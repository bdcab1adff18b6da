"""Measure a bundle as it is, on people it was not trained on: python -m train.evaluate --bundle face

--bundle face|voice|text|default    a shipped bundle, on the corpora of --data
--bundle DIR --data MY_CLIPS        a head of your own, on the test clips of a folder with labels.csv; a person whom
                                    the bundle's manifest names as seen in training is an error
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ecmf.bundle import SHIPPED, Bundle, load_bundle
from ecmf.cue import MODALITIES
from ecmf.engines.cache import cache_dir
from ecmf.engines.choose import open_engine
from ecmf.errors import BundleError, DataError, UsageError
from train import command, plots
from train.datasets import folder
from train.fit import EMODB, MELD, RAVDESS, corpora, corpus


class EngineHead(nn.Module):
    """A head bundle as the live system runs it, where torch code expects a head."""

    def __init__(self, bundle: Bundle, backend: str = "auto") -> None:
        super().__init__()
        self._engine = open_engine(bundle, backend=backend)

    def forward(self, **inputs: Tensor) -> tuple[Tensor, Tensor]:
        out = self._engine.run({name: value.numpy() for name, value in inputs.items()})
        return torch.from_numpy(np.array(out["logits"])), torch.from_numpy(np.array(out["weights"]))


def face(bundle: Bundle, data: Path, cache: Path, refit: bool) -> dict[str, Any]:
    """FER+ test, muxspace's test people, robustness."""
    from train.evaluate_face import evaluate

    return evaluate(bundle.folder, data, cache=cache)


def voice(bundle: Bundle, data: Path, cache: Path, refit: bool) -> dict[str, Any]:
    """The held-out speakers; with ``refit`` folds and cross-corpus."""
    from train.evaluate_voice import VoiceData, evaluate

    ravdess, emodb = (corpus(data, "speech", names) for names in (RAVDESS, EMODB))
    return evaluate(bundle, VoiceData(ravdess, emodb, cache=cache), refit)


def text(bundle: Bundle, data: Path, cache: Path, refit: bool) -> dict[str, Any]:
    """MELD's official test split."""
    from ecmf.branches.text import TextBranch
    from train.datasets.meld import read_meld
    from train.evaluate_text import evaluate

    lines = [line for line in read_meld(corpus(data, "text", MELD)) if line.split == "test"]
    return evaluate(TextBranch(bundle), lines)


def default(bundle: Bundle, data: Path, cache: Path, refit: bool) -> dict[str, Any]:
    """Synthetic pairs of people that no branch and not the head was trained on, and muxspace as it is."""
    from train import compare
    from train.evaluate_head import apart, brief, evaluate, paired
    from train.fit_default import read_recipe

    recipe = read_recipe(Path(__file__).parent / "recipes" / "default.toml")
    labels = bundle.manifest.labels
    loaded = compare.load(data, cache, offline=False)
    stated = bundle.manifest.extra.get("prior", dict(zip(labels, recipe.prior, strict=True)))
    prior = np.array([stated[label] for label in labels])
    head = EngineHead(bundle)
    found = evaluate(head, loaded.fit, loaded.test, labels, prior, recipe.fit.pairing)
    assert loaded.paired_face is not None
    sizes = {m: pool.embedding.shape[1] for m, pool in loaded.test.items()}
    found |= paired(head, loaded.paired_face, loaded.test["scene"], sizes, labels)
    gap = apart(brief(found), bundle.manifest.metrics) if bundle.folder == SHIPPED / "default" else None
    return {"caveat": compare.CAVEAT, "largest_difference_from_the_card": gap, **found}


KIND: Mapping[str, Callable[[Bundle, Path, Path, bool], dict[str, Any]]] = {
    "face": face,
    "voice": voice,
    "text": text,
    "default": default,
}


def trained_on(bundle: Bundle) -> set[str]:
    """People whom the manifest names as seen in training; none where it only counts them, as the shipped head does."""
    named = (source.get("people") for source in bundle.manifest.training_data)
    splits = [people for people in named if isinstance(people, Mapping)]
    return {person for people in splits for split in people if split != "test" for person in people[split]}


