"""Turns the encoder of a CTranslate2 Whisper model into an ONNX bundle that also gives its inner layers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecmf.bundle import Bundle, Manifest, Port, sha256_of, write_bundle
from ecmf.errors import WeightError, need
from ecmf.importers.ctranslate2 import as_float32, read_variables

LAYERS = (2, 3, 4)
"""Blocks (1-based) whose residual stream is an output; the voice branch reads them."""

_OPSET = 20
_EPSILON = 1e-5  # torch's default for LayerNorm, which Whisper was trained with
_GELU = 3  # CTranslate2's number of the exact (erf) GELU


def build(source: Path, folder: Path) -> Bundle:
    """Write the bundle of the Whisper model in the CTranslate2 folder ``source`` to ``folder``.

    Input ``mel`` float32[1, mels, frames]: log-mel at 100 frames a second, at most 3000 frames. Outputs
    float32[1, T, d] with T = ceil(frames / 2), 50 a second: ``layer_2``, ``layer_3``, ``layer_4`` (residual
    stream after that block) and ``last`` (after the final norm; what CTranslate2's ``encode`` returns).
    Architecture: Radford et al. 2022, section 2.2. Raises WeightError when the file is not a Whisper model or
    has too few layers.
    """
    file = source / "model.bin"
    if not file.is_file():
        raise WeightError(f"{source} has no model.bin; name a folder in CTranslate2 (faster-whisper) layout")
    specification, variables = read_variables(file)
    if specification != "WhisperSpec":
        raise WeightError(f"{file} holds a {specification}, not Whisper; name a faster-whisper model")
    depth = 0
    while f"encoder/layer_{depth}/self_attention/linear_0/bias" in variables:
        depth += 1
    if depth < max(LAYERS):
        raise WeightError(f"{file} has {depth} encoder layers, at least {max(LAYERS)} are needed")
    if int(variables.get("decoder/activation", np.array(_GELU))) != _GELU:
        raise WeightError(f"{file} uses an activation other than GELU; it is not a Whisper model")
    graph = _Graph(variables)
    model = _encoder(graph, depth)
    width = int(graph.width)
    mels = int(graph.mels)
    positions = int(graph.positions)
    states = "residual stream after the block, 50 a second"
    manifest = Manifest(
        name=folder.name,
        version="1",
        inputs=(Port("mel", "float32", (1, mels, "frames"), "Whisper log-mel, 100 frames a second"),),
        outputs=(
            *(Port(f"layer_{k}", "float32", (1, "time", width), states) for k in LAYERS),
            Port("last", "float32", (1, "time", width), "after the final norm, 50 a second"),
        ),
        licence="MIT",
        preprocessing={
            "sample_rate": 16000,
            "log_mel": "Whisper (n_fft 400, hop 160, Slaney mels)",
            "mels": mels,
        },
        extra={
            "architecture": "whisper-encoder",
            "layers": depth,
            "heads": graph.heads,
            "width": width,
            "max_frames": 2 * positions,
            "source_sha256": sha256_of(file),
        },
    )
    return write_bundle(folder, manifest, {"model.onnx": model.SerializeToString()})


class _Graph:
    """Collects nodes and weights; every method returns the name of the tensor it made."""

    def __init__(self, variables: dict[str, NDArray[np.generic]]) -> None:
        onnx = need("onnx", "live")
        self._helper = onnx.helper
        self._numpy_helper = onnx.numpy_helper
        self._variables = variables
        self.nodes: list[Any] = []
        self.weights: list[Any] = []
        self.heads = int(self.read("encoder/num_heads")) if "encoder/num_heads" in variables else 0
        self.width, self.mels = self.read("encoder/conv1/weight").shape[:2]
        self.positions = self.read("encoder/position_encodings/encodings").shape[0]
        # Files converted before the head count was stored: every Whisper has heads of 64.
        self.heads = self.heads or self.width // 64

    def read(self, name: str) -> NDArray[np.float32]:
        if name == "encoder/num_heads":
            return self._variables[name].astype(np.float32)
        return as_float32(self._variables, name)

    def weight(self, name: str, value: NDArray[Any]) -> str:
        self.weights.append(self._numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def node(self, kind: str, inputs: Sequence[str], name: str, **attributes: Any) -> str:
        self.nodes.append(self._helper.make_node(kind, list(inputs), [name], name=name, **attributes))
        return name

    def norm(self, x: str, source: str, name: str) -> str:
        scale = self.weight(f"{name}.scale", self.read(f"{source}/gamma"))
        shift = self.weight(f"{name}.shift", self.read(f"{source}/beta"))
        return self.node("LayerNormalization", [x, scale, shift], name, axis=-1, epsilon=_EPSILON)

    def linear(self, x: str, name: str, weight: NDArray[np.float32], bias: NDArray[np.float32]) -> str:
        product = self.node("MatMul", [x, self.weight(f"{name}.weight", weight.T)], f"{name}.product")
        return self.node("Add", [product, self.weight(f"{name}.bias", bias)], name)

    def stored_linear(self, x: str, source: str, name: str) -> str:
        return self.linear(x, name, self.read(f"{source}/weight"), self.read(f"{source}/bias"))


def _attention(graph: _Graph, x: str, source: str, name: str) -> str:
    """Multi-head self-attention over ``x`` float32[1, T, d]; the query carries the 1/sqrt(head) scale."""
    size = graph.width // graph.heads
    weights = np.split(graph.read(f"{source}/linear_0/weight"), 3)
    biases = np.split(graph.read(f"{source}/linear_0/bias"), 3)
    shape = graph.weight(f"{name}.heads", np.array([0, 0, graph.heads, size], np.int64))
    parts = []
    for part, weight, bias in zip("qkv", weights, biases, strict=True):
        scale = np.float32(size**-0.5) if part == "q" else np.float32(1)
        y = graph.linear(x, f"{name}.{part}", weight * scale, bias * scale)
        y = graph.node("Reshape", [y, shape], f"{name}.{part}.split")
        order = [0, 2, 3, 1] if part == "k" else [0, 2, 1, 3]
        parts.append(graph.node("Transpose", [y], f"{name}.{part}.heads", perm=order))
    query, key, value = parts
    scores = graph.node("MatMul", [query, key], f"{name}.scores")
    attention = graph.node("Softmax", [scores], f"{name}.softmax", axis=-1)
    y = graph.node("MatMul", [attention, value], f"{name}.context")
    y = graph.node("Transpose", [y], f"{name}.context.time", perm=[0, 2, 1, 3])
    joined = graph.weight(f"{name}.width", np.array([0, 0, graph.width], np.int64))
    y = graph.node("Reshape", [y, joined], f"{name}.context.joined")
    return graph.stored_linear(y, f"{source}/linear_1", f"{name}.out")


def _encoder(graph: _Graph, depth: int) -> Any:
    helper = need("onnx", "live").helper
    x = "mel"
    for k, stride in (("1", 1), ("2", 2)):
        weight = graph.weight(f"conv{k}.weight", graph.read(f"encoder/conv{k}/weight"))
        bias = graph.weight(f"conv{k}.bias", graph.read(f"encoder/conv{k}/bias"))
        x = graph.node("Conv", [x, weight, bias], f"conv{k}", kernel_shape=[3], pads=[1, 1], strides=[stride])
        x = graph.node("Gelu", [x], f"conv{k}.gelu")
    x = graph.node("Transpose", [x], "conv.time", perm=[0, 2, 1])
    encodings = graph.weight("positions", graph.read("encoder/position_encodings/encodings"))
    length = graph.node("Shape", [x], "length", start=1, end=2)
    zero = graph.weight("zero", np.array([0], np.int64))
    x = graph.node(
        "Add", [x, graph.node("Slice", [encodings, zero, length, zero], "positions.used")], "embedded"
    )
    for block in range(depth):
        source, name = f"encoder/layer_{block}", f"block_{block + 1}"
        y = graph.norm(x, f"{source}/self_attention/layer_norm", f"{name}.attention.norm")
        y = _attention(graph, y, f"{source}/self_attention", f"{name}.attention")
        x = graph.node("Add", [x, y], f"{name}.attended")
        y = graph.norm(x, f"{source}/ffn/layer_norm", f"{name}.mlp.norm")
        y = graph.stored_linear(y, f"{source}/ffn/linear_0", f"{name}.mlp.up")
        y = graph.node("Gelu", [y], f"{name}.mlp.gelu")
        y = graph.stored_linear(y, f"{source}/ffn/linear_1", f"{name}.mlp.down")
        x = graph.node("Add", [x, y], f"layer_{block + 1}")
    graph.norm(x, "encoder/layer_norm", "last")
    kind = 1  # TensorProto.FLOAT
    inputs = [helper.make_tensor_value_info("mel", kind, [1, graph.mels, "frames"])]
    names = [*(f"layer_{layer}" for layer in LAYERS), "last"]
    outputs = [helper.make_tensor_value_info(name, kind, [1, "time", graph.width]) for name in names]
    body = helper.make_graph(graph.nodes, "whisper-encoder", inputs, outputs, graph.weights)
    model = helper.make_model(
        body, opset_imports=[helper.make_opsetid("", _OPSET)], producer_name="ecmf-live"
    )
    model.ir_version = 10  # what every supported runtime reads
    return model
