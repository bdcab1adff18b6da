"""Measure fusion heads on clips: a bundle as it is on people it has not seen, or heads trained anew fold by fold."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ecmf.bundle import Bundle
from ecmf.cue import MODALITIES
from ecmf.engines.choose import open_engine
from ecmf.errors import BundleError, DataError
from train import clip_store, fit_folder, overlap
from train.clip_samples import assemble
from train.clip_scores import measure
from train.datasets import folder, layouts
from train.evaluate_head import predict
from train.pairing import Batch
from train.recipe import read

log = logging.getLogger("train.evaluate_clips")
FOLDS = 5
"""Of the people, when heads are trained anew; fewer where there are fewer people."""


class EngineHead(nn.Module):
    """A head bundle as the live system runs it, where torch code expects a head."""

    def __init__(self, bundle: Bundle, backend: str = "auto") -> None:
        super().__init__()
        self._engine = open_engine(bundle, backend=backend)

    def forward(self, **inputs: Tensor) -> tuple[Tensor, Tensor]:
        out = self._engine.run({name: value.numpy() for name, value in inputs.items()})
        return torch.from_numpy(np.array(out["logits"])), torch.from_numpy(np.array(out["weights"]))


def as_it_is(bundle: Bundle, data: Path, cache: Path, *, everyone: bool = False) -> dict[str, Any]:
    """A head on the test clips of ``data`` (any layout), or with ``everyone`` on all of them.

    Clips of a corpus with a label that the head does not know are left out, and counted; in a labels.csv they are an
    error. Raises DataError for a person whom the head saw in training.
    """
    reads = {port.name for port in bundle.manifest.inputs}
    if "features" in reads:
        raise BundleError(
            f"{bundle.id} reads stored features, not clips; what its folds scored stands in its README.md"
        )
    if "log_probs" not in reads:
        raise BundleError(f"{bundle.id} is not a fusion head; clips can only be given to one")
    listed, left_out = known(data, bundle)
    tested = tuple(item for item in listed.items if everyone or item.split == "test")
    if not tested:
        raise DataError(
            f"{listed.table}: no clip has the split test; there is nothing to measure on (--everyone measures all)"
        )
    seen = overlap.trained_on(bundle)
    for item in tested:
        if item.speaker in seen:
            raise DataError(
                f"{listed.where(item)}: {bundle.id} was trained on {item.speaker!r}; measure it on other people"
            )
    chosen = replace(listed, items=tested)
    samples = assemble(chosen, clip_store.extract(chosen, cache), training=False)
    used = frozenset(bundle.manifest.extra.get("modalities", MODALITIES))
    if not samples.modalities & used:
        raise DataError(
            f"{listed.table}: {bundle.id} reads {', '.join(sorted(used))}; of that nothing was found in these clips"
        )
    keep = np.array([m in used for m in MODALITIES], np.float32)
    sizes = {port.name: port.shape[-1] for port in bundle.manifest.inputs}
    cues = {
        m: cue if cue.shape[1] == sizes[m] else np.zeros((len(cue), int(sizes[m])), np.float32)
        for m, cue in samples.batch.cues.items()
    }
    batch = Batch(cues, samples.batch.log_probs, samples.batch.quality * keep, samples.batch.target)
    samples = replace(samples, batch=batch, modalities=samples.modalities & used)
    flattered = overlap.flattered({item.speaker for item in tested}, data if everyone else None)
    head = EngineHead(bundle)
    everything = np.ones(len(samples.clip), bool)
    protocol = f"{len(tested)} clips of {len({item.speaker for item in tested})} people not trained on"
    return {
        "protocol": protocol + left_out + flattered,
        **measure(lambda shown, rows: predict(head, shown), samples, everything, listed.labels),
    }


def known(data: Path, bundle: Bundle) -> tuple[folder.Folder, str]:
    """The clips whose labels the head knows, and what is to be said of the others."""
    labels = bundle.manifest.labels
    if layouts.kind_of(data) in ("labels.csv", None):
        return layouts.read(data, labels, training=False), ""
    listed = layouts.read(data, training=False)
    items = tuple(item for item in listed.items if item.label in labels)
    if not items:
        raise DataError(
            f"{data} is labelled {', '.join(listed.labels)}; {bundle.id} knows {', '.join(labels)}"
        )
    gone = [label for label in listed.labels if label not in labels]
    said = f"; {len(listed.items) - len(items)} clips labelled {', '.join(gone)} left out" if gone else ""
    return replace(listed, items=items, labels=tuple(labels)), said


def anew(data: Path, cache: Path, config: Path | None = None, keep: Path | None = None) -> dict[str, Any]:
    """Heads trained anew on FOLDS of the people of ``data``, splits aside; each clip is judged by the head that saw
    nobody of its fold. ``keep``: folder for checkpoints, so that a killed measurement goes on.

    Raises DataError for a single person, or a label that only the people of one fold have.
    """
    recipe = read(fit_folder.Recipe, config or fit_folder.RECIPE)
    listed = layouts.read(data, training=False)
    listed = replace(listed, items=tuple(replace(item, split="train") for item in listed.items))
    log.info("%s", listed.told())
    samples = assemble(listed, clip_store.extract(listed, cache), cache=cache)
    people, who = np.unique(samples.speaker, return_inverse=True)
    count = min(FOLDS, len(people))
    if count < 2:
        raise DataError(f"{listed.table}: all clips are of one person; folds need two, better {FOLDS}")
    fold = (np.random.default_rng(recipe.fit.seed).permutation(len(people)) % count)[who]
    heads = []
    for number in range(count):
        missing = set(range(len(listed.labels))) - set(samples.batch.target[fold != number].tolist())
        if missing:
            raise DataError(
                f"{listed.table}: only {', '.join(sorted(set(samples.speaker[fold == number])))} have clips labelled "
                f"{listed.labels[min(missing)]!r}; add some of others, or measure with a split of your own"
            )
    for number in range(count):
        split = np.where(fold == number, "test", "train")
        log.info("fold %d of %d", number + 1, count)
        checkpoint = None if keep is None else keep / f"fold-{number}.pt"
        heads.append(
            fit_folder.train(replace(samples, split=split), len(listed.labels), recipe, checkpoint)[0]
        )

    def judge(shown: Batch, rows: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        probs, weights = np.zeros((len(rows), len(listed.labels))), np.zeros((len(rows), len(MODALITIES)))
        for number in np.unique(fold[rows]):
            mine = fold[rows] == number
            part = Batch(
                {m: cue[mine] for m, cue in shown.cues.items()},
                shown.log_probs[mine],
                shown.quality[mine],
                shown.target[mine],
            )
            probs[mine], weights[mine] = predict(heads[number], part)
        return probs, weights

    protocol = (
        f"{count} folds of {len(people)} people, heads trained anew; each clip judged by the head that saw nobody of "
        "its fold"
    )
    return {
        "protocol": protocol + overlap.flattered(set(people.tolist()), data),
        "labels": list(listed.labels),
        **measure(judge, samples, np.ones(len(fold), bool), listed.labels),
    }
