"""What a transcriber says of a stream, event by event. Times are ns on the capture clock."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Word:
    text: str
    """Without spaces or punctuation around it."""
    start_ns: int
    end_ns: int
    probability: float


@dataclass(frozen=True)
class Settled:
    """Text that is appended to an utterance and never changes."""

    utterance: int
    text: str
    """Exact text to append, with its spaces and punctuation (which may come alone, after its word)."""
    words: tuple[Word, ...]
    start_ns: int
    end_ns: int
    language: str = "en"
    """Whisper's code of the language that it was heard in."""


@dataclass(frozen=True)
class Partial:
    """What seems to follow the settled text: replaced by the next Partial or Settled of the utterance."""

    utterance: int
    text: str
    words: tuple[Word, ...]
    start_ns: int
    end_ns: int


@dataclass(frozen=True)
class UtteranceEnd:
    """Nothing more comes for this utterance. Sent only for one that has words."""

    utterance: int
    text: str
    start_ns: int
    """Of its first word."""
    end_ns: int
    """Of its last word."""
    language: str


@dataclass(frozen=True)
class Skipped:
    """Audio that was never transcribed."""

    start_ns: int
    end_ns: int
    reason: Literal["overload", "gap", "unsettled"]
    """overload: the transcriber was too far behind; gap: the source lost samples; unsettled: nothing could be read in
    the longest window that there is."""


TranscriptEvent = Settled | Partial | UtteranceEnd | Skipped
