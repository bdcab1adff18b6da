"""Utterances out of speech probabilities: where one begins, pauses and ends."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ecmf.vad import BLOCK, SAMPLE_RATE

BLOCK_S = BLOCK / SAMPLE_RATE
_REMEMBERED_S = 60.0
"""Speech probabilities that are kept; more than the longest window."""


class Detector(Protocol):
    """What judges the stream: `ecmf.vad.SpeechDetector`, or one that wraps it."""

    def process(self, audio: NDArray[np.float32]) -> NDArray[np.float32]: ...

    def reset(self) -> None: ...


@dataclass(frozen=True)
class UtteranceSettings:
    """When speech is an utterance."""

    onset: float = 0.5
    """Speech probability at which a silent stream starts to speak."""
    release: float = 0.35
    """Probability under which a speaking stream is silent."""
    rms: float = 0.0025
    """A block quieter than this is not speech, whatever the network says."""
    preroll_s: float = 0.3
    """Audio kept before the first speech: soft first sounds."""
    least_s: float = 0.16
    """Speech before there is anything to transcribe: clicks and single breaths are shorter."""
    pause_s: float = 0.26
    """Silence after which everything said so far can be settled."""
    end_s: float = 0.6
    """Silence that ends the utterance."""


@dataclass
class Utterance:
    """A stretch of one stream, in samples since its start."""

    number: int
    begin: int
    """First sample, preroll included."""
    speech_end: int
    """One past the last sample judged as speech so far."""
    spoken: int
    """Samples judged as speech."""
    closed: int | None = None
    """One past its last sample, once it has ended."""


class Segmenter:
    """Cuts one stream into utterances. Not thread-safe."""

    def __init__(self, detector: Detector, settings: UtteranceSettings | None = None) -> None:
        self.settings = settings or UtteranceSettings()
        self._detector = detector
        self._position = 0
        self._numbers = 0
        self._tail = np.zeros(0, np.float32)
        self._judged: deque[float] = deque(maxlen=round(_REMEMBERED_S / BLOCK_S))
        """Speech probability of the latest blocks, up to ``position``."""
        self._fresh = 0
        """Blocks since the last utterance, or since the stream began."""
        self.current: Utterance | None = None

    @property
    def position(self) -> int:
        """Samples judged so far."""
        return self._position

    def push(self, audio: NDArray[np.float32]) -> list[Utterance]:
        """Go on with float32[n]; gives the utterances that ended in it."""
        stream = np.concatenate([self._tail, audio])
        probabilities = self._detector.process(audio)
        count = len(probabilities)
        self._tail = stream[count * BLOCK :]
        loud = np.sqrt(np.mean(np.square(stream[: count * BLOCK].reshape(count, BLOCK)), axis=1))
        ended = []
        for probability, rms in zip(probabilities.tolist(), loud.tolist(), strict=True):
            closed = self._block(probability if rms >= self.settings.rms else 0.0)
            if closed is not None:
                ended.append(closed)
        return ended

    def close(self) -> Utterance | None:
        """End the utterance that is under way, if any: the stream breaks off here."""
        ended, self.current = self.current, None
        if ended is not None:
            ended.closed = self._position
        return ended

    def reset(self, position: int) -> None:
        """A new stream starts at sample ``position``. Call `close` first."""
        self._detector.reset()
        self._position = position
        self._tail = np.zeros(0, np.float32)
        self._fresh = 0

    def split(self, at: int) -> Utterance:
        """End the current utterance at sample ``at``; a new one goes on from there. Gives the new one."""
        old = self.current
        if old is None:
            raise ValueError("there is no utterance to split")
        self._numbers += 1
        old.closed = at
        kept = self.probabilities(at, self._position)
        spoken = BLOCK * int(np.count_nonzero(kept >= self.settings.release))
        self.current = Utterance(self._numbers, at, max(old.speech_end, at), spoken)
        old.speech_end = min(old.speech_end, at)
        return self.current

    def probabilities(self, begin: int, end: int) -> NDArray[np.float32]:
        """Speech probability of every 32 ms from sample ``begin`` to ``end``, as far as it is remembered."""
        first = max(len(self._judged) - (self._position - begin) // BLOCK, 0)
        return np.asarray(self._judged, np.float32)[first : first + max(end - begin, 0) // BLOCK]

    def _block(self, probability: float) -> Utterance | None:
        begin = self._position
        self._position += BLOCK
        self._judged.append(probability)
        settings = self.settings
        if self.current is None:
            if probability >= settings.onset:
                before = min(round(settings.preroll_s / BLOCK_S), self._fresh)
                self._numbers += 1
                self.current = Utterance(self._numbers, begin - before * BLOCK, self._position, BLOCK)
            self._fresh += 1
            return None
        current = self.current
        if probability >= settings.release:
            current.speech_end = self._position
            current.spoken += BLOCK
        elif self._position - current.speech_end >= settings.end_s * SAMPLE_RATE:
            # What leads up to the next utterance may be the silence after this one, not its last word.
            self._fresh = (self._position - current.speech_end) // BLOCK
            return self.close()
        return None
