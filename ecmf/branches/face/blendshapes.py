"""52 facial movements from the landmarks (MediaPipe's blendshape model)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ecmf.bundle import Bundle
from ecmf.engines.choose import open_engine

NAMES = (
    "_neutral", "browDownLeft", "browDownRight", "browInnerUp", "browOuterUpLeft", "browOuterUpRight",
    "cheekPuff", "cheekSquintLeft", "cheekSquintRight", "eyeBlinkLeft", "eyeBlinkRight", "eyeLookDownLeft",
    "eyeLookDownRight", "eyeLookInLeft", "eyeLookInRight", "eyeLookOutLeft", "eyeLookOutRight",
    "eyeLookUpLeft", "eyeLookUpRight", "eyeSquintLeft", "eyeSquintRight", "eyeWideLeft", "eyeWideRight",
    "jawForward", "jawLeft", "jawOpen", "jawRight", "mouthClose", "mouthDimpleLeft", "mouthDimpleRight",
    "mouthFrownLeft", "mouthFrownRight", "mouthFunnel", "mouthLeft", "mouthLowerDownLeft",
    "mouthLowerDownRight", "mouthPressLeft", "mouthPressRight", "mouthPucker", "mouthRight",
    "mouthRollLower", "mouthRollUpper", "mouthShrugLower", "mouthShrugUpper", "mouthSmileLeft",
    "mouthSmileRight", "mouthStretchLeft", "mouthStretchRight", "mouthUpperUpLeft", "mouthUpperUpRight",
    "noseSneerLeft", "noseSneerRight",
)  # fmt: skip
"""Order of the 52 coefficients; left and right are the person's own. ``_neutral`` carries no information."""

POINTS = np.array([
    0, 1, 4, 5, 6, 7, 8, 10, 13, 14, 17, 21, 33, 37, 39, 40, 46, 52, 53, 54, 55, 58, 61, 63, 65, 66, 67, 70,
    78, 80, 81, 82, 84, 87, 88, 91, 93, 95, 103, 105, 107, 109, 127, 132, 133, 136, 144, 145, 146, 148, 149,
    150, 152, 153, 154, 155, 157, 158, 159, 160, 161, 162, 163, 168, 172, 173, 176, 178, 181, 185, 191, 195,
    197, 234, 246, 249, 251, 263, 267, 269, 270, 276, 282, 283, 284, 285, 288, 291, 293, 295, 296, 297, 300,
    308, 310, 311, 312, 314, 317, 318, 321, 323, 324, 332, 334, 336, 338, 356, 361, 362, 365, 373, 374, 375,
    377, 378, 379, 380, 381, 382, 384, 385, 386, 387, 388, 389, 390, 397, 398, 400, 402, 405, 409, 415, 454,
    466, 468, 469, 470, 471, 472, 473, 474, 475, 476, 477,
])  # fmt: skip
"""int[146]: the landmarks that the model reads (MediaPipe, face_blendshapes_graph.cc)."""


class Blendshapes:
    """The blendshape model behind an engine; one thread uses it at a time."""

    def __init__(self, bundle: Bundle | None = None, *, threads: int = 1, offline: bool = False) -> None:
        """``bundle``: None fetches the weight face-blendshapes; ``offline``: only from the cache."""
        if bundle is None:
            from ecmf.weights import imported

            bundle = imported("face-blendshapes", offline=offline)
        self._engine = open_engine(bundle, threads=threads)
        self._input = bundle.manifest.inputs[0].name
        self._output = bundle.manifest.outputs[0].name

    def run(self, landmarks: NDArray[np.floating]) -> NDArray[np.float32]:
        """float32[52] in [0, 1] in NAMES' order, from ``float[478, >=2]`` landmarks in frame pixels."""
        points = np.asarray(landmarks, np.float32)[POINTS, :2][None]
        return self._engine.run({self._input: points})[self._output].reshape(52)
