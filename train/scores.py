"""What probabilities are measured by: the one place for weighted F1, UAR, accuracy, calibration and their intervals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax as _softmax
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, recall_score

BINS = 15
"""Of the expected calibration error."""


def softmax(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    """Over the last dimension, in double precision."""
    found: NDArray[np.float64] = _softmax(np.asarray(logits, np.float64), axis=-1)
    return found


def calibration_error(probs: NDArray[np.floating], truth: NDArray[np.int64], bins: int = BINS) -> float:
    """Expected calibration error: mean gap between confidence and accuracy over ``bins`` equal bins of confidence,
    weighted by their size (Naeini et al. 2015; Guo et al. 2017, equation 3)."""
    confidence, right = probs.max(axis=1), probs.argmax(axis=1) == truth
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    gap = np.bincount(place, weights=confidence - right, minlength=bins)
    return float(np.abs(gap).sum() / len(truth))


def recalls(predicted: NDArray[np.int64], truth: NDArray[np.int64], labels: int) -> NDArray[np.float64]:
    """float64[labels]: share of each label's examples that were found; NaN for a label without examples."""
    found: NDArray[np.float64] = recall_score(
        truth, predicted, labels=list(range(labels)), average=None, zero_division=np.nan
    )
    return found


def scores(probs: NDArray[np.float64], target: NDArray[np.int64]) -> dict[str, Any]:
    """Weighted F1, UAR, accuracy and expected calibration error of probabilities float64[n, labels].

    UAR: over the labels that are among ``target``.
    """
    guess = probs.argmax(axis=1)
    return {
        "n": len(target),
        "weighted_f1": round(float(f1_score(target, guess, average="weighted")), 4),
        "uar": round(float(recall_score(target, guess, labels=np.unique(target), average="macro")), 4),
        "accuracy": round(float(accuracy_score(target, guess)), 4),
        "ece": round(calibration_error(probs, target), 4),
    }


def detailed(
    probs: NDArray[np.float64],
    target: NDArray[np.int64],
    labels: Sequence[str],
    people: NDArray[np.int64] | None = None,
) -> dict[str, Any]:
    """``scores`` with 95 % intervals, precision, recall and F1 of each label, and the confusion matrix.

    people: int64[n, k] as in ``over_people``; without them samples are taken to be independent.
    """
    guess = probs.argmax(axis=1)
    matrix = confusion_matrix(target, guess, labels=list(range(len(labels))))
    return {
        **scores(probs, target),
        **(intervals(matrix) if people is None else over_people(guess, target, people, len(labels))),
        "per_class": per_class(matrix, labels),
        "confusion": matrix.tolist(),
    }


def per_class(confusion: NDArray[np.int64], labels: Sequence[str]) -> dict[str, dict[str, float]]:
    """Precision, recall, F1 and count of each label; confusion: int64[labels, labels], rows are the truth."""
    right, true, said = np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0)
    return {
        label: {
            "n": int(true[k]),
            "precision": round(float(right[k] / max(said[k], 1)), 4),
            "recall": round(float(right[k] / max(true[k], 1)), 4),
            "f1": round(float(2 * right[k] / max(true[k] + said[k], 1)), 4),
        }
        for k, label in enumerate(labels)
    }


def intervals(confusion: NDArray[np.int64], draws: int = 1000) -> dict[str, list[float]]:
    """95 % bootstrap intervals of weighted F1, UAR and accuracy over redrawn samples, seed 0.

    confusion: int64[labels, labels], rows are the truth. The samples count as independent: several of one person make
    the true intervals wider.
    """
    count = int(confusion.sum())
    drawn = np.random.default_rng(0).multinomial(count, confusion.ravel() / count, draws)
    return _spread(drawn.reshape(draws, *confusion.shape).astype(np.float64))


def over_people(
    guess: NDArray[np.int64],
    target: NDArray[np.int64],
    people: NDArray[np.int64],
    labels: int,
    draws: int = 400,
) -> dict[str, list[float]]:
    """As ``intervals``, but redrawing people: a sample counts as often as all whose cues are in it are drawn.

    people: int64[n, k], who is behind each of a sample's k cues, numbered from 0; -1 where there is none.
    """
    rng, cell = np.random.default_rng(0), target * labels + guess
    tables = np.zeros((draws, labels, labels))
    for table in tables:
        weight = np.ones(len(target))
        for column in people.T:
            if (here := column >= 0).any():
                count = int(column.max()) + 1
                weight[here] *= rng.multinomial(count, np.full(count, 1 / count))[column[here]]
        table += np.bincount(cell, weight, labels * labels).reshape(labels, labels)
    return _spread(tables[tables.sum(axis=(1, 2)) > 0])


def _spread(tables: NDArray[np.float64]) -> dict[str, list[float]]:
    """The middle 95 % over confusion matrices float64[draws, labels, labels]."""
    right, true, said = np.einsum("nii->ni", tables), tables.sum(axis=2), tables.sum(axis=1)
    recall = np.divide(right, true, out=np.zeros_like(right), where=true > 0)
    f1 = np.divide(2 * right, true + said, out=np.zeros_like(right), where=true + said > 0)
    count = true.sum(axis=1)
    found = {
        "weighted_f1_95": (f1 * true).sum(axis=1) / count,
        "uar_95": recall.sum(axis=1) / (true > 0).sum(axis=1),
        "accuracy_95": right.sum(axis=1) / count,
    }
    return {
        name: [round(float(edge), 4) for edge in np.quantile(values, (0.025, 0.975))]
        for name, values in found.items()
    }


def summary(values: Sequence[float]) -> dict[str, Any]:
    """Mean and half a 95 % interval of the mean (Student's t); the interval is None for a single value."""
    from scipy.stats import t

    count = len(values)
    spread = float(np.std(values, ddof=1)) if count > 1 else 0.0
    half = float(t.ppf(0.975, count - 1)) * spread / count**0.5 if count > 1 else None
    return {
        "mean": round(float(np.mean(values)), 4),
        "ci95": None if half is None else round(half, 4),
        "values": list(values),
    }
