"""Make the face network's probabilities mean what they say: one temperature and a prior correction, from valid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ecmf.labels import EKMAN, FERPLUS, fold
from train.scores import recalls, softmax


@dataclass(frozen=True)
class Calibration:
    bias: NDArray[np.float32]
    """float32[8], added to the logits; it lies in the exported graph's last layer."""
    temperature: float
    """Divide logits by it before the softmax."""


def fit(logits: NDArray[np.floating], truth: NDArray[np.int64], balance: NDArray[np.floating]) -> Calibration:
    """From valid logits ``[n, 8]``, their majority labels and the label weights of the training loss.

    A loss weight w per label moves the network's log-odds by log w; ``bias`` takes back the share of it that gives
    the best accuracy plus a quarter of the UAR over the seven labels. Then the temperature of least log-loss.
    """
    shares = np.linspace(0, 1, 11)
    scores = []
    for share in shares:
        predicted = (logits - share * np.log(balance)).argmax(axis=1)
        uar = np.nanmean(recalls(_seven(predicted), _seven(truth), len(EKMAN)))
        scores.append(float((predicted == truth).mean()) + 0.25 * float(uar))
    bias = -shares[int(np.argmax(scores))] * np.log(balance)
    moved = np.asarray(logits + bias, np.float64)
    onehot = np.eye(logits.shape[1])[truth]
    temperatures = np.geomspace(0.4, 2.5, 64)
    losses = [-(onehot * np.log(softmax(moved / t) + 1e-9)).sum(1).mean() for t in temperatures]
    return Calibration(bias.astype(np.float32), float(temperatures[int(np.argmin(losses))]))


def _seven(index: NDArray[np.int64]) -> NDArray[np.int64]:
    """FERPLUS index -> EKMAN index."""
    return fold(np.eye(len(FERPLUS)), FERPLUS).argmax(axis=1)[index]
