"""Synthetic pairing: cues of different corpora that share a label, with stated shares of conflict and noise.

A face, a voice and a sentence of the same label that come from different people are independent given the label.
Such pairs exercise a fusion head in every allowed subset; they cannot show a real cross-modal gain.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ecmf.cue import MODALITIES, Modality
from ecmf.errors import DataError
from ecmf.head import FLOOR

TRUST: tuple[Modality, ...] = ("face", "voice", "text")
"""Under conflict the label is that of the first of these that is present."""

TURNED = 0.7
"""How likely each less trusted cue of a conflicting sample is drawn anew."""


@dataclass(frozen=True)
class Pool:
    """Cues of one modality, as its branch emitted them. ``labels`` is -1 where the corpus has none (scene)."""

    embedding: NDArray[np.float32]
    """float32[n, d]"""
    probs: NDArray[np.float32] | None
    """float32[n, labels], None for the scene."""
    quality: NDArray[np.float32]
    """float32[n] in (0, 1]"""
    labels: NDArray[np.int64]
    """int64[n]"""
    group: NDArray[np.str_]
    """str[n]: person, speaker or dialogue, for disjoint splits."""

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def scale(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Mean and standard deviation of the embeddings, float32[d] each."""
        return self.embedding.mean(0), self.embedding.std(0)

    @cached_property
    def people(self) -> NDArray[np.int64]:
        """Number of each cue's group, int64[n]."""
        return np.asarray(np.unique(self.group, return_inverse=True)[1], np.int64)

    def take(self, rows: NDArray[np.integer] | NDArray[np.bool_]) -> Pool:
        return Pool(
            self.embedding[rows],
            None if self.probs is None else self.probs[rows],
            self.quality[rows],
            self.labels[rows],
            self.group[rows],
        )


def together(first: Pool, second: Pool) -> Pool:
    """The cues of two pools that both have probabilities."""
    assert first.probs is not None and second.probs is not None
    return Pool(
        np.concatenate([first.embedding, second.embedding]),
        np.concatenate([first.probs, second.probs]),
        np.concatenate([first.quality, second.quality]),
        np.concatenate([first.labels, second.labels]),
        np.concatenate([first.group, second.group]),
    )


@dataclass(frozen=True)
class PairingOptions:
    conflict: float = 0.3
    """Share of samples in which voice or text speaks for another label than the most trusted cue."""
    conflict_neutral: float = 0.6
    """Share of the conflicting cues that are neutral (a smile over a neutral sentence)."""
    noise: float = 0.1
    """Share of samples in which one cue of several is replaced by noise."""
    scene: float = 0.7
    """Share of samples with a scene; drawn without regard to the label, since no corpus ties the two together."""
    faded: float = 0.3
    """Share of cues whose quality is lowered at random, as age does live."""


@dataclass(frozen=True)
class Batch:
    """Inputs of ``ecmf.fusion.EcmfHead`` and the target."""

    cues: Mapping[Modality, NDArray[np.float32]]
    log_probs: NDArray[np.float32]
    quality: NDArray[np.float32]
    target: NDArray[np.int64]
    people: NDArray[np.int64] | None = None
    """int64[n, 4], whose each cue is, numbered within its pool; -1 where there is none. None where nobody asks."""


def conflicting_labels(prior: NDArray[np.float64], options: PairingOptions) -> NDArray[np.float64]:
    """What a cue that is drawn anew speaks for, float64[labels]: the first label (neutral) or as the prior has it."""
    neutral = np.eye(len(prior))[0]
    said: NDArray[np.float64] = options.conflict_neutral * neutral + (1 - options.conflict_neutral) * prior
    return said


