"""On what methods are compared: each allowed subset of cues, stated shares of conflict, and what is really paired."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ecmf.cue import MODALITIES, Modality
from train.evaluate_head import CONFLICTS, really_paired
from train.fit_head import subsets
from train.pairing import Batch, PairingOptions, Pool, draw

Condition = tuple[Batch, frozenset[Modality]]
"""Samples, and the modalities present in all of them."""


@dataclass(frozen=True)
class Data:
    """Pools of people to fit on and of others to measure on."""

    fit: Mapping[Modality, Pool]
    test: Mapping[Modality, Pool]
    paired_face: Pool | None = None
    """Faces in the rows of test["scene"]: the one source where two cues belong together."""


def conditions(
    data: Data, labels: int, prior: NDArray[np.float64], pairing: PairingOptions, seed: int, draws: int
) -> dict[str, Condition]:
    """What is measured, by name; ``draws`` synthetic pairs each."""
    clean = PairingOptions(conflict=0.0, noise=0.0, faded=0.0, scene=1.0)
    everything = frozenset(MODALITIES)
    found: dict[str, Condition] = {}
    for number, subset in enumerate(subsets()):
        rng = np.random.default_rng((seed, 77, number))
        batch = draw(data.test, labels, draws, rng, clean, prior=prior, subset=subset)
        found["+".join(m for m in MODALITIES if m in subset)] = (batch, subset)
    for number, share in enumerate(sorted({pairing.conflict, *CONFLICTS})):
        rng = np.random.default_rng((seed, 78, number))
        stated = replace(clean, conflict=share, conflict_neutral=pairing.conflict_neutral)
        batch = draw(data.test, labels, draws, rng, stated, prior=prior, subset=everything)
        found[f"conflict {share:.0%}"] = (batch, everything)
    if data.paired_face is not None:
        sizes = {m: data.test[m].embedding.shape[1] for m in MODALITIES}
        alone: frozenset[Modality] = frozenset({"face"})
        for name, shown in (("face", False), ("face+scene", True)):
            batch = really_paired(data.paired_face, data.test["scene"], sizes, labels, shown=shown)
            found[f"muxspace: {name}"] = (batch, alone | {"scene"} if shown else alone)
    return found
