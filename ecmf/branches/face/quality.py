"""How far a face cue can be trusted, from what is seen of the face: a product of smooth factors in [0, 1]."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecmf.branches.face.landmarks import Landmarks
from ecmf.errors import need

HEIGHT = (4.0, 40.0)
"""Height of the face in frame pixels at which nothing, and at which everything needed, is seen of it."""
PRESENCE_LOGIT = (0.0, 15.5)
"""Logit of the landmark model's presence: 16 for a free face, 14 to 4 with a hand before it (demo video)."""
HIDDEN = 0.25
"""What is left at PRESENCE_LOGIT's lower end: half a face still says something."""
TURN = (25.0, 70.0)
"""Degrees the head is turned or tilted away from the camera, at which trust begins to fall and stops falling."""
TURNED = 0.2
"""What is left of a profile."""
SHARPNESS = (0.04, 0.28)
"""Spread of the crop's Laplacian over that of the crop: 0.44 to 0.7 for sharp faces, 0.2 with a blur of a fiftieth
of the face's height (one standard deviation), 0.1 with a twenty-fifth."""
CONTRAST = (2.0, 12.0)
"""Standard deviation of the crop's grey levels, 0 to 255: 47 to 59 in ordinary light, 10 at a fifth of it."""
CLIPPED = (0.35, 0.9)
"""Share of the crop that is black or white for good, at which trust begins to fall and is gone."""
LEAST = 0.01
"""A face that was found is never absent."""

_LEVEL_PITCH = 6.0
"""The line from forehead to chin leans by this many degrees in a face that looks straight ahead."""


def quality(landmarks: Landmarks, crop: NDArray[np.uint8]) -> float:
    """In [LEAST, 1]. ``crop``: the aligned grey face, uint8[size, size]; sharpness was gauged at 56 pixels."""
    factors = (
        rise(landmarks.box[3], *HEIGHT),
        HIDDEN + (1 - HIDDEN) * rise(presence_logit(landmarks.presence), *PRESENCE_LOGIT),
        1 - (1 - TURNED) * rise(turn(landmarks), *TURN),
        _light(crop),
    )
    return max(math.prod(factors), LEAST)


def rise(value: float, low: float, high: float) -> float:
    """0 up to ``low``, 1 from ``high`` on, between them 3t^2 - 2t^3: no kink for a value that wanders across."""
    t = min(max((value - low) / (high - low), 0.0), 1.0)
    return t * t * (3 - 2 * t)


def presence_logit(presence: float) -> float:
    """Log-odds, at most 16: finer than single precision tells."""
    return min(math.log(max(presence, 1e-12) / max(1 - presence, 1e-7)), 16.0)


def turn(landmarks: Landmarks) -> float:
    """Degrees by which the head is turned (yaw) and tilted (pitch) away from the camera, together.

    Yaw from the line between the face's sides (landmarks 234, 454), pitch from forehead to chin (10, 152).
    """
    p = landmarks.points.astype(np.float64)
    across, down = p[454] - p[234], p[152] - p[10]
    yaw = math.degrees(math.atan2(across[2], math.hypot(across[0], across[1])))
    pitch = math.degrees(math.atan2(down[2], math.hypot(down[0], down[1]))) - _LEVEL_PITCH
    return math.hypot(yaw, pitch)


def _light(crop: NDArray[np.uint8]) -> float:
    """Sharpness, contrast and exposure of the crop."""
    cv2: Any = need("cv2", "live")
    spread = float(crop.std())
    if spread == 0:
        return 0.0
    sharpness = float(cv2.Laplacian(crop, cv2.CV_32F)[2:-2, 2:-2].std()) / spread
    clipped = float(np.mean((crop <= 2) | (crop >= 253)))
    return rise(sharpness, *SHARPNESS) * rise(spread, *CONTRAST) * (1 - rise(clipped, *CLIPPED))
