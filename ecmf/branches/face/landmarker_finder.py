"""Google's short-range face detector (BlazeFace, 128 x 128): right for a webcam, misses small and distant faces."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecmf.branches.face.finder import Bordered, Found, largest_first, merge
from ecmf.bundle import Bundle
from ecmf.engines.choose import open_engine
from ecmf.errors import need

SIZE = 128
SCORE = 0.5
OVERLAP = 0.3
SMALL = 0.3
"""A face smaller than this share of the frame's longer side is looked at again, closer."""
ENOUGH = 960
"""Pixels of the longer side beyond which a frame is thinned."""
ZOOM = 2.5
"""Side of that closer part, relative to the face's."""


def _anchors() -> NDArray[np.float32]:
    """float32[896, 2]: anchor centres as shares of the input: 16 x 16 cells of 2, then 8 x 8 cells of 6.

    MediaPipe's SSD anchors with strides 8, 16, 16, 16 and two anchors a layer (face_detector_graph.cc).
    """
    layers = []
    for cells, per_cell in ((16, 2), (8, 6)):
        y, x = np.mgrid[:cells, :cells]
        layers.append(np.repeat(np.stack([x.ravel(), y.ravel()], axis=1) + 0.5, per_cell, axis=0) / cells)
    return np.concatenate(layers).astype(np.float32)


class LandmarkerFinder:
    name = "landmarker"
    pause_ns = 60_000_000

    def __init__(self, bundle: Bundle | None = None, *, threads: int = 1, offline: bool = False) -> None:
        """``bundle``: None fetches the weight face-detector; ``offline``: only from the cache."""
        if bundle is None:
            from ecmf.weights import imported

            bundle = imported("face-detector", offline=offline)
        self._engine = open_engine(bundle, threads=threads)
        self._input = bundle.manifest.inputs[0].name
        self._boxes, self._scores = (port.name for port in bundle.manifest.outputs[:2])
        self._anchors = _anchors()

    def find(self, frame: NDArray[np.uint8]) -> list[Found]:
        """Faces in ``frame`` (uint8[H, W, 3] BGR), largest first.

        A small face is looked at again in a part of the frame around it: the detector sees 128 pixels, and places
        a face of less than a quarter of them badly. What is not seen again was none. If the whole frame shows
        nobody, three squares along it are searched: a letterboxed 16:9 picture uses little more than half of those
        pixels.
        """
        # A 4K frame is thinned first: shrinking it whole takes longer than everything else here.
        step = max(max(frame.shape[:2]) // ENOUGH, 1)
        frame = frame[::step, ::step]
        height, width = frame.shape[:2]
        candidates = self._look(frame, 0, 0, width, height)
        if not candidates:
            for x, y, side in _squares(width, height):
                candidates += self._look(frame, x, y, side, side)
        seen = []
        for values, score in candidates:
            side = max(values[2] - values[0], values[3] - values[1])
            if side >= SMALL * max(width, height):
                seen.append((values, score))
            else:
                middle, reach = (values[:2] + values[2:4]) / 2, ZOOM * side / 2
                x, y = (int(v) for v in middle - reach)
                seen += self._look(frame, x, y, int(2 * reach), int(2 * reach))
        if not seen:
            return []
        merged = merge(np.array([v for v, _ in seen]), np.array([score for _, score in seen]), OVERLAP)
        return largest_first([_found(values * step, score) for values, score in merged])

    def find_close(self, frame: NDArray[np.uint8]) -> list[Found]:
        """Faces that fill ``frame`` (uint8[H, W, 3] BGR) or reach beyond it, in one look; largest first."""
        bordered = Bordered.around(frame)
        height, width = bordered.picture.shape[:2]
        seen = self._look(bordered.picture, 0, 0, width, height)
        return largest_first(bordered.close([_found(values, score) for values, score in seen]))

    def _look(
        self, frame: NDArray[np.uint8], x: int, y: int, width: int, height: int
    ) -> list[tuple[NDArray[np.floating], float]]:
        """Search a part of the frame; (box x0, y0, x1, y1 and six points in frame pixels, score), best first."""
        x, y = max(x, 0), max(y, 0)
        part = frame[y : y + height, x : x + width]
        height, width = part.shape[:2]
        if not part.size:
            return []
        blob, (left, top), size = letterboxed(part)
        out = self._engine.run({self._input: blob})
        scores = 1 / (1 + np.exp(-np.clip(out[self._scores].reshape(-1), -80, 80)))
        keep = scores >= SCORE
        # Eight pairs: centre, size, then right eye, left eye, nose, mouth, right ear, left ear of the person.
        pairs = out[self._boxes].reshape(-1, 8, 2)[keep] / SIZE
        points = pairs + self._anchors[keep][:, None]
        centre, half = points[:, 0], pairs[:, 1] / 2
        values = np.stack([centre - half, centre + half, *points[:, 2:].swapaxes(0, 1)], axis=1)
        values = (values * SIZE - (left, top)) * (width / size[0], height / size[1]) + (x, y)
        return merge(values.reshape(-1, 16), scores[keep], OVERLAP)


def letterboxed(
    part: NDArray[np.uint8],
) -> tuple[NDArray[np.float32], tuple[int, int], tuple[int, int]]:
    """What the network sees of uint8[H, W, 3] BGR: float32[1, SIZE, SIZE, 3] RGB in [-1, 1] with black bars.

    Also left and top, and width and height, of the picture within it.
    """
    cv2: Any = need("cv2", "live")
    height, width = part.shape[:2]
    scale = SIZE / max(height, width)
    size = max(round(width * scale), 1), max(round(height * scale), 1)
    small = cv2.resize(part, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    left, top = (SIZE - size[0]) // 2, (SIZE - size[1]) // 2
    blob = np.full((1, SIZE, SIZE, 3), -1, np.float32)
    blob[0, top : top + size[1], left : left + size[0]] = small[..., ::-1] / np.float32(127.5) - 1
    return blob, (left, top), size


def _squares(width: int, height: int) -> list[tuple[int, int, int]]:
    """x, y, side of three overlapping squares at the start, middle and end of the longer side."""
    side = min(width, height, max(width, height) * 3 // 5)
    return [(round((width - side) * t), round((height - side) * t), side) for t in (0, 0.5, 1)]


def _found(values: NDArray[np.floating], score: float) -> Found:
    x0, y0, x1, y1 = (float(v) for v in values[:4])
    return Found((x0, y0, x1 - x0, y1 - y0), score, values[4:8].reshape(2, 2).astype(np.float32))
