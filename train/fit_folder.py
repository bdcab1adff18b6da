"""Train a fusion head on a folder of labelled clips: really paired cues of the live branches, any label set."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ecmf.bundle import Bundle, load_bundle
from ecmf.cue import MODALITIES
from ecmf.fusion import EcmfHead
from train import distributed, folder_card
from train.clip_samples import Samples, assemble
from train.clip_scores import measure
from train.clip_store import extract
from train.datasets import folder, layouts
from train.descent import descend
from train.evaluate_head import predict
from train.fit_head import VERSION, calibrate_on, tensors
from train.pairing import TRUST, Batch
from train.recipe import Training, read

log = logging.getLogger("train.fit_folder")
RECIPE = Path(__file__).parent / "recipes" / "folder.toml"
HEAD = "head.pt"
"""The checkpoint, in the folder of a run."""
CALIBRATION = 8000
"""Moments that the temperature is fitted on, at most."""
DRAWS, FEWEST = 20, 3
"""Tries to set people aside for calibration, and people below which none are set aside."""


@dataclass(frozen=True)
class Recipe:
    """`recipes/folder.toml`, where each key has its comment."""

    version: str = "1.0"
    smoothing: float = 0.05
    balance: float = 0.5
    forget: float = 0.35
    abstain_margin: float = 0.05
    fit: Training = field(default_factory=Training)


def main(
    data: Path,
    out: Path,
    *,
    cache: Path,
    config: Path | None = None,
    labels: Sequence[str] | None = None,
    unfinished: bool = False,
    processes: int = 1,
    begin: Callable[[], None] = lambda: None,
) -> Bundle:
    """Extract, fit, measure, export into ``out``. Cues are cached clip by clip, training resumes from its checkpoint.

    ``begin`` is called once the data was found sound, before anything is written to ``out``. ``unfinished``: no
    training, the last checkpoint as it is. ``processes`` extract clips side by side. Raises DataError naming file and
    row, UsageError for a wrong recipe.
    """
    recipe = read(Recipe, config or RECIPE)
    listed = layouts.read(data, labels)
    log.info("%s", listed.told())
    samples = assemble(listed, extract(listed, cache, processes=processes), cache=cache)
    begin()
    head, held = train(samples, len(listed.labels), recipe, out / HEAD, unfinished=unfinished)
    if distributed.rank():
        distributed.agree()
        return load_bundle(out / "model")
    log.info("measuring, and writing the bundle")
    bundle = finish(head, samples, listed, recipe, held, out / "model")
    distributed.agree()
    return bundle


def finish(
    head: EcmfHead,
    samples: Samples,
    listed: folder.Folder,
    recipe: Recipe,
    held: NDArray[np.bool_],
    out: Path,
) -> Bundle:
    """Measure a trained head on the clips that are not for training, and write it with its card."""
    measured = {
        split: measure(
            lambda batch, rows: predict(head, batch), samples, samples.split == split, listed.labels
        )
        for split in folder.SPLITS[1:]
        if (samples.split == split).any()
    }
    for split in [split for split, table in measured.items() if not table]:
        log.warning("%s: no clip has a cue that the clips to train on have; nothing to measure", split)
        del measured[split]
    for split, table in measured.items():
        row = list(table.values())[-1]  # all that the clips have
        log.info(
            "%s: %d clips, weighted F1 %.3f, UAR %.3f, accuracy %.3f",
            split, row["n"], row["weighted_f1"], row["uar"], row["accuracy"],
        )  # fmt: skip
    if "test" not in measured:
        log.info("no clip has the split test: how good it is on new people is not known")
    return folder_card.export(
        head,
        samples,
        listed,
        measured,
        out,
        version=recipe.version,
        abstain_margin=recipe.abstain_margin,
        calibrated=calibration(samples, held),
    )


def calibration(samples: Samples, held: NDArray[np.bool_]) -> str:
    """What the card says of it."""
    if not held.any():
        return "Not calibrated: there are too few clips to set any aside."
    others = set(samples.speaker[~held & (samples.split == "train")].tolist())
    if others & set(samples.speaker[held].tolist()):
        return (
            "Calibrated on other clips of the same people: of new people it may be surer than it should be."
        )
    return "Calibrated on people that it was not trained on."


def train(
    samples: Samples,
    labels: int,
    recipe: Recipe,
    checkpoint: Path | None = None,
    *,
    unfinished: bool = False,
) -> tuple[EcmfHead, NDArray[np.bool_]]:
    """A head fitted on the train moments and calibrated on others; returns both it and what calibrated it."""
    held = held_out(samples, labels, recipe.fit.seed)
    usable = np.flatnonzero((samples.split == "train") & ~held)
    target = samples.batch.target[usable]
    counts = np.bincount(target, minlength=labels).astype(np.float64)
    chance = counts[target] ** -recipe.balance
    moments = np.bincount(samples.clip[usable])[samples.clip[usable]]
    chance = chance / moments  # a long clip counts as much as a short one
    chance /= chance.sum()

    def sample(rng: np.random.Generator) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        rows = rng.choice(usable, recipe.fit.batch, p=chance)
        kept = keeps(samples.batch.quality[rows], recipe.forget, rng)
        mine = distributed.share(len(rows))
        return tensors(hidden(samples.rows(rows[mine]), kept[mine]))

    torch.manual_seed(recipe.fit.seed)
    sizes: dict[str, int] = {m: cue.shape[1] for m, cue in samples.batch.cues.items()}
    head = EcmfHead(sizes, labels, recipe.fit.head)
    # What training does not read does not make an old checkpoint another's.
    asked = replace(recipe, version="", abstain_margin=0.0)
    digest = hashlib.sha256(repr((VERSION, asked, samples.key)).encode())
    contents = () if samples.key else (*samples.batch.cues.values(), samples.batch.log_probs)
    for part in (*contents, samples.batch.quality, samples.batch.target, usable):
        digest.update(np.ascontiguousarray(part).tobytes())
    descend(
        head,
        sample,
        recipe.fit,
        checkpoint,
        digest.hexdigest(),
        smoothing=recipe.smoothing,
        unfinished=unfinished,
    )
    if held.any():
        few = np.flatnonzero(held)
        if len(few) > CALIBRATION:
            few = np.sort(np.random.default_rng(recipe.fit.seed).choice(few, CALIBRATION, replace=False))
        calibrate_on(head, samples.rows(few))
    return head.eval(), held


def held_out(samples: Samples, labels: int, seed: int) -> NDArray[np.bool_]:
    """bool[n]: the valid moments; without any, those of a fifth of the people to train on, drawn so that every label
    is left to train on; without so many people, of a fifth of the clips. None where even that leaves a label out.
    """
    valid = samples.split == "valid"
    if valid.any():
        return valid
    train = samples.split == "train"
    rng = np.random.default_rng(seed)
    for unit in (samples.speaker, samples.clip):
        names = np.unique(unit[train]) if len(unit) else unit
        for _ in range(DRAWS if len(names) >= FEWEST else 0):
            held = train & np.isin(unit, rng.permutation(names)[: max(1, len(names) // 5)])
            if len(np.unique(samples.batch.target[train & ~held])) == labels:
                return held
    return np.zeros(len(train), bool)


def keeps(quality: NDArray[np.float32], chance: float, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Modality dropout, bool[n, 4]: cues hidden at random, but one that can give an estimate stays."""
    trusted = np.array([m in TRUST for m in MODALITIES])
    kept: NDArray[np.bool_] = rng.random(quality.shape) >= chance
    alone = (quality > 0) & trusted
    bare = ~(alone & kept).any(axis=1)
    saved = np.where(alone, rng.random(alone.shape), -1.0).argmax(axis=1)
    kept[bare, saved[bare]] = True
    return kept


def hidden(batch: Batch, kept: NDArray[np.bool_]) -> Batch:
    """The batch without the cues that are not kept."""
    quality = np.where(kept, batch.quality, 0).astype(np.float32)
    gone = quality == 0
    cues = {
        m: np.where(gone[:, i : i + 1], 0, batch.cues[m]).astype(np.float32) for i, m in enumerate(MODALITIES)
    }
    log_probs = np.where(gone[..., None], 0, batch.log_probs).astype(np.float32)
    return Batch(cues, log_probs, quality, batch.target)
