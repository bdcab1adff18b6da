"""A stream whose speech and words are known beforehand: what the transcriber itself does with them shows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from ecmf.decoder import Decoder, Hypothesis
from ecmf.heard import Unit
from ecmf.speech_window import Window
from ecmf.transcribe import Transcriber
from ecmf.transcript import TranscriptEvent
from ecmf.vad import BLOCK, SAMPLE_RATE

START_NS = 1_000_000_000_000
PIECE = 2048
STATES = np.zeros((1, 10, 8), np.float32)


class Speaking:
    """A detector that hears speech in given spans of seconds, whatever it is given."""

    def __init__(self, *spans: tuple[float, float]) -> None:
        self._spans, self._blocks, self._rest = spans, 0, 0

    def process(self, audio: NDArray[np.float32]) -> NDArray[np.float32]:
        count, self._rest = divmod(self._rest + len(audio), BLOCK)
        at = (self._blocks + np.arange(count)) * BLOCK / SAMPLE_RATE
        self._blocks += count
        return np.array([any(a < t < b for a, b in self._spans) for t in at], np.float32)

    def reset(self) -> None:
        self._rest = 0


@dataclass
class Scripted:
    """Stands where the decoder stands; ``read`` gets the prefix and where the new audio begins and ends, seconds."""

    read: Callable[[tuple[int, ...], float, float], Sequence[Unit]]
    language: str | None = "en"
    likely: str = "en"
    prefixes: list[tuple[int, ...]] = field(default_factory=list)
    """What it was given to go on from, pass by pass."""

    def decode(
        self,
        states: NDArray[np.float32],
        seconds: float,
        prefix: tuple[int, ...] = (),
        from_s: float = 0.0,
        language: str | None = None,
        **_: Any,
    ) -> Hypothesis:
        self.prefixes.append(prefix)
        return Hypothesis(tuple(self.read(prefix, from_s, seconds)), 0.0, -0.1, language or "en")

    def languages(self, states: NDArray[np.float32]) -> dict[str, float]:
        return {self.likely: 1.0}


def transcriber(decoder: Scripted, *spans: tuple[float, float]) -> Transcriber:
    return Transcriber(cast(Decoder, decoder), Speaking(*spans))


def follow(
    transcriber: Transcriber, seconds: float, passes: int = 50
) -> Iterator[tuple[float, Window | None, TranscriptEvent]]:
    """Every event of ``seconds`` of noise, with the time at which it came and the window that it came of.

    AssertionError where one piece of sound asks for more than ``passes`` of them.
    """
    rng = np.random.default_rng(0)
    for begin in range(0, round(seconds * SAMPLE_RATE), PIECE):
        noise = (0.1 * rng.standard_normal(PIECE)).astype(np.float32)
        at = (begin + PIECE) / SAMPLE_RATE
        for event in transcriber.push(noise, START_NS + round(begin * 1e9 / SAMPLE_RATE)):
            yield at, None, event
        for _ in range(passes):
            window = transcriber.window()
            if window is None:
                break
            for event in transcriber.step(window, STATES):
                yield at, window, event
        else:
            raise AssertionError(f"after {at} s there is no end of windows")