def clips(bundle: Bundle, data: Path, cache: Path) -> dict[str, Any]:
    """A head on the test clips of a folder. Raises DataError for a person whom it saw in training."""
    from train import fit_folder

    if "log_probs" not in {port.name for port in bundle.manifest.inputs}:
        raise BundleError(f"{bundle.id} is not a fusion head; clips can only be given to one")
    listed = folder.read(data, bundle.manifest.labels, training=False)
    seen = trained_on(bundle)
    tested = [item for item in listed.items if item.split == "test"]
    if not tested:
        raise DataError(f"{listed.table}: no clip has the split test; there is nothing to measure on")
    for item in tested:
        if item.speaker in seen:
            raise DataError(
                f"{listed.where(item)}: {bundle.id} was trained on {item.speaker!r}; measure it on other people"
            )
    chosen = folder.Folder(listed.table, tuple(tested), listed.labels)
    samples = fit_folder.assemble(chosen, fit_folder.extract(chosen, cache), training=False)
    used = frozenset(bundle.manifest.extra.get("modalities", MODALITIES))
    keep = np.array([m in used for m in MODALITIES], np.float32)
    sizes = {port.name: port.shape[-1] for port in bundle.manifest.inputs}
    cues = {
        m: cue if cue.shape[1] == sizes[m] else np.zeros((len(cue), int(sizes[m])), np.float32)
        for m, cue in samples.batch.cues.items()
    }
    batch = fit_folder.Batch(
        cues, samples.batch.log_probs, samples.batch.quality * keep, samples.batch.target
    )
    samples = fit_folder.Samples(batch, samples.clip, samples.split, samples.modalities & used)
    return fit_folder.measure(EngineHead(bundle), samples, samples.split == "test", listed.labels)


def parser() -> argparse.ArgumentParser:
    made = command.parser("evaluate", __doc__)
    made.add_argument(
        "--bundle", default=None, metavar="NAME|DIR", help="face, voice, text, default, or a folder"
    )
    made.add_argument("--recipe", choices=sorted(KIND), help="the same as --bundle with that name")
    made.add_argument("--data", type=Path, metavar="DIR", help="corpora (default: $ECMF_DATA), or clips")
    command.add(made, "--cache")
    made.add_argument(
        "--refit", action="store_true", help="voice: train anew, for folds and cross-corpus figures"
    )
    made.add_argument(
        "--json", action="store_true", help="print the results as one line of JSON instead of indented"
    )
    made.add_argument("--out", type=Path, metavar="DIR", help="write results.json and PNG plots here")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    asked = parser().parse_args(arguments)

    def work() -> str:
        name = asked.bundle or asked.recipe
        if name is None:
            raise UsageError("which bundle? --bundle face, voice, text, default or a folder")
        bundle = load_bundle(SHIPPED / name if name in KIND else Path(name))
        cache = asked.cache or cache_dir() / "features"
        kind = name if name in KIND else bundle.manifest.name
        if asked.refit and kind != "voice":
            raise UsageError(
                "--refit is for the voice; train a new bundle with python -m train.fit and measure that"
            )
        if asked.data is not None and (asked.data / folder.TABLE).is_file():
            results = clips(bundle, asked.data, cache)
        elif kind in KIND:
            results = KIND[kind](bundle, corpora(asked.data), cache, asked.refit)
        else:
            raise UsageError(f"{bundle.id} is measured on clips: --data a folder with {folder.TABLE}")
        record = {"bundle": bundle.id, "results": results}
        if asked.out is not None:
            asked.out.mkdir(parents=True, exist_ok=True)
            (asked.out / "results.json").write_text(json.dumps(record, indent=1) + "\n", "utf-8")
            plots.draw(results, bundle.manifest.labels, asked.out)
        return json.dumps(record, indent=None if asked.json else 1)

    return command.carried_out(work)


if __name__ == "__main__":
    raise SystemExit(main())
