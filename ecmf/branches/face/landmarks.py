"""478 face landmarks from an upright crop around a face (MediaPipe's attention mesh with irises)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecmf.branches.face.align import invert, move, warp
from ecmf.bundle import Bundle
from ecmf.engines.choose import open_engine
from ecmf.errors import need

SIZE = 256
MARGIN = 1.5
"""Side of the crop relative to the face's longer side (MediaPipe, face_landmarks_detector_graph.cc)."""


@dataclass(frozen=True)
class Region:
    """A rotated square in the frame, where the landmark model looks."""

    x: float
    """Centre, frame pixels."""
    y: float
    side: float
    """Pixels."""
    angle: float
    """Radians the face is turned clockwise in the picture; 0: its eyes lie level."""

    def matrix(self, size: int = SIZE) -> NDArray[np.float64]:
        """float64[2, 3]: frame to a crop of ``size`` pixels in which the face is upright."""
        scale = size / self.side
        cos, sin = np.cos(self.angle) * scale, np.sin(self.angle) * scale
        half = size / 2
        return np.array(
            [
                [cos, sin, half - cos * self.x - sin * self.y],
                [-sin, cos, half + sin * self.x - cos * self.y],
            ]
        )


@dataclass(frozen=True)
class Landmarks:
    """One face in one frame."""

    points: NDArray[np.float32]
    """float32[478, 3]: x and y in frame pixels; z in the same unit, smaller is nearer to the camera."""
    presence: float
    """Probability in [0, 1] that the region held a face."""

    @property
    def box(self) -> tuple[float, float, float, float]:
        """x, y, width, height of the points, frame pixels."""
        low, high = self.points[:, :2].min(axis=0), self.points[:, :2].max(axis=0)
        return float(low[0]), float(low[1]), float(high[0] - low[0]), float(high[1] - low[1])

    @property
    def region(self) -> Region:
        """Where to look in the next frame: the face's box, square, wider by MARGIN, level with the eyes."""
        return region_of(self.box, self.points[33, :2], self.points[263, :2])


def region_of(
    box: tuple[float, float, float, float], left_eye: NDArray[np.floating], right_eye: NDArray[np.floating]
) -> Region:
    """The square for the landmark model around a face box (frame pixels), turned so that the eyes lie level.

    ``left_eye`` and ``right_eye``: float[2], as seen in the picture.
    """
    x, y, width, height = box
    dx, dy = (float(v) for v in right_eye - left_eye)
    return Region(x + width / 2, y + height / 2, MARGIN * max(width, height), float(np.arctan2(dy, dx)))


class Landmarker:
    """The landmark model behind an engine; one thread uses it at a time."""

    def __init__(self, bundle: Bundle | None = None, *, threads: int = 1, offline: bool = False) -> None:
        """``bundle``: None fetches the weight face-landmarks; ``offline``: only from the cache."""
        if bundle is None:
            from ecmf.weights import imported

            bundle = imported("face-landmarks", offline=offline)
        self._engine = open_engine(
            bundle, threads=threads, shapes={bundle.manifest.inputs[0].name: (1, SIZE, SIZE, 3)}
        )
        self._input = bundle.manifest.inputs[0].name
        self._points, self._presence = (port.name for port in bundle.manifest.outputs[:2])

    def run(self, frame: NDArray[np.uint8], region: Region) -> Landmarks:
        """Landmarks of the face inside ``region`` of ``frame`` (uint8[H, W, 3] BGR, or uint8[H, W] grey).

        There is always an answer; ``presence`` says whether it was a face.
        """
        matrix = region.matrix()
        out = self._engine.run({self._input: image_of(frame, region)})
        points = out[self._points].reshape(-1, 3).astype(np.float32)
        points[:, :2] = move(invert(matrix), points[:, :2])
        points[:, 2] *= region.side / SIZE
        return Landmarks(points, float(1 / (1 + np.exp(-out[self._presence].reshape(-1)[0]))))


def image_of(frame: NDArray[np.uint8], region: Region) -> NDArray[np.float32]:
    """What the model sees, float32[1, SIZE, SIZE, 3] RGB in [0, 1], of ``region`` of a frame.

    Black beyond the frame, as in the model's training: in repeated edge pixels it takes half-seen faces for none.
    """
    cv2: Any = need("cv2", "live")
    picture = warp(frame, region.matrix(), SIZE, black=True)
    rgb = cv2.cvtColor(picture, cv2.COLOR_GRAY2RGB if picture.ndim == 2 else cv2.COLOR_BGR2RGB)
    return np.divide(rgb, np.float32(255), dtype=np.float32)[None]
