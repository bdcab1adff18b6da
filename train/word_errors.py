"""Imitated recognition errors: what a transcript looks like at a given word error rate."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def corrupt(text: str, rate: float, vocabulary: Sequence[str], rng: np.random.Generator) -> str:
    """Corrupt each word with probability ``rate``: half substituted, a quarter deleted, a quarter followed by an
    inserted word; substitutes and insertions are drawn from ``vocabulary`` as often as they occur in it. About the
    mixture of a small recognizer. At least one word remains.
    """
    words = text.split()
    out: list[str] = []
    for word in words:
        if rng.random() >= rate:
            out.append(word)
            continue
        kind = rng.integers(4)
        if kind < 2:
            out.append(vocabulary[int(rng.integers(len(vocabulary)))])
        elif kind == 2:
            out += [word, vocabulary[int(rng.integers(len(vocabulary)))]]
    return " ".join(out or words[:1])


def unpunctuated(text: str) -> str:
    """Lower case without sentence marks, as recognizers without punctuation write it; apostrophes stay."""
    return " ".join("".join(c if c.isalnum() or c in "' " else " " for c in text.lower()).split())
