"""How good the voice's answers are: recall, calibration, and what ordinary speech is taken for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecmf.errors import DataError
from ecmf.labels import EKMAN
from train.datasets.speech_clip import Clip
from train.scores import calibration_error, softmax


def scores(truth: NDArray[np.int64], probs: NDArray[np.floating], labels: Sequence[int]) -> dict[str, Any]:
    """Accuracy, UAR with a 95 % bootstrap interval, weighted F1, recall per label, confusion, calibration error.

    ``truth`` int64[n] and ``probs`` float[n, 7] in EKMAN's order; only ``labels`` can be chosen.
    """
    from sklearn.metrics import confusion_matrix, f1_score

    if not len(truth):
        raise DataError("there is nothing to evaluate: no clip of those speakers")
    allowed = probs[:, list(labels)] / np.maximum(probs[:, list(labels)].sum(1, keepdims=True), 1e-12)
    guess = np.array(labels)[allowed.argmax(1)]
    rng = np.random.default_rng(0)
    draws = [uar(truth[rows], guess[rows]) for rows in rng.integers(0, len(truth), (1000, len(truth)))]
    low, high = np.percentile(draws, (2.5, 97.5))
    return {
        "clips": len(truth),
        "uar": round(uar(truth, guess), 4),
        "uar_interval": [round(float(low), 4), round(float(high), 4)],
        "accuracy": round(float((truth == guess).mean()), 4),
        "weighted_f1": round(float(f1_score(truth, guess, average="weighted")), 4),
        "calibration_error": round(calibration_error(allowed, np.searchsorted(labels, truth)), 4),
        "recall": {
            EKMAN[k]: round(float((guess[truth == k] == k).mean()), 4) for k in labels if (truth == k).any()
        },
        "confusion": confusion_matrix(truth, guess, labels=list(labels)).tolist(),
    }


def uar(truth: NDArray[np.int64], guess: NDArray[np.int64]) -> float:
    """Unweighted average recall over the labels that occur."""
    return float(np.mean([(guess[truth == k] == k).mean() for k in np.unique(truth)]))


def with_sexes(
    clips: Sequence[Clip], truth: NDArray[np.int64], probs: NDArray[np.floating]
) -> dict[str, Any]:
    """`scores` over all seven labels, and the UAR of women and men apart."""
    sexes = np.array([clip.sex for clip in clips])
    guess = probs.argmax(1)
    by_sex = {
        sex: round(uar(truth[sexes == sex], guess[sexes == sex]), 4) for sex in np.unique(sexes).tolist()
    }
    return {**scores(truth, probs, range(len(EKMAN))), "uar_by_sex": by_sex}


def neutrality(probs: NDArray[np.floating]) -> dict[str, Any]:
    """How often ordinary speech is called neutral, how surely, and what else it is called."""
    guess = probs.argmax(1)
    return {
        "judged": len(probs),
        "neutral": round(float((guess == EKMAN.index("neutral")).mean()), 4),
        "confidence": round(float(probs.max(1).mean()), 4),
        "called": {EKMAN[k]: int((guess == k).sum()) for k in np.unique(guess).tolist()},
    }


def temperature_of(logits: NDArray[np.float32], truth: NDArray[np.int64]) -> float:
    """The temperature that makes the log-likelihood best (Guo et al. 2017), by a search over a fine grid."""
    grid = np.exp(np.linspace(np.log(0.2), np.log(5), 200))
    losses = [-np.log(softmax(logits / t)[np.arange(len(truth)), truth] + 1e-12).mean() for t in grid]
    return float(grid[int(np.argmin(losses))])
