"""Measure on people that were not trained on: python -m train.evaluate

  python -m train.evaluate --bundle face             a shipped bundle (voice, text, default) on the corpora of --data
  python -m train.evaluate --bundle runs/clips --data CLIPS      a head of your own on the test clips of any data that
                                                     train.fit reads; a person whom its manifest names as seen in
                                                     training is an error
  python -m train.evaluate --bundle runs/RAVDESS --data EMO-DB --everyone    the same on another corpus, all of it
  python -m train.evaluate --refit --data CLIPS      heads trained anew on folds of the people: cross-validation
  python -m train.evaluate --refit --bundle voice    the same for the voice, and from corpus to corpus

Weighted F1, UAR, accuracy with 95 % intervals, expected calibration error, for every allowed set of cues; for all cues
together also each label and the confusion matrix. --out keeps them, and draws them.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ecmf.bundle import SHIPPED, Bundle, load_bundle
from ecmf.engines.cache import cache_dir
from ecmf.errors import UsageError
from train import command, corpora, evaluate_clips, plots, result_table
from train.atomic import write_whole
from train.datasets import folder, layouts


def face(bundle: Bundle, data: Path, cache: Path, refit: bool) -> dict[str, Any]:
    """FER+ test, muxspace's test people, robustness."""
    from train.evaluate_face import evaluate

    return evaluate(bundle.folder, data, cache=cache)


def voice(bundle: Bundle, data: Path, cache: Path, refit: bool) -> dict[str, Any]:
    """The held-out speakers; with ``refit`` folds and cross-corpus."""
    from train.evaluate_voice import VoiceData, evaluate

    ravdess, emodb = (corpora.find(data, "speech", names) for names in (corpora.RAVDESS, corpora.EMODB))
    return evaluate(bundle, VoiceData(ravdess, emodb, cache=cache), refit)


def text(bundle: Bundle, data: Path, cache: Path, refit: bool) -> dict[str, Any]:
    """MELD's official test split."""
    from ecmf.branches.text import TextBranch
    from train.datasets.meld import read_meld
    from train.evaluate_text import evaluate

    lines = [line for line in read_meld(corpora.find(data, "text", corpora.MELD)) if line.split == "test"]
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
    head = evaluate_clips.EngineHead(bundle)
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


def found_bundle(name: str) -> Bundle:
    """A shipped bundle, a bundle's folder, or that of the run that made it. Raises BundleError."""
    if name in KIND:
        return load_bundle(SHIPPED / name)
    run = Path(name) / "model"
    return load_bundle(run if (run / "manifest.json").is_file() else Path(name))


def clips(asked: argparse.Namespace, name: str) -> bool:
    """Whether --data is measured clip by clip; the corpora of the shipped bundles are read in ways of their own, since
    their branches were trained on parts of them. Raises UsageError for data that is not there or not known."""
    if asked.data is None:
        return False
    if not asked.data.exists():
        raise UsageError(f"there is no {asked.data}; --data names a folder of clips, or a corpus as it comes")
    if name in KIND:
        return bool((asked.data / folder.TABLE).is_file())
    if layouts.kind_of(asked.data) is None:
        layouts.read(asked.data)  # says what is known
    return True


def parser() -> argparse.ArgumentParser:
    made = command.parser("evaluate", __doc__)
    made.add_argument(
        "--bundle",
        metavar="NAME|DIR",
        help="face, voice, text, default, or a folder: of a bundle, or of the run that made it",
    )
    made.add_argument("--recipe", choices=sorted(KIND), help="the same as --bundle with that name")
    made.add_argument("--data", type=Path, metavar="DIR", help="corpora (default: $ECMF_DATA), or clips")
    made.add_argument(
        "--everyone",
        action="store_true",
        help="all clips of --data, not only those with the split test: where the head saw none of these people",
    )
    made.add_argument(
        "--refit", action="store_true", help="train anew, on folds of the people: clips, or the voice"
    )
    command.add(made, "--config", "--cache")
    made.add_argument("--json", action="store_true", help="print one line of JSON instead of tables")
    made.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="write results.json, results.md and PNG plots here; with --refit also checkpoints to go on from",
    )
    return made


def measured(asked: argparse.Namespace, cache: Path) -> tuple[str, Mapping[str, Any], Sequence[str]]:
    """Of what, the results, and the names of the labels in them."""
    name = asked.bundle or asked.recipe
    if asked.refit and name is None:
        if asked.data is None:
            raise UsageError("--refit trains anew: on which clips? --data DIR")
        found = evaluate_clips.anew(asked.data, cache, asked.config, asked.out)
        return "heads trained anew", found, found["labels"]
    if name is None:
        raise UsageError("which bundle? --bundle face, voice, text, default or a folder")
    if asked.config is not None:
        raise UsageError("--config goes with --refit --data: a bundle is measured as it is")
    bundle = found_bundle(name)
    kind = name if name in KIND else bundle.manifest.name
    if asked.refit and kind != "voice":
        raise UsageError(
            "--refit trains anew what is not there yet: give it clips with --data and no bundle, or --bundle voice"
        )
    labels = bundle.manifest.labels
    if clips(asked, name):
        return bundle.id, evaluate_clips.as_it_is(bundle, asked.data, cache, everyone=asked.everyone), labels
    if asked.everyone:
        raise UsageError("--everyone goes with clips: --data names none")
    if kind not in KIND:
        raise UsageError(f"{bundle.id} is measured on clips: --data DIR")
    return bundle.id, KIND[kind](bundle, corpora.root(asked.data), cache, asked.refit), labels


def main(arguments: Sequence[str] | None = None) -> int:
    asked = parser().parse_args(arguments)

    def work() -> str:
        cache = asked.cache or cache_dir() / "features"
        command.writable("--cache", cache)
        if asked.out is not None:
            command.writable("--out", asked.out)
        what, results, labels = measured(asked, cache)
        record = {"bundle": what, "results": results}
        said = [what, *(str(results[key]) for key in ("protocol", "caveat") if key in results)]
        if (gap := results.get("largest_difference_from_the_card")) is not None:
            said.append(f"largest difference from the card: {gap:.4f}")
        text = "\n\n".join([*said, result_table.tables(results, labels)])
        if asked.out is not None:
            write_whole(asked.out / "results.json", command.results(record).encode())
            write_whole(asked.out / "results.md", f"{text}\n".encode())
            text += "\n\n" + "\n".join(["drawn:", *map(str, plots.draw(results, labels, asked.out))])
        return command.line(record) if asked.json else text

    return command.carried_out(work)


if __name__ == "__main__":
    raise SystemExit(main())
