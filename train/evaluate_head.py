"""Measure a fusion head on people that nothing was trained on: every subset, conflicts, and really paired cues."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score, f1_score, recall_score

from ecmf.cue import MODALITIES, Modality
from ecmf.fusion import EXPERTS, EcmfHead
from train.fit_head import own_priors, subsets, tensors
from train.pairing import Batch, PairingOptions, Pool, draw

DRAWS = 4000
"""Synthetic pairs per subset."""
BINS = 15
"""Of the expected calibration error."""


def predict(head: torch.nn.Module, batch: Batch) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Probabilities float64[n, labels] and weights float64[n, 4]."""
    head.eval()
    inputs, _ = tensors(batch)
    with torch.no_grad():
        logits, weights = head(**inputs)
    return torch.softmax(logits.double(), dim=-1).numpy(), weights.double().numpy()


def product_of_experts(
    batch: Batch, prior: NDArray[np.float64], own: Mapping[Modality, NDArray[np.float64]]
) -> NDArray[np.float64]:
    """``p(y) * prod_m p_m(y) / own_m(y)``: the best there is when cues are independent given the label.

    own: the label prior of each branch's training corpus, which its probabilities contain.
    """
    score = np.tile(np.log(prior), (len(batch.target), 1))
    for index, modality in enumerate(MODALITIES):
        if EXPERTS[index] and modality in own:
            present = batch.quality[:, index] > 0
            score[present] += batch.log_probs[present, index] - np.log(own[modality])
    score -= score.max(axis=1, keepdims=True)
    probs = np.exp(score)
    return probs / probs.sum(axis=1, keepdims=True)


def scores(probs: NDArray[np.float64], target: NDArray[np.int64]) -> dict[str, float]:
    """Weighted F1, UAR, accuracy and expected calibration error of probabilities float64[n, labels]."""
    guess = probs.argmax(axis=1)
    return {
        "n": len(target),
        "weighted_f1": round(float(f1_score(target, guess, average="weighted")), 4),
        "uar": round(float(recall_score(target, guess, average="macro", zero_division=0)), 4),
        "accuracy": round(float(accuracy_score(target, guess)), 4),
        "ece": round(expected_calibration_error(probs, target), 4),
    }


def expected_calibration_error(
    probs: NDArray[np.float64], target: NDArray[np.int64], bins: int = BINS
) -> float:
    """Mean gap between confidence and accuracy over ``bins`` equal bins of confidence, weighted by their size
    (Naeini et al. 2015)."""
    confidence, right = probs.max(axis=1), probs.argmax(axis=1) == target
    which = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = [
        abs(confidence[which == b].mean() - right[which == b].mean()) * (which == b).mean()
        for b in range(bins)
        if (which == b).any()
    ]
    return float(sum(gaps))


def evaluate(
    head: torch.nn.Module,
    fit: Mapping[Modality, Pool],
    test: Mapping[Modality, Pool],
    labels: Sequence[str],
    prior: NDArray[np.float64],
    pairing: PairingOptions,
    seed: int = 0,
) -> dict[str, Any]:
    """Synthetic pairs per subset, the same with conflicts, muxspace as it is."""
    own = own_priors(fit, len(labels))
    clean = PairingOptions(conflict=0.0, noise=0.0, faded=0.0, scene=1.0)
    table: dict[str, Any] = {}
    for number, subset in enumerate(subsets()):
        rng = np.random.default_rng((seed, number))
        batch = draw(test, len(labels), DRAWS, rng, clean, prior=prior, subset=subset)
        probs, weights = predict(head, batch)
        row = {"ecmf": scores(probs, batch.target)}
        row["product"] = scores(product_of_experts(batch, prior, own), batch.target)
        row["weights"] = {
            m: round(float(weights[:, i].mean()), 3) for i, m in enumerate(MODALITIES) if m in subset
        }
        table["+".join(m for m in MODALITIES if m in subset)] = row
    rng = np.random.default_rng((seed, 999))
    everything = frozenset(MODALITIES)
    batch = draw(test, len(labels), DRAWS, rng, pairing, prior=prior, subset=everything)
    probs, _ = predict(head, batch)
    conflict = {"ecmf": scores(probs, batch.target)}
    for member in ("face", "voice", "text"):
        alone = _only(batch, member)
        conflict[member] = scores(predict(head, alone)[0], batch.target)
    return {"subsets": table, "conflict": conflict}


def _only(batch: Batch, modality: Modality) -> Batch:
    keep = np.array([m == modality for m in MODALITIES], np.float32)
    return Batch(batch.cues, batch.log_probs, batch.quality * keep, batch.target)


def paired(head: EcmfHead, face: Pool, scene: Pool, labels: int) -> dict[str, Any]:
    """muxspace: each face with the frame it is in, against the face alone."""
    n = len(face)
    cues = {m: np.zeros((n, p), np.float32) for m, p in _widths(head).items()}
    cues["face"], cues["scene"] = face.embedding, scene.embedding
    log_probs = np.zeros((n, len(MODALITIES), labels), np.float32)
    assert face.probs is not None
    log_probs[:, MODALITIES.index("face")] = np.log(np.maximum(face.probs, 1e-4))
    quality = np.zeros((n, len(MODALITIES)), np.float32)
    quality[:, MODALITIES.index("face")] = face.quality
    alone = Batch(cues, log_probs, quality.copy(), face.labels)
    quality[:, MODALITIES.index("scene")] = scene.quality
    both = Batch(cues, log_probs, quality, face.labels)
    return {
        "face": scores(predict(head, alone)[0], face.labels),
        "face+scene": scores(predict(head, both)[0], face.labels),
    }


def _widths(head: EcmfHead) -> dict[Modality, int]:
    labels = head.prior.shape[1]
    return {m: layer.in_features - labels for m, layer in zip(MODALITIES, head.project, strict=True)}  # type: ignore[misc,operator]
