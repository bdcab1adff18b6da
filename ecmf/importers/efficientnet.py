"""EfficientNet-lite0 without its classifier: a picture becomes an embedding of 1280 numbers.

Tan & Le, "EfficientNet" (2019), table 1, in the lite variant of google's tpu repository: no squeeze-and-excitation,
ReLU6, stem and head not scaled. The weights were trained in TensorFlow, hence its padding and batch norm epsilon.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecmf.bundle import Bundle, Manifest, Port, write_bundle
from ecmf.errors import WeightError, need
from ecmf.importers.torch_pickle import read_tensors

EPSILON = 1e-3
OPSET = 17
STAGES = (
    # blocks, kernel, stride of the first block, expansion, channels
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
MEAN, SCALE = 0.498, 0.502
"""Of RGB / 255: the input is (x / 255 - MEAN) / SCALE."""

Tensors = Mapping[str, NDArray[Any]]


class _Graph:
    """An ONNX graph under construction; each call adds one layer behind the last tensor and returns its name."""

    def __init__(self, tensors: Tensors) -> None:
        self._tensors = tensors
        self._helper = need("onnx", "live").helper
        self._numpy_helper = need("onnx.numpy_helper", "live")
        self.nodes: list[Any] = []
        self.initializers: list[Any] = [
            self._constant("zero", np.float32(0)),
            self._constant("six", np.float32(6)),
        ]

    def _constant(self, name: str, value: Any) -> Any:
        return self._numpy_helper.from_array(np.asarray(value, np.float32), name)

    def add(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.nodes.append(self._helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    def conv(
        self, x: str, conv: str, norm: str, *, stride: int = 1, groups: int = 1, relu6: bool = True
    ) -> str:
        """Convolution with the batch norm folded into it (float64), then ReLU6."""
        weight = self._tensors[f"{conv}.weight"].astype(np.float64)
        scale = self._tensors[f"{norm}.weight"] / np.sqrt(
            self._tensors[f"{norm}.running_var"].astype(np.float64) + EPSILON
        )
        bias = self._tensors[f"{norm}.bias"] - self._tensors[f"{norm}.running_mean"] * scale
        self.initializers.append(self._constant(f"{conv}.weight", weight * scale[:, None, None, None]))
        self.initializers.append(self._constant(f"{conv}.bias", bias))
        # TensorFlow's SAME where the size divides by the stride: an odd pixel of padding goes right and below.
        kernel = weight.shape[-1]
        before, after = (kernel - stride) // 2, (kernel - stride + 1) // 2
        y = self.add(
            "Conv",
            [x, f"{conv}.weight", f"{conv}.bias"],
            conv,
            kernel_shape=[kernel, kernel],
            strides=[stride, stride],
            pads=[before, before, after, after],
            group=groups,
        )
        return self.add("Clip", [y, "zero", "six"], f"{conv}.relu6") if relu6 else y


def build(source: Path, folder: Path) -> Bundle:
    """``source`` is efficientnet-lite0's state dict. Raises WeightError when it is not."""
    onnx = need("onnx", "live")
    tensors = read_tensors(source)
    try:
        graph = _network(tensors)
    except KeyError as error:
        raise WeightError(f"{source} has no tensor {error}; pull efficientnet-lite0 again") from None
    image = onnx.helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, ["batch", 3, 224, 224])
    embedding = onnx.helper.make_tensor_value_info("embedding", onnx.TensorProto.FLOAT, ["batch", 1280])
    body = onnx.helper.make_graph(graph.nodes, "efficientnet-lite0", [image], [embedding], graph.initializers)
    model = onnx.helper.make_model(
        body, opset_imports=[onnx.helper.make_opsetid("", OPSET)], ir_version=8, producer_name="ecmf-live"
    )
    onnx.checker.check_model(model, full_check=True)
    manifest = Manifest(
        name="scene",
        version="1",
        inputs=(Port("image", "float32", ("batch", 3, 224, 224), f"(RGB / 255 - {MEAN}) / {SCALE}"),),
        outputs=(
            Port(
                "embedding",
                "float32",
                ("batch", 1280),
                "mean over the picture of the last feature map, ReLU6",
            ),
        ),
        licence="Apache-2.0",
        preprocessing={"size": [224, 224], "colour": "RGB", "mean": MEAN, "scale": SCALE},
        training_data=({"name": "ImageNet-1k", "use": "pretraining by Google"},),
    )
    return write_bundle(folder, manifest, {"model.onnx": model.SerializeToString()})


def _network(tensors: Tensors) -> _Graph:
    graph = _Graph(tensors)
    x = graph.conv("image", "_conv_stem", "_bn0", stride=2)
    channels, index = 32, 0
    for blocks, kernel, first_stride, expansion, width in STAGES:
        for block in range(blocks):
            name, stride = f"_blocks.{index}", first_stride if block == 0 else 1
            y = x
            if expansion != 1:
                y = graph.conv(y, f"{name}._expand_conv", f"{name}._bn0")
            depthwise = f"{name}._depthwise_conv"
            found = tensors[f"{depthwise}.weight"].shape
            if found != (channels * expansion, 1, kernel, kernel):
                raise WeightError(f"{depthwise} has shape {found}; this is not efficientnet-lite0")
            y = graph.conv(y, depthwise, f"{name}._bn1", stride=stride, groups=channels * expansion)
            y = graph.conv(y, f"{name}._project_conv", f"{name}._bn2", relu6=False)
            x = graph.add("Add", [y, x], f"{name}.sum") if stride == 1 and channels == width else y
            channels, index = width, index + 1
    x = graph.conv(x, "_conv_head", "_bn1")
    x = graph.add("GlobalAveragePool", [x], "pool")
    graph.add("Flatten", [x], "embedding", axis=1)
    return graph
