"""Voice activity whose latest judgements are kept, so that words and voice share one pass of the detector."""

from __future__ import annotations

from collections import deque

import numpy as np
from numpy.typing import NDArray

from ecmf.vad import BLOCK, SpeechDetector
from realtime.sources.base import SAMPLE_RATE


class RememberingDetector:
    """A voice activity detector that keeps the last judgements, so that words and voice share one pass of it."""

    def __init__(self, detector: SpeechDetector, seconds: float) -> None:
        self._detector = detector
        self.recent: deque[float] = deque(maxlen=round(seconds * SAMPLE_RATE / BLOCK))
        """Speech probability of the latest blocks of 32 ms."""
        self._untold = 0

    @property
    def waiting(self) -> int:
        """Samples given but not judged yet."""
        return self._detector.waiting

    def process(self, audio: NDArray[np.float32]) -> NDArray[np.float32]:
        probabilities = self._detector.process(audio)
        self.recent.extend(probabilities.tolist())
        self._untold += len(probabilities)
        return probabilities

    def news(self) -> NDArray[np.float32]:
        """What was judged since the last call, as far as it is kept."""
        untold, self._untold = min(self._untold, len(self.recent)), 0
        return np.array(self.recent, np.float32)[len(self.recent) - untold :]

    def reset(self) -> None:
        self._detector.reset()
        self.recent.clear()
