"""What was said just before: the settled words of one stream and where they lie.

A window of audio that begins with its first new word is hard to read: Whisper was trained on half minutes, and the
sounds at the very beginning have nothing before them. So a window begins some seconds earlier, at the beginning of a
word, and the decoder is given the settled words of that audio as its prefix: they guide it and cannot change.
"""

from __future__ import annotations

from bisect import insort
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

_KEPT = 100
"""Settled words that are remembered; more than are spoken in the longest window."""
_BREAKS = 16
"""Breaks that are remembered; more than lie within what may wait, unless the source stutters."""


@dataclass(frozen=True)
class Placed:
    """A settled word or punctuation."""

    tokens: tuple[int, ...]
    start: int
    """Its first sample, counted from the start of the stream."""
    punctuation: bool


class LeftContext:
    """The latest settled words of one stream, in order."""

    def __init__(self) -> None:
        self._settled: deque[Placed] = deque(maxlen=_KEPT)
        self._breaks = [0]
        """Samples at which the stream broke off, in order: utterances before the last break may still wait."""

    def add(self, units: Iterable[Placed]) -> None:
        """Remember what was settled."""
        self._settled.extend(units)

    def break_off(self, sample: int) -> None:
        """Audio was left out before ``sample``: what comes from there on does not follow on what was said."""
        insort(self._breaks, sample)
        del self._breaks[:-_BREAKS]

    def before(self, sample: int, seconds: int) -> tuple[int, tuple[int, ...]]:
        """Where a window for the audio from ``sample`` on begins, and the settled tokens in it.

        Not more than ``seconds``, in samples, earlier; at ``sample`` itself where nobody spoke so shortly before.
        """
        words = list(self._settled)
        earliest = sample - seconds
        # Before all that are remembered there may have been one anywhere.
        earliest = max(earliest, max((at for at in self._breaks if at <= sample), default=sample))
        for index, word in enumerate(words):
            if not word.punctuation and earliest <= word.start < sample:
                return word.start, tuple(token for each in words[index:] for token in each.tokens)
        return sample, ()
