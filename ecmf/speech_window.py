"""A stretch of the stream to encode now, and where somebody speaks in it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ecmf.vad import BLOCK, SAMPLE_RATE


@dataclass(frozen=True)
class Window:
    """A stretch of audio to encode now. Times are ns on the capture clock."""

    audio: NDArray[np.float32]
    """float32[n], 16 kHz mono: the part of an utterance that is not settled, and the settled words before it."""
    start_ns: int
    end_ns: int
    speech: NDArray[np.float32]
    """float32[k]: speech probability of every 32 ms of it."""
    paused: bool
    """Speech has paused or ended at its end."""
    utterance: int
    begin: int
    """First sample, counted from the start of the stream."""
    settled: int
    """The sample up to which words are settled."""
    prefix: tuple[int, ...]
    """Their tokens."""

    @property
    def end(self) -> int:
        """One past the last sample, counted from the start of the stream."""
        return self.begin + len(self.audio)

    @property
    def seconds(self) -> float:
        return len(self.audio) / SAMPLE_RATE

    @property
    def settled_s(self) -> float:
        """Seconds of it whose words are settled."""
        return (self.settled - self.begin) / SAMPLE_RATE

    def speech_end_s(self, least: float) -> float:
        """Seconds into it up to where somebody speaks with a probability of at least ``least``."""
        spoken = np.flatnonzero(self.speech >= least)
        return (int(spoken[-1]) + 1) * BLOCK / SAMPLE_RATE if len(spoken) else 0.0

    def unsettled_speech_s(self, least: float) -> float:
        """For how many seconds after what is settled somebody speaks with a probability of at least ``least``."""
        after = self.speech[(self.settled - self.begin) // BLOCK :]
        return int(np.count_nonzero(after >= least)) * BLOCK / SAMPLE_RATE
