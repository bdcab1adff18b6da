"""What every face finder offers, and what they share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ecmf.branches.face.landmarks import Region, region_of
from ecmf.cue import Box
from ecmf.errors import UsageError, need

FINDERS = ("landmarker", "retinaface", "insightface")
"""landmarker: Google's short-range detector, 1 ms, for a webcam. retinaface: small and many faces.
insightface: SCRFD with models that the user has."""

BORDER = 1.0
"""Width of the border around a frame in which a face may reach beyond the edges, relative to its shorter side."""
CLOSE_SIDE = 128
"""Pixels of the longer side to which such a frame is brought first: enough for a face that fills it."""
FILLS = 0.5
"""Height of a face that fills the frame, at least, relative to its shorter side; a smaller one is found without."""


@dataclass(frozen=True)
class Found:
    """A face that a finder saw."""

    box: Box
    """Frame pixels."""
    score: float
    """In [0, 1], comparable within one finder."""
    eyes: NDArray[np.float32] | None = None
    """float32[2, 2]: the eyes, left as seen in the picture first, frame pixels; None where a finder gives none."""

    @property
    def region(self) -> Region:
        """Where the landmark model should look."""
        level = np.array([[0, 0], [1, 0]], np.float32)
        left, right = level if self.eyes is None else self.eyes
        return region_of(self.box, left, right)


class Finder(Protocol):
    """Finds faces in one picture. Not thread-safe: one thread uses it at a time."""

    name: str
    pause_ns: int
    """The least time between two searches while somebody is missing: a search must not eat every frame."""

    def find(self, frame: NDArray[np.uint8]) -> list[Found]:
        """All faces in ``frame`` (uint8[H, W, 3] BGR), largest first."""
        ...

    def find_close(self, frame: NDArray[np.uint8]) -> list[Found]:
        """Faces that fill ``frame`` or reach beyond it, largest first; boxes, too, may reach beyond it."""
        ...


def open_finder(name: str, *, threads: int = 1, offline: bool = False, models: str | None = None) -> Finder:
    """The finder called ``name`` (one of FINDERS); ``models``: insightface's model file or folder.

    Raises UsageError for an unknown name, WeightError or MissingExtra when its models or package are absent.
    """
    if name == "landmarker":
        from ecmf.branches.face.landmarker_finder import LandmarkerFinder

        return LandmarkerFinder(threads=threads, offline=offline)
    if name == "retinaface":
        from ecmf.branches.face.retinaface import RetinaFaceFinder

        return RetinaFaceFinder(threads=threads, offline=offline)
    if name == "insightface":
        from ecmf.branches.face.insightface import InsightFaceFinder

        return InsightFaceFinder(models, threads=threads)
    raise UsageError(f"unknown face finder {name!r}; choose {', '.join(FINDERS)}")


@dataclass(frozen=True)
class Bordered:
    """A frame of CLOSE_SIDE with a black border around it: networks know faces that have some room on every side."""

    picture: NDArray[np.uint8]
    """uint8[H', W', 3]."""
    border: int
    """Pixels of ``picture``."""
    scale: tuple[float, float]
    """Frame pixels per pixel of ``picture``, across and down."""
    least: float
    """Frame pixels: height from which on a face fills the frame."""

    @classmethod
    def around(cls, frame: NDArray[np.uint8]) -> Bordered:
        """``frame``: uint8[H, W, 3]."""
        cv2: Any = need("cv2", "live")
        height, width = frame.shape[:2]
        # Averaging all of a 4K frame would take longer than the search.
        step = max(max(height, width) // (4 * CLOSE_SIDE), 1)
        frame = frame[::step, ::step]
        zoom = CLOSE_SIDE / max(frame.shape[:2])
        size = max(round(frame.shape[1] * zoom), 1), max(round(frame.shape[0] * zoom), 1)
        frame = cv2.resize(frame, size, interpolation=cv2.INTER_AREA if zoom < 1 else cv2.INTER_LINEAR)
        border = round(BORDER * min(frame.shape[:2]))
        picture = cv2.copyMakeBorder(frame, border, border, border, border, cv2.BORDER_CONSTANT)
        scale = width / frame.shape[1], height / frame.shape[0]
        return cls(picture, border, scale, FILLS * min(height, width))

    def close(self, found: list[Found]) -> list[Found]:
        """Those of the faces found in ``picture`` that fill the frame, in frame pixels."""
        moved = [self._moved(face) for face in found]
        return [face for face in moved if face.box[3] >= self.least]

    def _moved(self, face: Found) -> Found:
        (x, y, width, height), (across, down) = face.box, self.scale
        box = (x - self.border) * across, (y - self.border) * down, width * across, height * down
        eyes = None if face.eyes is None else (face.eyes - self.border) * np.array(self.scale, np.float32)
        return Found(box, face.score, eyes)


def overlap(box: NDArray[np.floating], boxes: NDArray[np.floating]) -> NDArray[np.floating]:
    """Intersection over union of ``float[4]`` with ``float[n, 4]``, both x0, y0, x1, y1."""
    low = np.maximum(box[:2], boxes[:, :2])
    high = np.minimum(box[2:4], boxes[:, 2:4])
    common = np.prod(np.maximum(high - low, 0), axis=1)
    area = np.prod(box[2:4] - box[:2]) + np.prod(boxes[:, 2:4] - boxes[:, :2], axis=1) - common
    return common / np.maximum(area, 1e-9)


def merge(
    values: NDArray[np.floating], scores: NDArray[np.floating], threshold: float
) -> list[tuple[NDArray[np.floating], float]]:
    """Weighted non-maximum suppression (MediaPipe, NonMaxSuppressionCalculator WEIGHTED).

    ``values``: float[n, >=4], a box x0, y0, x1, y1 and points; ``scores``: float[n]. Rows that overlap the best by
    more than ``threshold`` are averaged by score, which is steadier from frame to frame than taking the best.
    Returns (values, best score), best first.
    """
    order = np.argsort(-scores, kind="stable")
    values, scores = values[order], scores[order]
    merged = []
    while len(scores):
        same = overlap(values[0], values) > threshold
        same[0] = True
        merged.append((np.average(values[same], axis=0, weights=scores[same]), float(scores[0])))
        values, scores = values[~same], scores[~same]
    return merged


def largest_first(found: list[Found]) -> list[Found]:
    return sorted(found, key=lambda face: -face.box[2] * face.box[3])
