"""Scores of fusion heads on clips: each allowed set of cues, per clip."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecmf.cue import MODALITIES
from train.clip_samples import Samples
from train.fit_head import subsets
from train.pairing import TRUST, Batch
from train.scores import intervals, per_class, scores

PART = 2048
"""Moments in memory at a time."""
Judge = Callable[[Batch, NDArray[np.int64]], tuple[NDArray[np.float64], NDArray[np.float64]]]
"""Probabilities float64[n, labels] and weights float64[n, 4] of moments; the second argument are their numbers."""


def measure(judge: Judge, samples: Samples, rows: NDArray[np.bool_], labels: Sequence[str]) -> dict[str, Any]:
    """Scores per clip (the mean over its moments) by the cues that are shown to the judge.

    Each subset on the moments that have all of it; all modalities on every moment, with what it has, and then also
    precision, recall and F1 of each label and the confusion. Intervals: 95 %, over clips.
    """
    table: dict[str, Any] = {}
    numbers = np.flatnonzero(rows)
    clip, own = samples.clip[numbers], samples.batch.quality[numbers]
    target_of = samples.batch.target[numbers]
    for subset in subsets():
        if not subset <= samples.modalities:
            continue
        keep = np.array([m in subset for m in MODALITIES], np.float32)
        quality = own * keep
        whole = subset == samples.modalities
        there = quality[:, [MODALITIES.index(m) for m in subset]] > 0
        trusted = (quality[:, [MODALITIES.index(m) for m in TRUST]] > 0).any(axis=1)
        usable = np.flatnonzero(trusted if whole else there.all(axis=1))
        if not len(usable):
            continue
        probs, weights = _judged(judge, samples, numbers[usable], quality[usable])
        names, inverse = np.unique(clip[usable], return_inverse=True)
        mean = np.zeros((len(names), len(labels)))
        np.add.at(mean, inverse, probs)
        mean /= mean.sum(axis=1, keepdims=True)
        target = np.zeros(len(names), np.int64)
        target[inverse] = target_of[usable]
        row: dict[str, Any] = scores(mean, target)
        row["weights"] = {m: round(float(weights[:, MODALITIES.index(m)].mean()), 3) for m in sorted(subset)}
        confusion = np.zeros((len(labels), len(labels)), np.int64)
        np.add.at(confusion, (target, mean.argmax(axis=1)), 1)
        row |= intervals(confusion)
        if whole:
            row |= {"per_class": per_class(confusion, labels), "confusion": confusion.tolist()}
        table["+".join(m for m in MODALITIES if m in subset)] = row
    return table


def _judged(
    judge: Judge, samples: Samples, rows: NDArray[np.int64], quality: NDArray[np.float32]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Probabilities and weights, a part of the rows in memory at a time."""
    parts = []
    for start in range(0, len(rows), PART):
        chosen = rows[start : start + PART]
        batch = samples.rows(chosen)
        shown = Batch(batch.cues, batch.log_probs, quality[start : start + PART], batch.target)
        parts.append(judge(shown, chosen))
    return np.concatenate([p for p, _ in parts]), np.concatenate([w for _, w in parts])
