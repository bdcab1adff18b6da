"""The shipped fusion head: cues of the branches, synthetic pairs, training, calibration, measurement, bundle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecmf.bundle import Bundle
from ecmf.cue import MODALITIES, Modality
from ecmf.errors import DataError, UsageError
from ecmf.labels import EKMAN
from train.calibrate_head import calibrate_across
from train.evaluate_head import brief, evaluate, paired
from train.fit_head import FitOptions, export_head, own_priors, shipped_branches, train_head
from train.head_card import card
from train.options import filled, read_toml
from train.pairing import PairingOptions, Pool, draw, together
from train.pools import Extraction, Split
from train.recipe import head_options

LICENCE = "Apache-2.0 code; weights CC BY-NC-SA 4.0, since the voice cues are RAVDESS's"


@dataclass(frozen=True)
class Recipe:
    """`recipes/default.toml`, where each key has its comment."""

    version: str
    prior: tuple[float, ...]
    abstain_margin: float
    """Above the likeliest label's prior: what an estimate must be surer than to be given as a label."""
    fit: FitOptions = field(default_factory=FitOptions)


def read_recipe(path: Path) -> Recipe:
    """Raises UsageError naming the key that is unknown or makes no sense."""
    raw = read_toml(path)
    head = head_options(raw.pop("head", {}), f"{path} [head]")
    pairing = filled(PairingOptions, raw.pop("pairing", {}), f"{path} [pairing]")
    version = str(raw.pop("version", "0"))
    asked = raw.pop("prior", [1 / len(EKMAN)] * len(EKMAN))
    try:
        prior = tuple(float(p) for p in asked)
        abstain_margin = float(raw.pop("abstain_margin", 0.0))
    except (TypeError, ValueError) as error:
        raise UsageError(f"{path}: prior and abstain_margin are numbers ({error})") from None
    if len(prior) != len(EKMAN) or min(prior) <= 0 or abs(sum(prior) - 1) > 1e-6:
        raise UsageError(f"{path}: prior {asked} must be {len(EKMAN)} positive numbers that sum to 1")
    return Recipe(
        version, prior, abstain_margin, filled(FitOptions, raw, str(path), head=head, pairing=pairing)
    )


def main(
    recipe: Path, out: Path, *, data: Path, cache: Path, work: Path | None = None, offline: bool = False
) -> Bundle:
    """Fit the recipe on ``data`` and write the bundle to ``out``; a killed run goes on where it stopped.

    cache: features, kept between runs. work: checkpoint; default: beside ``out``.
    Raises UsageError for a wrong recipe, DataError for data that cannot be used.
    """
    chosen = read_recipe(recipe)
    splits, muxspace_face = extract(Extraction(data, cache, offline))
    prior = np.array(chosen.prior)
    fit = {m: split.fit for m, split in splits.items()}
    test = {m: split.test for m, split in splits.items()}
    checkpoint = (work or out.parent / f".{out.name}.work") / "head.pt"
    head = train_head(fit, EKMAN, prior, chosen.fit, checkpoint)
    calibrate_across(head, fit, EKMAN, prior, chosen.fit, checkpoint)
    metrics = evaluate(head, fit, test, EKMAN, prior, chosen.fit.pairing)
    sizes = {m: test[m].embedding.shape[1] for m in MODALITIES}
    metrics = brief(metrics | paired(head, muxspace_face.test, test["scene"], sizes, EKMAN))
    sample = draw(test, len(EKMAN), 8, np.random.default_rng(1), chosen.fit.pairing, prior=prior)
    branches = shipped_branches()
    priors = {"webcam": prior, "corpus": corpus_prior(fit)}
    voices = (set(fit["voice"].group.tolist()), set(test["voice"].group.tolist()))
    return export_head(
        head,
        out,
        EKMAN,
        sizes,
        version=chosen.version,
        licence=LICENCE,
        training_data=_provenance(fit),
        metrics=metrics,
        extra={
            "abstain_margin": chosen.abstain_margin,
            "prior": _named(prior),
            "priors": {name: _named(probs) for name, probs in priors.items()},
            "branches": branches,
            "pairing": "synthetic: cues of different people that share a label; shows no cross-modal gain",
        },
        card=card(chosen, metrics, branches, {m: len(p) for m, p in fit.items()}, priors, voices),
        sample=sample,
    )


def corpus_prior(pools: Mapping[Modality, Pool]) -> NDArray[np.float64]:
    """How often each label is meant in the corpora, the mean of faces, voices and texts: float64[labels]."""
    mean: NDArray[np.float64] = np.mean(list(own_priors(pools, len(EKMAN)).values()), axis=0)
    return mean


def _named(probs: NDArray[np.float64]) -> dict[str, float]:
    return {label: round(float(p), 4) for label, p in zip(EKMAN, probs, strict=True)}


def extract(extraction: Extraction) -> tuple[dict[Modality, Split], Split]:
    """Pools per modality, and muxspace's faces in the rows of the scene pools.

    Faces to fit are FER+'s and muxspace's; those to measure are FER+'s, muxspace's come beside them.
    """
    muxspace_face, scene = extraction.frames()
    faces = extraction.faces()
    splits: dict[Modality, Split] = {
        "face": Split(together(faces.fit, muxspace_face.fit), faces.test),
        "scene": scene,
        "voice": extraction.voices(),
        "text": extraction.texts(),
    }
    for modality, split in splits.items():
        shared = set(split.fit.group.tolist()) & set(split.test.group.tolist())
        if shared:
            raise DataError(f"{modality}: {sorted(shared)[0]!r} is among those to fit and those to test")
    return splits, muxspace_face


def _provenance(pools: Mapping[Modality, Pool]) -> list[dict[str, Any]]:
    what = {
        "face": (
            "FER+ valid; muxspace/facial_expressions, valid people",
            "FER+ labels MIT, its pictures FER2013, research use; muxspace Apache-2.0",
        ),
        "scene": ("muxspace/facial_expressions, valid people", "Apache-2.0; pictures from LFW and the web"),
        "voice": ("RAVDESS and EMO-DB, held-out speakers", "CC BY-NC-SA 4.0; research use"),
        "text": ("MELD dev", "GPL-3 repository; TV dialogue"),
    }
    return [
        {
            "modality": m,
            "corpus": what[m][0],
            "licence": what[m][1],
            "cues": len(p),
            "people": len(set(p.group.tolist())),
        }
        for m, p in pools.items()
    ]
