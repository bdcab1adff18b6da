"""Scores of heads over stored features: each clip judged by the fold that did not see it, by the modalities shown."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ecmf.cue import MODALITIES
from train.mer_features import Feature, rows_of
from train.scores import detailed, intervals, scores


def predict(
    head: nn.Module,
    features: Sequence[Feature],
    rows: NDArray[np.int64],
    labels: int,
    batch: int = 512,
    shown: frozenset[int] | None = None,
) -> NDArray[np.float64]:
    """Probabilities float64[rows, labels], a batch at a time. ``shown``: numbers of the modalities that the head is
    given; default: all."""
    kept = torch.tensor([shown is None or feature.kind in shown for feature in features]).float()
    probs = np.zeros((len(rows), labels))
    head.eval()
    for start in range(0, len(rows), batch):
        inputs = rows_of(features, rows[start : start + batch])
        inputs["quality"] = inputs["quality"] * kept
        with torch.no_grad():
            logits, _ = head(**inputs)
        probs[start : start + batch] = torch.softmax(logits.double(), dim=1).numpy()
    return probs


def across(
    heads: Sequence[nn.Module],
    fold: NDArray[np.int64],
    features: Sequence[Feature],
    target: NDArray[np.int64],
    labels: Sequence[str],
) -> dict[str, Any]:
    """Scores of each head on its own fold, of all clips together (with intervals, each label and the confusion), and
    of all clips by the modalities shown, on clips that have a feature of them.

    fold: int64[n], whose head did not see a clip; -1: none, it is not judged.
    """
    judged = np.flatnonzero(fold >= 0)
    table: dict[str, Any] = {}
    pooled = np.zeros((len(target), len(labels)))
    for number, head in enumerate(heads):
        held = np.flatnonzero(fold == number)
        pooled[held] = predict(head, features, held, len(labels))
        table[f"fold {number}"] = scores(pooled[held], target[held])
    table["pooled"] = detailed(pooled[judged], target[judged], labels)
    kinds = sorted({feature.kind for feature in features})
    for count in range(1, len(kinds)):
        for chosen in combinations(kinds, count):
            there = np.any([f.present[: len(target)] for f in features if f.kind in chosen], axis=0)
            for number, head in enumerate(heads):
                held = np.flatnonzero((fold == number) & there)
                pooled[held] = predict(head, features, held, len(labels), shown=frozenset(chosen))
            rows = judged[there[judged]]
            confusion = np.zeros((len(labels), len(labels)), np.int64)
            np.add.at(confusion, (target[rows], pooled[rows].argmax(axis=1)), 1)
            name = "+".join(MODALITIES[kind] for kind in chosen)
            if len(rows):
                table[f"only {name}"] = {**scores(pooled[rows], target[rows]), **intervals(confusion)}
    return table
