"""The scene branch: the whole frame as one embedding. Context only, so it names no emotion and no person.

ECMF's "global" visual branch (arXiv 2508.05991, section 3.1), with EfficientNet-lite0 as its encoder.
"""

from __future__ import annotations

import time

import numpy as np
from numpy.typing import NDArray

from ecmf.cue import Cue
from ecmf.engines.choose import open_engine
from ecmf.errors import SourceError, need
from ecmf.weights import imported

CEILING = 0.9
"""Quality of a perfect frame: below 1, since a scene says less of a person than a face or a voice does."""
LIGHT = (5.0, 40.0)
"""Mean luma, 0 to 255, at which a frame says nothing and at which it is bright enough."""
CONTRAST = (3.0, 20.0)
"""The same for luma's standard deviation; it catches covered, washed-out and constant frames."""
SHARPNESS = (0.02, 0.2)
"""The same for the spread of luma's Laplacian over that of luma, which does not change with brightness.

At 224 pixels sharp web and webcam pictures reach 0.28 to 0.6, a defocused one 0.03.
"""


class SceneBranch:
    """Frames in, scene cues out. Not thread-safe."""

    def __init__(self, threads: int = 1, offline: bool = False, *, backend: str = "auto") -> None:
        """Loads the scene bundle, fetching it first unless ``offline``. Raises WeightError, EngineError."""
        self.bundle = imported("scene", offline=offline)
        self.engine = open_engine(self.bundle, backend=backend, threads=threads)
        self._size = tuple(self.bundle.manifest.preprocessing["size"])
        self._mean = float(self.bundle.manifest.preprocessing["mean"])
        self._scale = float(self.bundle.manifest.preprocessing["scale"])

    def process(self, frame: NDArray[np.uint8], start_ns: int, end_ns: int) -> Cue:
        """``frame`` is uint8[H, W, 3] BGR. Gives a float32[1280] embedding. Raises SourceError."""
        if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3 or 0 in frame.shape:
            raise SourceError(
                f"scene: a frame is uint8[H, W, 3], this one is {frame.dtype}{list(frame.shape)}"
            )
        began = time.perf_counter()
        # Squeezed rather than cropped or padded: all of the surroundings count, and bars would be a scene of their own.
        cv2 = need("cv2", "live")
        small = cv2.resize(frame, self._size, interpolation=cv2.INTER_AREA)
        embedding = self.engine.run({"image": image_of(small, self._mean, self._scale)})["embedding"][0]
        quality = frame_quality(small)
        elapsed_ms = (time.perf_counter() - began) * 1e3
        return Cue("scene", None, embedding, None, start_ns, end_ns, quality, stage_ms={"scene": elapsed_ms})


def image_of(small: NDArray[np.uint8], mean: float, scale: float) -> NDArray[np.float32]:
    """What the network sees, float32[1, 3, H, W], of a picture uint8[H, W, 3] BGR in its size."""
    picture = (small[:, :, ::-1].astype(np.float32) / 255 - mean) / scale
    return np.asarray(picture.transpose(2, 0, 1)[None], np.float32)


def frame_quality(picture: NDArray[np.uint8]) -> float:
    """How much a uint8[H, W, 3] BGR picture of about 224 pixels shows, in [0, CEILING].

    Falls with darkness, lack of contrast and blur; 0 for a constant frame.
    """
    cv2 = need("cv2", "live")
    luma = cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY)
    spread = float(luma.std())
    if spread == 0:
        return 0.0
    detail = float(cv2.Laplacian(luma, cv2.CV_32F).std()) / spread
    return CEILING * _ramp(float(luma.mean()), LIGHT) * _ramp(spread, CONTRAST) * _ramp(detail, SHARPNESS)


def _ramp(value: float, ends: tuple[float, float]) -> float:
    return min(max((value - ends[0]) / (ends[1] - ends[0]), 0.0), 1.0)
