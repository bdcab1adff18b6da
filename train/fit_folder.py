"""Train a fusion head on a folder of labelled clips: really paired cues of the live branches, any label set."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ecmf.bundle import Bundle
from ecmf.cue import MODALITIES, Cue, Modality
from ecmf.errors import DataError
from ecmf.fusion import EcmfHead, HeadOptions
from ecmf.head import FLOOR
from ecmf.labels import EKMAN, opinion, opinions
from train import clip_cues
from train.datasets import folder
from train.evaluate_head import predict, scores
from train.features import tracked
from train.fit_head import (
    FitOptions,
    calibrate_on,
    descend,
    export_head,
    shipped_branches,
    subsets,
    tensors,
)
from train.options import filled, read_toml
from train.pairing import TRUST, Batch

RECIPE = Path(__file__).parent / "recipes" / "folder.toml"


@dataclass(frozen=True)
class Recipe:
    """`recipes/folder.toml`, where each key has its comment."""

    version: str = "1.0"
    smoothing: float = 0.05
    balance: float = 0.5
    forget: float = 0.35
    abstain_below: float = 0.0
    fit: FitOptions = field(default_factory=FitOptions)


@dataclass(frozen=True)
class Samples:
    """Moments of clips, as the head reads them."""

    batch: Batch
    clip: NDArray[np.int64]
    """int64[n]: number of the clip each moment is of."""
    split: NDArray[np.str_]
    modalities: frozenset[Modality]
    """Those that at least one moment to train on has."""

    def rows(self, chosen: NDArray[np.bool_] | NDArray[np.integer]) -> Batch:
        return take(self.batch, chosen)


def take(batch: Batch, rows: NDArray[Any]) -> Batch:
    """Some rows of a batch."""
    cues = {m: cue[rows] for m, cue in batch.cues.items()}
    return Batch(cues, batch.log_probs[rows], batch.quality[rows], batch.target[rows])


def main(
    data: Path, out: Path, *, cache: Path, config: Path | None = None, labels: Sequence[str] | None = None
) -> Bundle:
    """Extract, fit, measure, export into ``out``. Cues are cached clip by clip, training resumes from its checkpoint.

    Raises DataError naming file and row, UsageError for a wrong recipe.
    """
    recipe = read_recipe(config or RECIPE)
    listed = folder.read(data, labels)
    moments = extract(listed, cache)
    samples = assemble(listed, moments)
    head, held = train(samples, len(listed.labels), recipe, out / "head.pt")
    measured = {
        split: measure(head, samples, samples.split == split, listed.labels)
        for split in folder.SPLITS[1:]
        if (samples.split == split).any()
    }
    return _export(head, samples, listed, recipe, measured, held, out / "model")


def read_recipe(path: Path) -> Recipe:
    """Raises UsageError for a key that is unknown or of the wrong kind."""
    raw = read_toml(path)
    head = filled(HeadOptions, raw.pop("head", {}), f"{path} [head]")
    own: dict[str, Any] = {f.name: raw.pop(f.name) for f in fields(Recipe) if f.name in raw}
    fit = filled(FitOptions, raw, str(path), head=head)
    return filled(Recipe, own, str(path), fit=fit)


def extract(listed: folder.Folder, cache: Path) -> list[list[clip_cues.Moment]]:
    """Cues of every clip, from the cache where its content and the branches are the same."""
    reader = clip_cues.ClipReader()
    identity = clip_cues.identity()
    found = []
    for item in tracked(listed.items, "clips"):
        digest = hashlib.sha256(repr(identity).encode())
        digest.update(item.path.read_bytes())
        file = cache / "clips" / f"{digest.hexdigest()[:24]}.npz"
        try:
            moments = load(file) if file.is_file() else reader.read(item.path)
        except DataError as error:
            raise DataError(f"{listed.where(item)}: unreadable clip: {error}") from None
        if not file.is_file():
            store(file, moments)
        for moment in moments:
            for modality, cue in moment.items():
                opinion_ok = cue.probs is None or np.isfinite(cue.probs).all()
                if not (np.isfinite(cue.embedding).all() and opinion_ok):
                    raise DataError(
                        f"{listed.where(item)}: {modality} features are not finite (NaN or infinite)"
                    )
        found.append(moments)
    return found


def store(file: Path, moments: Sequence[clip_cues.Moment]) -> None:
    """Write cues whole or not at all."""
    arrays: dict[str, NDArray[Any]] = {"count": np.array(len(moments))}
    for number, moment in enumerate(moments):
        for modality, cue in moment.items():
            arrays[f"{number}.{modality}.embedding"] = cue.embedding
            arrays[f"{number}.{modality}.quality"] = np.array(cue.quality)
            if cue.probs is not None:
                arrays[f"{number}.{modality}.probs"] = cue.probs
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name}")
    with temporary.open("wb") as target:
        np.savez(target, **arrays)  # type: ignore[arg-type]
    temporary.replace(file)


def load(file: Path) -> list[clip_cues.Moment]:
    """What ``store`` wrote, without capture times and boxes, which training does not need."""
    with np.load(file) as stored:
        moments: list[dict[Modality, Cue]] = [{} for _ in range(int(stored["count"]))]
        for number, moment in enumerate(moments):
            for modality in MODALITIES:
                key = f"{number}.{modality}."
                if key + "embedding" in stored:
                    probs = stored.get(key + "probs")
                    quality = float(stored[key + "quality"])
                    moment[modality] = Cue(modality, None, stored[key + "embedding"], probs, 0, 0, quality)
    return list(moments)


def assemble(
    listed: folder.Folder, clips: Sequence[Sequence[clip_cues.Moment]], *, training: bool = True
) -> Samples:
    """Stack the moments that can give an estimate: those with a face, a voice or words.

    Raises DataError when there is none, and for ``training`` when all clips to train on of some label lack one.
    """
    rows = [
        (number, moment)
        for number, moments in enumerate(clips)
        for moment in moments
        if moment.keys() & set(TRUST)
    ]
    if not rows:
        raise DataError(f"{listed.table}: in no clip a face, a voice or words were found")
    usable = {number for number, _ in rows if listed.items[number].split == "train"}
    for label in listed.labels if training else ():
        if not any(listed.items[number].label == label for number in usable):
            example = next(i for i in listed.items if i.label == label and i.split == "train")
            raise DataError(
                f"{listed.where(example)}: in no clip labelled {label!r} in train a face, a voice or words were found"
            )
    size: dict[Modality, int] = {}
    for _, moment in rows:
        for modality, cue in moment.items():
            size.setdefault(modality, len(cue.embedding))
    cues = {m: np.zeros((len(rows), size.get(m, 1)), np.float32) for m in MODALITIES}
    log_probs = np.zeros((len(rows), len(MODALITIES), len(listed.labels)), np.float32)
    quality = np.zeros((len(rows), len(MODALITIES)), np.float32)
    matrix = np.eye(len(EKMAN), dtype=np.float32) if listed.labels == EKMAN else opinions(listed.labels)
    for row, (_, moment) in enumerate(rows):
        for modality, cue in moment.items():
            index = MODALITIES.index(modality)
            cues[modality][row] = cue.embedding
            quality[row, index] = cue.quality
            said = None if cue.probs is None else opinion(cue.probs, matrix, FLOOR)
            if said is not None:
                log_probs[row, index] = said
    clip = np.array([number for number, _ in rows], np.int64)
    target = np.array([listed.labels.index(listed.items[n].label) for n in clip], np.int64)
    split = np.array([listed.items[n].split for n in clip])
    trained = quality[split == "train"] if training else quality
    modalities = frozenset(m for index, m in enumerate(MODALITIES) if trained[:, index].any())
    return Samples(Batch(cues, log_probs, quality, target), clip, split, modalities)


def train(
    samples: Samples, labels: int, recipe: Recipe, checkpoint: Path | None = None
) -> tuple[EcmfHead, NDArray[np.bool_]]:
    """A head fitted on the train moments and calibrated on the valid ones; returns both it and what calibrated it.

    Without valid clips a fifth of the training clips calibrates, unseen in training.
    """
    held = samples.split == "valid"
    if not held.any():
        clips = np.unique(samples.clip[samples.split == "train"])
        few = np.random.default_rng(recipe.fit.seed).permutation(clips)[: len(clips) // 5]
        held = np.isin(samples.clip, few)
    usable = np.flatnonzero((samples.split == "train") & ~held)
    missing = set(range(labels)) - set(samples.batch.target[usable].tolist())
    if missing:  # too few clips to set any aside
        held, usable = np.zeros(len(held), bool), np.flatnonzero(samples.split == "train")
    target = samples.batch.target[usable]
    counts = np.bincount(target, minlength=labels).astype(np.float64)
    chance = counts[target] ** -recipe.balance
    moments = np.bincount(samples.clip[usable])[samples.clip[usable]]
    chance = chance / moments  # a long clip counts as much as a short one
    chance /= chance.sum()

    def sample(rng: np.random.Generator) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        rows = rng.choice(usable, recipe.fit.batch, p=chance)
        return tensors(forget(samples.rows(rows), recipe.forget, rng))

    torch.manual_seed(recipe.fit.seed)
    sizes: dict[str, int] = {m: cue.shape[1] for m, cue in samples.batch.cues.items()}
    head = EcmfHead(sizes, labels, recipe.fit.head)
    digest = hashlib.sha256(repr(recipe).encode())
    for part in (*samples.batch.cues.values(), samples.batch.log_probs, samples.batch.target, usable):
        digest.update(np.ascontiguousarray(part).tobytes())
    descend(head, sample, recipe.fit, checkpoint, digest.hexdigest(), smoothing=recipe.smoothing)
    if held.any():
        calibrate_on(head, samples.rows(held))
    return head.eval(), held


def forget(batch: Batch, chance: float, rng: np.random.Generator) -> Batch:
    """Modality dropout: hide cues at random, but one that can give an estimate stays."""
    trusted = np.array([m in TRUST for m in MODALITIES])
    kept = rng.random(batch.quality.shape) >= chance
    alone = (batch.quality > 0) & trusted
    bare = ~(alone & kept).any(axis=1)
    saved = np.where(alone, rng.random(alone.shape), -1.0).argmax(axis=1)
    kept[bare, saved[bare]] = True
    quality = np.where(kept, batch.quality, 0).astype(np.float32)
    hidden = quality == 0
    cues = {
        m: np.where(hidden[:, i : i + 1], 0, batch.cues[m]).astype(np.float32)
        for i, m in enumerate(MODALITIES)
    }
    return Batch(
        cues, np.where(hidden[..., None], 0, batch.log_probs).astype(np.float32), quality, batch.target
    )


def measure(
    head: torch.nn.Module, samples: Samples, rows: NDArray[np.bool_], labels: Sequence[str]
) -> dict[str, Any]:
    """Scores per clip (the mean over its moments) by the cues that are shown to the head.

    Each subset on the moments that have all of it; all modalities on every moment, with what it has.
    """
    table: dict[str, Any] = {}
    chosen = samples.rows(rows)
    clip = samples.clip[rows]
    for subset in subsets():
        if not subset <= samples.modalities:
            continue
        keep = np.array([m in subset for m in MODALITIES], np.float32)
        quality = chosen.quality * keep
        whole = subset == samples.modalities
        there = quality[:, [MODALITIES.index(m) for m in subset]] > 0
        trusted = (quality[:, [MODALITIES.index(m) for m in TRUST]] > 0).any(axis=1)
        usable = np.flatnonzero(trusted if whole else there.all(axis=1))
        if not len(usable):
            continue
        probs, weights = predict(
            head, take(Batch(chosen.cues, chosen.log_probs, quality, chosen.target), usable)
        )
        names, inverse = np.unique(clip[usable], return_inverse=True)
        mean = np.zeros((len(names), len(labels)))
        np.add.at(mean, inverse, probs)
        mean /= mean.sum(axis=1, keepdims=True)
        target = np.zeros(len(names), np.int64)
        target[inverse] = chosen.target[usable]
        row: dict[str, Any] = scores(mean, target)
        row["weights"] = {m: round(float(weights[:, MODALITIES.index(m)].mean()), 3) for m in sorted(subset)}
        if whole:
            confusion = np.zeros((len(labels), len(labels)), np.int64)
            np.add.at(confusion, (target, mean.argmax(axis=1)), 1)
            row["confusion"] = confusion.tolist()
        table["+".join(m for m in MODALITIES if m in subset)] = row
    return table


def _export(
    head: EcmfHead,
    samples: Samples,
    listed: folder.Folder,
    recipe: Recipe,
    measured: Mapping[str, Any],
    held: NDArray[np.bool_],
    out: Path,
) -> Bundle:
    people = {
        split: sorted({item.speaker for item in listed.items if item.split == split})
        for split in folder.SPLITS
    }
    clips = {split: sum(item.split == split for item in listed.items) for split in folder.SPLITS}
    used = sorted(samples.modalities)
    lines = [
        f"# {out.parent.name}: a fusion head for {', '.join(listed.labels)}",
        "",
        f"Trained on {clips['train']} clips of {len(people['train'])} people listed in {listed.table.name}; cues: "
        f"{', '.join(used)}. {'Calibrated on clips it was not trained on.' if held.any() else 'Not calibrated.'}",
        "The licence of the clips binds it. It estimates expressed emotion, not what a person feels.",
        "",
    ]
    for split, table in measured.items():
        lines += [f"{split}, {clips[split]} clips of {len(people[split])} other people:", ""]
        lines += [
            "| cues | clips | weighted F1 | UAR | accuracy | calibration error |",
            "|---|---|---|---|---|---|",
        ]
        lines += [
            f"| {name} | {row['n']} | {row['weighted_f1']:.3f} | {row['uar']:.3f} | {row['accuracy']:.3f} "
            f"| {row['ece']:.3f} |"
            for name, row in table.items()
        ]
        lines.append("")
    return export_head(
        head,
        out,
        listed.labels,
        {m: cue.shape[1] for m, cue in samples.batch.cues.items()},
        version=recipe.version,
        licence="that of the clips it was trained on",
        training_data=[{"name": listed.table.parent.name, "clips": clips, "people": people}],
        metrics=measured,
        extra={
            "modalities": used,
            "abstain_below": recipe.abstain_below,
            "branches": shipped_branches(),
        },
        card="\n".join(lines),
        sample=samples.rows(np.arange(min(8, len(samples.clip)))),
    )
