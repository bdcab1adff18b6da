"""MER2025 Track 1: random folds over utterance features, a vote of the folds' heads, the submission csv."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ecmf.bundle import Bundle, Manifest, Port, load_bundle
from ecmf.cue import MODALITIES
from ecmf.errors import DataError, UsageError
from train import command, distributed, plots, result_table, workers
from train.atomic import write_whole
from train.datasets import mer2025
from train.descent import descend, finished
from train.fit_head import write_graph
from train.mer_features import Feature, load, rows_of
from train.mer_head import AttentionBaseline, FeatureHead, Vote
from train.mer_scores import across, predict
from train.progress import Advance
from train.recipe import Training, read

log = logging.getLogger("train.fit_mer")
RECIPE = Path(__file__).parent / "recipes" / "mer2025.toml"
VERSION = 2
"""Raise it when the heads or what they are shown change: checkpoints of before are then not gone on from."""
MODELS: Mapping[str, Callable[..., nn.Module]] = {
    "ecmf": FeatureHead,
    "attention-baseline": AttentionBaseline,
}


@dataclass(frozen=True)
class Recipe:
    """`recipes/mer2025.toml`, where each key has its comment."""

    version: str = "1.0"
    model: str = "ecmf"
    folds: int = 5
    smoothing: float = 0.05
    balance: float = 0.3
    forget: float = 0.2
    features: Mapping[str, str] = field(default_factory=dict)
    fit: Training = field(default_factory=Training)


def main(
    root: Path,
    out: Path,
    *,
    cache: Path,
    config: Path | None = None,
    labels: Sequence[str] | None = None,
    unfinished: bool = False,
    processes: int = 1,
    begin: Callable[[], None] = lambda: None,
) -> Bundle:
    """Fit all folds, write the bundle, metrics.json and, where there are candidates, submission.csv into ``out``.

    ``begin`` is called once the data was found sound, before anything is written to ``out``. ``unfinished``: no
    training, the last checkpoints as they are. ``processes`` train folds side by side, with the same result. Raises
    DataError naming file and row, UsageError for a wrong recipe.
    """
    recipe = read_recipe(config or RECIPE)
    corpus = mer2025.read(root, labels)
    names = [*corpus.names, *corpus.candidates]
    features = load(corpus, names, recipe.features, cache)
    target = np.array([corpus.labels.index(emotion) for emotion in corpus.emotions])
    blind = ~np.any([feature.present[: len(target)] for feature in features], axis=0)
    if blind.any():
        raise DataError(
            f"{root / mer2025.FEATURES}: no feature has clip {corpus.names[int(np.argmax(blind))]}"
        )
    begin()
    parts = [f"{f.name} ({MODALITIES[f.kind]}, {f.values.shape[1]})" for f in features]
    log.info("%d clips, %d candidates; %s", len(corpus.names), len(corpus.candidates), ", ".join(parts))
    given = ~np.array(corpus.pseudo)
    members, table = fit_folds(
        features, target, corpus.labels, recipe, out, given, unfinished=unfinished, processes=processes
    )
    if distributed.rank():
        distributed.agree()
        return load_bundle(out / "model")
    vote = Vote(members).eval()
    protocol = f"{recipe.folds} random folds, no choice of epochs on the tested fold"
    if not given.all():
        # A fold's own labels were among those that the guesses were learnt from.
        protocol += (
            f"; {(~given).sum()} guessed clips train every fold, made with all folds' labels: it flatters"
        )
    metrics = {"folds": table, "protocol": protocol}
    write_whole(out / "metrics.json", command.results(metrics).encode())
    plots.draw(table, corpus.labels, out)
    log.info("writing the bundle")
    bundle = _export(vote, features, corpus, recipe, metrics, out / "model")
    log.info("weighted F1 over %d folds: %s", recipe.folds, table["pooled"]["weighted_f1"])
    if corpus.candidates:
        rows = np.arange(len(corpus.names), len(names))
        guesses = predict(vote, features, rows, len(corpus.labels)).argmax(axis=1)
        mer2025.write_submission(
            out / "submission.csv", corpus.candidates, [corpus.labels[guess] for guess in guesses]
        )
        log.info("wrote %s: %d clips", out / "submission.csv", len(rows))
    distributed.agree()
    return bundle


def read_recipe(path: Path) -> Recipe:
    """Raises UsageError for a key that is unknown or of the wrong kind, or a model or modality that does not exist."""
    recipe = read(Recipe, path)
    if recipe.model not in MODELS:
        raise UsageError(f"{path}: model {recipe.model!r} is none of {', '.join(MODELS)}")
    if recipe.folds < 2:
        raise UsageError(f"{path}: folds = {recipe.folds}; at least 2")
    for name, modality in recipe.features.items():
        if modality not in (*MODALITIES, ""):
            raise UsageError(
                f"{path} [features]: {name} = {modality!r}; expected {', '.join(MODALITIES)} or ''"
            )
    return recipe


def fit_folds(
    features: Sequence[Feature],
    target: NDArray[np.int64],
    labels: Sequence[str],
    recipe: Recipe,
    out: Path,
    given: NDArray[np.bool_],
    *,
    unfinished: bool = False,
    processes: int = 1,
) -> tuple[list[nn.Module], dict[str, Any]]:
    """A head per fold, trained on the others; and what ``mer_scores.across`` says of them.

    given: bool[n]; clips whose label was not given but guessed train every fold, and none is judged by them.
    """
    rng = np.random.default_rng(recipe.fit.seed)
    fold = np.full(len(target), -1)
    fold[given] = rng.permutation(np.arange(given.sum()) % recipe.folds)
    for number in range(recipe.folds):
        missing = set(range(len(labels))) - set(target[fold != number].tolist())
        if missing:
            raise DataError(
                f"fold {number}: no clip to train on is labelled {labels[min(missing)]!r}; use fewer folds"
            )
    digest = hashlib.sha256(repr((VERSION, recipe)).encode())
    digest.update(repr([(f.name, f.kind, f.values.shape, f.file.name) for f in features]).encode())
    digest.update(target.tobytes() + given.tobytes())
    folds = [
        partial(
            fit_fold,
            features,
            target,
            np.flatnonzero(fold != number),
            len(labels),
            recipe,
            out / f"fold-{number}.pt",
            digest.hexdigest(),
        )
        for number in range(recipe.folds)
    ]
    left = [
        fold
        for number, fold in enumerate(folds)
        if not finished(out / f"fold-{number}.pt", digest.hexdigest(), recipe.fit.steps)
    ]
    if processes > 1 and distributed.size() == 1 and not unfinished and len(left) > 1:
        workers.ahead(left, processes, len(left) * recipe.fit.steps, f"{len(left)} folds")
    members = [fit(unfinished=unfinished) for fit in folds]
    return members, across(members, fold, features, target, labels)


def fit_fold(
    features: Sequence[Feature],
    target: NDArray[np.int64],
    rows: NDArray[np.int64],
    labels: int,
    recipe: Recipe,
    checkpoint: Path,
    fingerprint: str,
    tell: Advance | None = None,
    *,
    unfinished: bool = False,
) -> nn.Module:
    """A head trained on ``rows``, or as its finished ``checkpoint`` has it. ``tell`` hears of the progress."""
    counts = np.bincount(target[rows], minlength=labels).astype(np.float64)
    chance = counts[target[rows]] ** -recipe.balance
    chance /= chance.sum()

    def sample(rng: np.random.Generator) -> tuple[dict[str, Tensor], Tensor]:
        chosen = np.sort(rng.choice(rows, recipe.fit.batch, p=chance))  # the disk is read forwards
        mine = distributed.share(len(chosen))
        inputs = rows_of(features, chosen[mine])
        drawn = rng.random((len(chosen), len(features)))[mine]
        kept = torch.from_numpy(drawn >= recipe.forget).float()
        enough = (inputs["quality"] * kept).sum(dim=1, keepdim=True) > 0
        inputs["quality"] = torch.where(enough, inputs["quality"] * kept, inputs["quality"])
        return inputs, torch.from_numpy(target[chosen[mine]])

    torch.manual_seed(recipe.fit.seed)
    dims, kinds = [f.values.shape[1] for f in features], [f.kind for f in features]
    head = MODELS[recipe.model](dims, kinds, labels, recipe.fit.head)
    descend(
        head,
        sample,
        recipe.fit,
        checkpoint,
        fingerprint,
        smoothing=recipe.smoothing,
        what=checkpoint.stem,
        unfinished=unfinished,
        tell=tell,
    )
    return head


def _export(
    vote: Vote,
    features: Sequence[Feature],
    corpus: mer2025.Mer2025,
    recipe: Recipe,
    metrics: Mapping[str, Any],
    out: Path,
) -> Bundle:
    layout = [{"name": f.name, "modality": MODALITIES[f.kind], "size": f.values.shape[1]} for f in features]
    manifest = Manifest(
        name=out.name,
        version=recipe.version,
        inputs=(
            Port(
                "features",
                "float32",
                ("batch", sum(f.values.shape[1] for f in features)),
                "as extra.features says",
            ),
            Port("quality", "float32", ("batch", len(features)), "1 present, 0 absent"),
        ),
        outputs=(
            Port("logits", "float32", ("batch", len(corpus.labels)), "log-probability, mean of the folds"),
            Port("weights", "float32", ("batch", len(features)), "sum to 1 over the present (ecmf)"),
        ),
        licence="that of MER2025's agreement",
        labels=corpus.labels,
        training_data=({"name": "MER2025 Track 1", "clips": len(corpus.names)},),
        metrics=metrics,
        extra={"features": layout, "model": recipe.model},
    )
    card = (
        f"# {recipe.model} on {len(corpus.names)} clips, {len(features)} features\n\n"
        f"A vote of {recipe.folds} folds' heads. It reads stored utterance features, not a camera.\n\n"
        f"Each clip judged by the fold that did not see it ({metrics['protocol']}); pooled: all clips and features.\n\n"
        f"{result_table.tables(metrics['folds'], corpus.labels)}\n"
    )
    sample = rows_of(features, np.arange(min(8, len(corpus.names))))
    return write_graph(vote, out, manifest, sample, card)
