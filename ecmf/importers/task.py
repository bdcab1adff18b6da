"""Google's face landmarker file (a zip of three TensorFlow Lite graphs) becomes three bundles.

Ports stand in the graphs' own order; model card: "MediaPipe Face Landmarker", Apache-2.0.
"""

from __future__ import annotations

import zipfile
from pathlib import Path

from ecmf.bundle import Bundle, Manifest, Port, write_bundle
from ecmf.errors import WeightError


def build_detector(source: Path, folder: Path) -> Bundle:
    """BlazeFace short range: image in, 896 anchors out (boxes and six keypoints in 128ths, scores as logits)."""
    manifest = Manifest(
        name="face-detector",
        version="1",
        inputs=(Port("image", "float32", (1, 128, 128, 3), "RGB / 127.5 - 1"),),
        outputs=(
            Port(
                "boxes",
                "float32",
                (1, 896, 16),
                "pixels of 128: x, y, w, h relative to the anchor, six keypoints x, y",
            ),
            Port("scores", "float32", (1, 896, 1), "logit"),
        ),
        licence="Apache-2.0",
        preprocessing={"size": [128, 128], "colour": "RGB", "scale": 1 / 127.5, "offset": -1.0},
    )
    return _write(source, "face_detector.tflite", folder, manifest)


def build_landmarks(source: Path, folder: Path) -> Bundle:
    """478 landmarks with depth from an aligned face crop."""
    manifest = Manifest(
        name="face-landmarks",
        version="1",
        inputs=(Port("image", "float32", ("batch", 256, 256, 3), "RGB / 255"),),
        outputs=(
            Port("landmarks", "float32", ("batch", 1, 1, 1434), "478 times x, y, z in pixels of 256"),
            Port("presence", "float32", ("batch", 1, 1, 1), "logit that a face is there"),
            Port("tongue", "float32", ("batch", 1), "tongue-out score"),
        ),
        licence="Apache-2.0",
        preprocessing={"size": [256, 256], "colour": "RGB", "scale": 1 / 255, "offset": 0.0},
    )
    return _write(source, "face_landmarks_detector.tflite", folder, manifest)


def build_blendshapes(source: Path, folder: Path) -> Bundle:
    """52 blendshape scores from 146 of the 478 landmarks."""
    manifest = Manifest(
        name="face-blendshapes",
        version="1",
        inputs=(
            Port("points", "float32", (1, 146, 2), "x, y of the chosen landmarks in pixels of the frame"),
        ),
        outputs=(Port("blendshapes", "float32", (52,), "score in [0, 1]"),),
        licence="Apache-2.0",
    )
    return _write(source, "face_blendshapes.tflite", folder, manifest)


def _write(source: Path, member: str, folder: Path, manifest: Manifest) -> Bundle:
    try:
        with zipfile.ZipFile(source) as archive:
            graph = archive.read(member)
    except (zipfile.BadZipFile, KeyError) as error:
        raise WeightError(
            f"{source} is not a face landmarker file ({error}); pull face-landmarker again"
        ) from None
    return write_bundle(folder, manifest, {"model.tflite": graph})
