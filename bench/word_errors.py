"""Word error rate by a stated rule, with an interval; and which word of a reference a hypothesis found."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_ONES = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
)  # fmt: skip
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")


def spoken(number: int) -> list[str]:
    """A number from 0 to 999,999 in words; digit by digit beyond."""
    if number < 20:
        return [_ONES[number]]
    if number < 100:
        return [_TENS[number // 10 - 2], *(spoken(number % 10) if number % 10 else [])]
    if number < 1000:
        return [_ONES[number // 100], "hundred", *(spoken(number % 100) if number % 100 else [])]
    if number < 1_000_000:
        return [*spoken(number // 1000), "thousand", *(spoken(number % 1000) if number % 1000 else [])]
    return [_ONES[int(digit)] for digit in str(number)]


def normal(text: str) -> list[str]:
    """The rule: lower case; digits as words; hyphens and dashes as spaces; apostrophes kept; all else dropped."""
    words: list[str] = []
    for word in re.sub(r"[-–—]", " ", text.lower().replace("’", "'")).split():
        bare = re.sub(r"[^\w']", "", word).strip("'")
        if bare.isdecimal():
            words += spoken(int(bare))
        elif bare:
            words.append(bare)
    return words


def matches(reference: Sequence[str], hypothesis: Sequence[str]) -> tuple[list[int | None], list[int]]:
    """Align by least edits. Gives, per reference word, the index of the equal hypothesis word or None, and the errors.

    The errors, int per reference word, count a substitution or deletion there and the insertions after it (those
    before the first word count there too). Without any reference word there is one entry, of all insertions.
    """
    rows, columns = len(reference), len(hypothesis)
    cost = np.zeros((rows + 1, columns + 1), np.int64)
    cost[:, 0], cost[0] = np.arange(rows + 1), np.arange(columns + 1)
    for i in range(1, rows + 1):
        for j in range(1, columns + 1):
            differs = reference[i - 1] != hypothesis[j - 1]
            cost[i, j] = min(cost[i - 1, j - 1] + differs, cost[i - 1, j] + 1, cost[i, j - 1] + 1)
    found: list[int | None] = [None] * rows
    errors = [0] * max(rows, 1)
    i, j = rows, columns
    while i or j:
        if i and j and cost[i, j] == cost[i - 1, j - 1] + (reference[i - 1] != hypothesis[j - 1]):
            i, j = i - 1, j - 1
            if reference[i] == hypothesis[j]:
                found[i] = j
            else:
                errors[i] += 1
        elif i and cost[i, j] == cost[i - 1, j] + 1:
            i -= 1
            errors[i] += 1
        else:
            j -= 1
            errors[max(i - 1, 0)] += 1
    return found, errors


@dataclass(frozen=True)
class ErrorRate:
    words: int
    errors: int
    rate: float
    low: float
    """2.5 % and 97.5 % points of a bootstrap over utterances."""
    high: float


def error_rate(utterances: Sequence[tuple[int, int]], seed: int = 0) -> ErrorRate:
    """Pooled over (words, errors) of each utterance."""
    counts = np.asarray(utterances, np.float64)
    picks = np.random.default_rng(seed).integers(len(counts), size=(2000, len(counts)))
    sums = counts[picks].sum(axis=1)
    low, high = np.percentile(sums[:, 1] / sums[:, 0], [2.5, 97.5])
    words, errors = counts.sum(axis=0)
    return ErrorRate(int(words), int(errors), float(errors / words), float(low), float(high))
