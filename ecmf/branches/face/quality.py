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
"""What is left at PRESENCE_LOGIT's lower end, or of a face whose mouth or eyes lie beyond the frame's edge: half a
face still says something."""
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

_LIPS = [
    0, 13, 14, 17, 37, 39, 40, 61, 78, 80, 81, 82, 84, 87, 88, 91, 95, 146, 178, 181, 185, 191, 267, 269, 270, 291,
    308, 310, 311, 312, 314, 317, 318, 321, 324, 375, 402, 405, 409, 415,
]  # fmt: skip
_EYES = [
    7, 33, 46, 52, 53, 55, 63, 65, 66, 70, 105, 107, 133, 144, 145, 153, 154, 155, 157, 158, 159, 160, 161, 163, 173,
    246, 249, 263, 276, 282, 283, 285, 293, 295, 296, 300, 334, 336, 362, 373, 374, 380, 381, 382, 384, 385, 386, 387,
    388, 390, 398, 466,
]  # fmt: skip
_LEVEL_PITCH = 6.0
"""The line from forehead to chin leans by this many degrees in a face that looks straight ahead."""


def quality(landmarks: Landmarks, crop: NDArray[np.uint8], frame: tuple[int, int]) -> float:
    """In [LEAST, 1]. ``crop``: the aligned grey face, uint8[size, size]; sharpness was gauged at 56 pixels.

    ``frame``: height and width of the frame in which the landmarks lie, pixels.
    """
    free = rise(presence_logit(landmarks.presence), *PRESENCE_LOGIT)
    factors = (
        rise(landmarks.box[3], *HEIGHT),
        HIDDEN + (1 - HIDDEN) * min(free, rise(seen(landmarks, *frame), 0, 1)),
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


def seen(landmarks: Landmarks, height: int, width: int) -> float:
    """Share of the lips' points, or of those of eyes and brows if less, within a frame of that size; in [0, 1].

    What lies beyond is the model's guess.
    """
    x, y = landmarks.points[:, 0], landmarks.points[:, 1]
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    return float(min(inside[_LIPS].mean(), inside[_EYES].mean()))


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