def draw(
    pools: Mapping[Modality, Pool],
    labels: int,
    size: int,
    rng: np.random.Generator,
    options: PairingOptions,
    *,
    prior: NDArray[np.float64],
    subset: frozenset[Modality] | None = None,
) -> Batch:
    """Draw ``size`` synthetic pairs.

    prior: float64[labels], how often each label is the target.
    subset: the modalities present in every sample; None draws one of the allowed subsets at random per sample.
    Raises DataError when a pool lacks a label that the prior asks for.
    """
    rows = {m: _rows_by_label(m, pools[m], labels, prior) for m in TRUST if m in pools}
    present = _presence(pools, size, rng, options, subset)
    target = rng.choice(labels, size=size, p=prior)
    cues, log_probs = {}, np.zeros((size, len(MODALITIES), labels), np.float32)
    quality = np.zeros((size, len(MODALITIES)), np.float32)
    people = np.full((size, len(MODALITIES)), -1)
    noisy = rng.random(size) < options.noise
    conflict = (rng.random(size) < options.conflict) & ~noisy
    for index, modality in enumerate(MODALITIES):
        if modality not in pools:
            raise DataError(f"no {modality} features; extract them with python -m train.features")
        pool = pools[modality]
        if modality == "scene":
            picked = rng.integers(len(pool), size=size)
        else:
            wanted = target.copy()
            trusted = _leader(present) == index
            other = conflict & ~trusted & (rng.random(size) < TURNED)
            neutral = rng.random(size) < options.conflict_neutral
            wanted[other] = np.where(neutral, 0, rng.choice(labels, size=size, p=prior))[other]
            order, first, count = rows[modality]
            picked = order[first[wanted] + (rng.random(size) * count[wanted]).astype(np.int64)]
        cues[modality] = pool.embedding[picked].copy()
        if pool.probs is not None:
            log_probs[:, index] = np.log(np.maximum(pool.probs[picked], FLOOR))
        faded = np.where(rng.random(size) < options.faded, rng.uniform(0.1, 1.0, size), 1.0)
        quality[:, index] = pool.quality[picked] * faded * present[:, index]
        people[:, index] = np.where(present[:, index], pool.people[picked], -1)
    _add_noise(cues, log_probs, pools, present, noisy, rng)
    for index, modality in enumerate(MODALITIES):
        cues[modality][quality[:, index] == 0] = 0.0
        log_probs[quality[:, index] == 0, index] = 0.0
    return Batch(cues, log_probs, quality, target, people)


def _rows_by_label(
    modality: Modality, pool: Pool, labels: int, prior: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """The pool's rows sorted by label; where each label begins among them and how many it has."""
    known = np.flatnonzero(pool.labels >= 0)
    order = known[np.argsort(pool.labels[known], kind="stable")]
    count = np.bincount(pool.labels[known], minlength=labels)
    for label in np.flatnonzero((count[:labels] == 0) & (prior > 0)):
        raise DataError(f"{modality}: no sample with label number {label}; add data")
    return order, np.concatenate([[0], np.cumsum(count)[:-1]]), count


def _presence(
    pools: Mapping[Modality, Pool],
    size: int,
    rng: np.random.Generator,
    options: PairingOptions,
    subset: frozenset[Modality] | None,
) -> NDArray[np.bool_]:
    present = np.zeros((size, len(MODALITIES)), bool)
    if subset is not None:
        present[:, [MODALITIES.index(m) for m in subset]] = True
        return present
    trust = [MODALITIES.index(m) for m in TRUST]
    code = rng.integers(1, 8, size)  # the seven non-empty subsets of face, voice and text
    for bit, index in enumerate(trust):
        present[:, index] = code >> bit & 1
    present[:, MODALITIES.index("scene")] = rng.random(size) < options.scene
    return present


def _leader(present: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Column of the most trusted modality present, int64[size]."""
    trust = np.array([MODALITIES.index(m) for m in TRUST])
    return trust[present[:, trust].argmax(axis=1)]


def _add_noise(
    cues: dict[Modality, NDArray[np.float32]],
    log_probs: NDArray[np.float32],
    pools: Mapping[Modality, Pool],
    present: NDArray[np.bool_],
    noisy: NDArray[np.bool_],
    rng: np.random.Generator,
) -> None:
    """Replace one cue of several by Gaussian noise of its corpus's scale and a random, mostly flat opinion."""
    trust = np.array([MODALITIES.index(m) for m in TRUST])
    chosen = noisy & (present[:, trust].sum(axis=1) > 1)
    victim = np.where(present[:, trust], rng.random((len(present), len(trust))), -1).argmax(axis=1)
    for position, modality in enumerate(TRUST):
        rows = np.flatnonzero(chosen & (victim == position))
        if not len(rows):
            continue
        centre, spread = pools[modality].scale
        cues[modality][rows] = centre + rng.standard_normal((len(rows), len(centre))) * spread
        opinion = rng.dirichlet(np.full(log_probs.shape[2], 2.0), size=len(rows))
        log_probs[rows, trust[position]] = np.log(np.maximum(opinion, FLOOR))
