"""What of a decoding was really heard: Whisper goes on writing where nothing is left to hear."""

from __future__ import annotations

import string
from collections.abc import Sequence
from dataclasses import dataclass, replace

SECONDS_PER_STATE = 0.02
SURE = 0.8
"""Probability from which a last word is believed although the alignment puts it behind the audio."""
_LONGEST_LOOP = 12
"""Words in the longest repetition that is looked for."""
_PUNCTUATION = frozenset(string.punctuation + "…、。，！？：；")


def is_punctuation(text: str) -> bool:
    """Whether ``text`` has nothing but punctuation in it, blanks aside."""
    return bool(text.strip()) and all(character in _PUNCTUATION for character in text.strip())


@dataclass(frozen=True)
class Unit:
    """A word as Whisper writes it, or the punctuation after one."""

    text: str
    """With its leading space, if any."""
    tokens: tuple[int, ...]
    start_s: float
    """Seconds from the start of the encoded audio, by cross-attention."""
    end_s: float
    probability: float
    """Mean of its tokens'."""

    @property
    def punctuation(self) -> bool:
        return is_punctuation(self.text)


def heard(
    units: Sequence[Unit], seconds: float, before: str, *, known: Sequence[str] = (), ended: bool = False
) -> tuple[Unit, ...]:
    """The units up to where the decoder began to make them up; ``before`` is the text that they follow.

    ``seconds``: where the audio ends and its padding begins. ``known``: what an earlier pass over less audio heard
    there; what it shares with the units was in that audio, whatever the alignment says now. ``ended``: speech has
    ended and the decoder stopped by itself.

    That is where one starts in the padding, where three in a row last no time, or where it says the same words over
    again and gives one of them no time. The alignment of a last word is the least certain: one that the decoder is
    SURE of, with nothing after it, stays when speech has ended, wherever its start lies.
    """
    last = seconds - 1.5 * SECONDS_PER_STATE
    shared = 0
    while shared < min(len(units), len(known)) and _same(units[shared].text, known[shared]):
        shared += 1
    # Word, index of its unit, whether it lasts no time.
    said = [(_bare(word), -1, False) for word in before.split()]
    for index, unit in enumerate(units):
        if unit.punctuation:
            continue
        if index < shared:
            said.append((_bare(unit.text), index, False))
            continue
        if unit.start_s >= last:
            is_last = all(after.punctuation for after in units[index + 1 :])
            if ended and is_last and unit.probability >= SURE:
                break
            return _within(units[:index], seconds)
        said.append((_bare(unit.text), index, unit.end_s - unit.start_s < 1.5 * SECONDS_PER_STATE))
        if all(timeless for _, _, timeless in said[-3:]) and len(said) >= 3:
            return _within(units[: max(said[-3][1], 0)], seconds)
        loop = _loop(said)
        if loop is not None:
            return _within(units[: max(said[loop][1], 0)], seconds)
    return _within(units, seconds)


def _within(units: Sequence[Unit], seconds: float) -> tuple[Unit, ...]:
    """The units with their times in the audio, whatever the alignment says of its padding."""
    return tuple(
        replace(unit, start_s=min(unit.start_s, seconds), end_s=min(unit.end_s, seconds)) for unit in units
    )


def _loop(said: Sequence[tuple[str, int, bool]]) -> int | None:
    """Where words begin to last no time, if the last ones say those before them over again: index into ``said``."""
    words = [word for word, _, _ in said]
    for period in range(1, min(_LONGEST_LOOP, len(said) // 2) + 1):
        timeless = [k for k in range(len(said) - period, len(said)) if said[k][2]]
        if timeless and words[-period:] == words[-2 * period : -period]:
            return timeless[0]
    return None


def _same(one: str, other: str) -> bool:
    return one.strip().lower() == other.strip().lower()


def _bare(word: str) -> str:
    return word.strip().strip("".join(_PUNCTUATION)).lower()
