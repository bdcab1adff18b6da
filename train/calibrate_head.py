"""The head's temperatures, by cross-fitting over people: nobody calibrates a head that was trained on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ecmf.cue import Modality
from ecmf.fusion import EcmfHead
from train.fit_head import FitOptions, fit_temperature, subsets, tensors, train_head
from train.pairing import TRUST, Batch, Pool, draw

FOLDS = 3
"""As many as the voices to fit on at least."""
LEAST = 0.0
"""Least logarithm of a temperature: three voices are too few to make an estimate surer than its branches are."""


def calibrate_across(
    head: EcmfHead,
    pools: Mapping[Modality, Pool],
    labels: Sequence[str],
    prior: NDArray[np.float64],
    options: FitOptions,
    checkpoint: Path | None = None,
) -> None:
    """Fit the temperatures of ``head``, trained on all of ``pools``, by heads trained on some of the people and asked
    about the others; on pairs without conflict or noise."""
    found: list[tuple[Tensor, Batch]] = []
    clean = replace(options.pairing, conflict=0.0, noise=0.0, faded=0.0)
    experts = [subset for subset in subsets() if "scene" not in subset]
    for fold in range(FOLDS):
        training, held = split_people(pools, fold)
        path = None if checkpoint is None else checkpoint.with_name(f"fold-{fold + 1}.pt")
        other = train_head(training, labels, prior, options, path, what=f"calibration, fold {fold + 1}")
        shares = prior * [all(held_in(held, label)) for label in range(len(labels))]
        rng = np.random.default_rng((options.seed, 2**31, fold))
        for subset in experts:
            size = options.calibration // (FOLDS * len(experts))
            batch = draw(held, len(labels), size, rng, clean, prior=shares / shares.sum(), subset=subset)
            with torch.no_grad():
                found.append((other(**tensors(batch)[0])[0], batch))
    quality = torch.cat([torch.from_numpy(batch.quality) for _, batch in found])
    target = torch.cat([torch.from_numpy(batch.target) for _, batch in found])
    fit_temperature(head, torch.cat([logits for logits, _ in found]), quality, target, least=LEAST)


def held_in(pools: Mapping[Modality, Pool], label: int) -> list[bool]:
    """Whether each modality that names an emotion has a cue of ``label``."""
    return [bool((pools[m].labels == label).any()) for m in TRUST if m in pools]


def split_people(
    pools: Mapping[Modality, Pool], fold: int
) -> tuple[dict[Modality, Pool], dict[Modality, Pool]]:
    """The pools without every FOLDS-th person, and with those alone; cues where there are fewer people than folds."""
    rest, held = {}, {}
    for modality, pool in pools.items():
        names, who = np.unique(pool.group, return_inverse=True)
        if len(names) < FOLDS:
            who = np.arange(len(pool))
        order = np.random.default_rng(FOLDS).permutation(int(who.max()) + 1)
        out = order[who] % FOLDS == fold
        rest[modality], held[modality] = pool.take(~out), pool.take(out)
    return rest, held
