"""Pools of cues whose opinions are right: a Gaussian cloud per label, the true posterior as probabilities."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ecmf.cue import MODALITIES, Modality
from train.pairing import Pool

LABELS = 3
DISTANCE: Mapping[Modality, float] = {"face": 1.6, "scene": 0.0, "voice": 1.2, "text": 0.9}
"""Between a cloud's centre and 0, in standard deviations; the scene says nothing."""


def pool(modality: Modality, seed: int, count: int = 900, size: int = 6) -> Pool:
    rng = np.random.default_rng((seed, MODALITIES.index(modality)))
    labels = np.arange(count) % LABELS
    centres = np.eye(LABELS, size) * DISTANCE[modality]
    embedding = centres[labels] + rng.standard_normal((count, size))
    likelihood = np.exp(-0.5 * ((embedding[:, None] - centres) ** 2).sum(-1))
    probs = likelihood / likelihood.sum(axis=1, keepdims=True)
    return Pool(
        embedding.astype(np.float32),
        None if modality == "scene" else probs.astype(np.float32),
        np.full(count, 0.9, np.float32),
        labels,
        np.array([f"{seed}-{number}" for number in range(count)]),
    )


def pools(seed: int, count: int = 900) -> dict[Modality, Pool]:
    return {modality: pool(modality, seed, count) for modality in MODALITIES}


EVEN = np.full(LABELS, 1 / LABELS)
