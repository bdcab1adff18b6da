"""Measure a fusion head on people that nothing was trained on: every subset, conflicts, and really paired cues."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ecmf.cue import MODALITIES, Modality
from ecmf.fusion import EXPERTS
from ecmf.head import FLOOR
from train.fit_head import own_priors, subsets, tensors
from train.pairing import TRUST, TURNED, Batch, PairingOptions, Pool, conflicting_labels, draw
from train.scores import detailed, scores

DRAWS = 12_000
"""Synthetic pairs per subset."""
CONFLICTS = (0.12, 0.3, 1.0)
"""Shares of conflicting pairs that a head is measured with, beside the one it was trained with."""


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


def attainable(
    batch: Batch,
    prior: NDArray[np.float64],
    own: Mapping[Modality, NDArray[np.float64]],
    options: PairingOptions,
) -> NDArray[np.float64]:
    """The most that opinions alone allow when ``options.conflict`` of the pairs conflict, as ``train.pairing`` draws
    them: the posterior over labels and over whether, and which, cues speak for another label. float64[n, labels].

    ``p(y) [(1 - c) prod_m l_m(y) + c l_0(y) prod_{m>0} ((1 - t) l_m(y) + t sum_z q(z) l_m(z))]`` with the likelihoods
    ``l_m = p_m / own_m``, the most trusted cue 0, t = TURNED, and q the labels that conflicting cues speak for.
    """
    said = conflicting_labels(prior, options)
    agreeing = np.ones((len(batch.target), len(prior)))
    conflicting = agreeing.copy()
    led = np.zeros((len(batch.target), 1), bool)
    for modality in TRUST:
        index = MODALITIES.index(modality)
        here = batch.quality[:, index, None] > 0
        likelihood = np.where(here, np.exp(batch.log_probs[:, index].astype(np.float64)) / own[modality], 1.0)
        drawn_anew = (1 - TURNED) * likelihood + TURNED * (likelihood @ said)[:, None]
        agreeing *= likelihood
        conflicting *= np.where(here & led, drawn_anew, likelihood)
        led |= here
    probs: NDArray[np.float64] = prior * ((1 - options.conflict) * agreeing + options.conflict * conflicting)
    return probs / probs.sum(axis=1, keepdims=True)


def evaluate(
    head: torch.nn.Module,
    fit: Mapping[Modality, Pool],
    test: Mapping[Modality, Pool],
    labels: Sequence[str],
    prior: NDArray[np.float64],
    pairing: PairingOptions,
    seed: int = 0,
) -> dict[str, Any]:
    """Synthetic pairs per subset, and all cues with stated shares of conflicting pairs, of people in ``test``.

    A row has the head, the product of experts, and the best member: the head given one of the cues alone.
    """
    own = own_priors(fit, len(labels))
    clean = PairingOptions(conflict=0.0, noise=0.0, faded=0.0, scene=1.0)
    table: dict[str, Any] = {}
    for number, subset in enumerate(subsets()):
        rng = np.random.default_rng((seed, number))
        batch = draw(test, len(labels), DRAWS, rng, clean, prior=prior, subset=subset)
        probs, weights = predict(head, batch)
        row: dict[str, Any] = {
            "ecmf": detailed(probs, batch.target, labels, batch.people),
            "product": scores(product_of_experts(batch, prior, own), batch.target),
            "best_member": _best_member(head, batch, subset),
            "weights": {
                m: round(float(weights[:, i].mean()), 3) for i, m in enumerate(MODALITIES) if m in subset
            },
        }
        table["+".join(m for m in MODALITIES if m in subset)] = row
    conflicts: dict[str, Any] = {}
    everything = frozenset(MODALITIES)
    for number, share in enumerate(sorted({pairing.conflict, *CONFLICTS})):
        stated = replace(clean, conflict=share, conflict_neutral=pairing.conflict_neutral)
        rng = np.random.default_rng((seed, 999, number))
        batch = draw(test, len(labels), DRAWS, rng, stated, prior=prior, subset=everything)
        conflicts[f"{share:.0%}"] = {
            "ecmf": detailed(predict(head, batch)[0], batch.target, labels, batch.people),
            "product": scores(product_of_experts(batch, prior, own), batch.target),
            "attainable": scores(attainable(batch, prior, own, stated), batch.target),
            **{m: scores(predict(head, _only(batch, m))[0], batch.target) for m in TRUST},
        }
    return {"subsets": table, "conflict": conflicts}


def _best_member(head: torch.nn.Module, batch: Batch, subset: frozenset[Modality]) -> dict[str, Any]:
    """Scores of the head given the one cue of ``subset`` that serves it best, and which that is."""
    found = {m: scores(predict(head, _only(batch, m))[0], batch.target) for m in TRUST if m in subset}
    best = max(found, key=lambda m: found[m]["weighted_f1"])
    return {"modality": best, **found[best]}


def _only(batch: Batch, modality: Modality) -> Batch:
    keep = np.array([m == modality for m in MODALITIES], np.float32)
    return Batch(batch.cues, batch.log_probs, batch.quality * keep, batch.target)


def paired(
    head: torch.nn.Module, face: Pool, scene: Pool, sizes: Mapping[Modality, int], labels: Sequence[str]
) -> dict[str, Any]:
    """muxspace: each face alone, and with the frame it is in."""
    found = {}
    for name, shown in (("muxspace, face", False), ("muxspace, face+scene", True)):
        batch = really_paired(face, scene, sizes, len(labels), shown=shown)
        found[name] = detailed(predict(head, batch)[0], batch.target, labels, batch.people)
    return found


def really_paired(
    face: Pool, scene: Pool, sizes: Mapping[Modality, int], labels: int, *, shown: bool
) -> Batch:
    """muxspace's faces; where ``shown`` with the frames they are in, the same rows of ``scene``.

    sizes: embedding size per modality.
    """
    assert face.probs is not None
    cues = {m: np.zeros((len(face), sizes[m]), np.float32) for m in MODALITIES}
    log_probs = np.zeros((len(face), len(MODALITIES), labels), np.float32)
    quality = np.zeros((len(face), len(MODALITIES)), np.float32)
    cues["face"] = face.embedding
    log_probs[:, MODALITIES.index("face")] = np.log(np.maximum(face.probs, FLOOR))
    quality[:, MODALITIES.index("face")] = face.quality
    if shown:
        cues["scene"] = scene.embedding
        quality[:, MODALITIES.index("scene")] = scene.quality
    people = np.full(quality.shape, -1)
    people[:, MODALITIES.index("face")] = face.people  # the frame is the same person's
    return Batch(cues, log_probs, quality, face.labels, people)


def brief(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """What ``evaluate`` and ``paired`` found without confusion matrices and single labels, as a manifest keeps it."""
    return {
        name: brief(value) if isinstance(value, Mapping) else value
        for name, value in metrics.items()
        if name not in ("per_class", "confusion")
    }


def apart(measured: Mapping[str, Any], published: Mapping[str, Any]) -> float:
    """The largest difference between two measurements of the same; infinite where one has what the other lacks."""
    if measured.keys() != published.keys():
        return float("inf")
    gaps = [0.0]
    for name, value in measured.items():
        other = published[name]
        if isinstance(value, Mapping):
            gaps.append(apart(value, other))
        elif isinstance(value, int | float):
            gaps.append(abs(value - other))
        elif isinstance(value, list):
            gaps.append(float(np.abs(np.subtract(value, other)).max()))
        elif value != other:
            return float("inf")
    return max(gaps)
