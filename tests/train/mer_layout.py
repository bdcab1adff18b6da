"""MER2025 Track 1's layout, in small: features around a point per label, so that a head can learn them."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ecmf.labels import MER
from train.datasets import mer2025

SIZES = {"chinese-hubert-large": 24, "chinese-macbert-large": 16, "clip-vit-large-patch14": 20}


def corpus(
    root: Path,
    clips: int = 120,
    candidates: int = 12,
    *,
    sizes: Mapping[str, int] = SIZES,
    distance: float = 2.0,
) -> dict[str, str]:
    """Write it to ``root``, which is made; returns the label of every clip and candidate, the clips first.

    ``distance``: how far the labels' points lie from 0, in standard deviations of the features around them.
    """
    rng = np.random.default_rng(0)
    truth = {f"sample_{n:08d}": MER[n % len(MER)] for n in range(clips + candidates)}
    names = list(truth)
    root.mkdir()
    with (root / mer2025.TRAIN).open("w", newline="") as file:
        csv.writer(file).writerows([("name", "discrete"), *((name, truth[name]) for name in names[:clips])])
    with (root / mer2025.CANDIDATES).open("w", newline="") as file:
        csv.writer(file).writerows([("name",), *((name,) for name in names[clips:])])
    for feature, size in sizes.items():
        folder = root / mer2025.FEATURES / f"{feature}{mer2025.SUFFIX}"
        folder.mkdir(parents=True)
        centres = rng.standard_normal((len(MER), size)) * distance
        for name, label in truth.items():
            vector = centres[MER.index(label)] + rng.standard_normal(size)
            np.save(folder / f"{name}.npy", vector.astype(np.float32))
    return truth
