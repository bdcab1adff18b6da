"""Fit on MELD dev what is left after training: the temperature, and how far the language model's scores count."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

PENALTIES = (1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0)
"""Weight decay of the score matrix; large ones leave the text alone."""
FOLDS = 5


def fit_temperature(logits: NDArray[np.floating], truth: NDArray[np.int64]) -> float:
    """Divisor of the logits with the least log-loss (Guo et al. 2017, section 4.2)."""
    grid = np.exp(np.linspace(np.log(0.3), np.log(4), 200))
    scaled = torch.from_numpy(np.asarray(logits, np.float64))
    answer = torch.from_numpy(truth)
    return float(grid[int(np.argmin([float(F.cross_entropy(scaled / t, answer)) for t in grid]))])


@dataclass(frozen=True)
class ScoreFit:
    matrix: NDArray[np.float32]
    """float32[7, 7], added to the logits after multiplying the centred log-scores."""
    penalty: float
    gain: float
    """Log-loss on dev without minus with the scores, over held-out folds of dialogues; below 0 they do harm."""


def fit_scores(
    logits: NDArray[np.floating],
    scores: NDArray[np.floating],
    truth: NDArray[np.int64],
    dialogues: Sequence[str],
) -> ScoreFit:
    """How to add ``scores`` float[n, 7] to ``logits`` float[n, 7], the penalty chosen by folds of whole dialogues."""
    base, extra = (torch.from_numpy(np.asarray(part, np.float32)) for part in (logits, scores))
    answer = torch.from_numpy(truth)
    names, place = np.unique(np.asarray(dialogues), return_inverse=True)
    fold_of = np.random.default_rng(0).permutation(len(names)) % FOLDS
    folds = torch.from_numpy(fold_of[place])
    alone = float(F.cross_entropy(base, answer))
    losses = []
    for penalty in PENALTIES:
        total = 0.0
        for fold in range(FOLDS):
            inside, outside = folds != fold, folds == fold
            matrix = _solve(base[inside], extra[inside], answer[inside], penalty)
            moved = base[outside] + extra[outside] @ matrix.T
            total += float(F.cross_entropy(moved, answer[outside], reduction="sum"))
        losses.append(total / len(answer))
    best = int(np.argmin(losses))
    matrix = _solve(base, extra, answer, PENALTIES[best])
    return ScoreFit(matrix.numpy(), PENALTIES[best], alone - losses[best])


def _solve(base: Tensor, extra: Tensor, answer: Tensor, penalty: float) -> Tensor:
    matrix = torch.zeros(base.shape[1], extra.shape[1], requires_grad=True)
    optimizer = torch.optim.LBFGS([matrix], max_iter=60, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = F.cross_entropy(base + extra @ matrix.T, answer) + penalty * matrix.square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    return matrix.detach()
