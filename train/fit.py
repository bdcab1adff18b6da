"""Train a model and write it as a bundle: weights, manifest, model card.

three ways in:
  python -m train.fit --recipe default          the fusion head, on the corpora of --data (likewise face, voice, text)
  python -m train.fit --data MY_CLIPS           your own clips: a folder with labels.csv, one line a clip:
                                                path,label,speaker,split
                                                a.mp4,bored,anna,train      (video, sound, picture or .txt)
                                                only path and label are needed. speaker: nobody may be in two
                                                splits. split: train, valid (calibrates) or test (measures);
                                                without it 70, 15 and 15 % of the speakers.
                                                (or RAVDESS, EMO-DB, MELD, FER2013, FER+, muxspace as they come)
  python -m train.fit --features MER2025        features in the layout of MER2025 Track 1: five folds, and the
                                                submission csv

A run that was stopped, killed even, goes on where it was when the same command is given again, and ends with the same
bundle. The same seed gives the same bundle. Sizes, rates and seeds stand, with comments, in train/recipes/*.toml: copy
one, change it, and name it with --config. Several processes train one head with
  torchrun --nproc-per-node 2 -m train.fit ...
Large data is extracted beforehand, by several machines if need be: python -m train.features --help. A bundle and its
engines can be written again from a run: python -m train.export --help.
"""

from __future__ import annotations

import argparse
import importlib
import shlex
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from ecmf.bundle import SHIPPED, Bundle
from ecmf.engines.cache import cache_dir
from ecmf.errors import MissingExtra, UsageError
from train import command, corpora, distributed, export, run, workers
from train.datasets import folder, layouts
from train.run import Run

RECIPES = Path(__file__).parent / "recipes"


def face(recipe: Path, out: Path, data: Path, cache: Path) -> Bundle:
    """The expression network of the face branch."""
    module = _part("train.fit_face")
    bundle: Bundle = module.main(recipe, out / "face", data=data, cache=cache, work=out)
    return bundle


def voice(recipe: Path, out: Path, data: Path, cache: Path) -> Bundle:
    """The emotion network of the voice branch; the ordinary speech that it hears lies beside RAVDESS, in prompts."""
    module = _part("train.fit_voice")
    voices = module.VoiceData(
        *(corpora.find(data, "speech", names) for names in (corpora.RAVDESS, corpora.EMODB)), cache=cache
    )
    bundle: Bundle = module.fit(recipe, voices, out / "voice")
    return bundle


def text(recipe: Path, out: Path, data: Path, cache: Path) -> Bundle:
    """The text branch's encoder."""
    module = _part("train.fit_text")
    bundle: Bundle = module.make(
        recipe, out, corpora.find(data, "text", corpora.MELD), corpora.find(data, "text", corpora.GOEMOTIONS)
    )
    return bundle


def default(recipe: Path, out: Path, data: Path, cache: Path) -> Bundle:
    """The fusion head."""
    module = _part("train.fit_default")
    bundle: Bundle = module.main(recipe, out / "default", data=data, cache=cache, work=out)
    return bundle


RECIPE: dict[str, Callable[[Path, Path, Path, Path], Bundle]] = {
    "default": default,
    "face": face,
    "voice": voice,
    "text": text,
}


def fit(asked: Run) -> Bundle:
    """Do what the command line asks. Raises UsageError for options that do not go together, DataError for bad data."""
    if asked.features is not None and (asked.recipe is not None or asked.data is not None):
        raise UsageError("--features goes without --recipe and --data: the features and labels are all there")
    if asked.recipe is not None and asked.labels is not None:
        raise UsageError(
            f"--labels goes with --data or --features; the recipe {asked.recipe} has its own labels"
        )
    if asked.recipe is None and asked.data is None and asked.features is None:
        raise UsageError(
            "say what to train: --recipe NAME, --data DIR or --features DIR; --help explains them"
        )
    if asked.processes is not None and asked.processes < 1:
        raise UsageError(f"--processes {asked.processes}: at least one")
    if asked.recipe is not None and asked.processes is not None:
        raise UsageError(f"--processes goes with --data or --features; one trains the recipe {asked.recipe}")
    if asked.config is not None and not asked.config.is_file():
        raise UsageError(f"no recipe {asked.config}; --config names a TOML file like those in {RECIPES}")
    if asked.recipe is not None:
        found = corpora.root(asked.data)
        chosen = asked.config or RECIPES / f"{asked.recipe}.toml"
        if not chosen.is_file():
            raise UsageError(f"no recipe {chosen}; --config names a TOML file like those in {RECIPES}")
        if distributed.size() > 1:
            raise UsageError(
                f"the recipe {asked.recipe} is trained by one process; start it without torchrun"
            )
        begin(replace(asked, data=found))
        return RECIPE[asked.recipe](chosen, asked.out, found, asked.cache)
    module = _part("train.fit_mer" if asked.features is not None else "train.fit_folder")
    root = asked.features or asked.data
    with distributed.joined():
        return cast(
            Bundle,
            module.main(
                root,
                asked.out,
                cache=asked.cache,
                config=asked.config,
                labels=asked.labels,
                unfinished=asked.unfinished,
                processes=asked.processes or workers.cores(),
                begin=lambda: begin(asked),
            ),
        )


def begin(asked: Run) -> None:
    """Note what is asked in the run's folder, and sweep up what a killed export left there; data was found sound."""
    if not distributed.rank() and not asked.unfinished:
        for left in asked.out.glob(".model.*"):
            shutil.rmtree(left, ignore_errors=True) if left.is_dir() else left.unlink(missing_ok=True)
        run.store(asked)


def _part(name: str) -> Any:
    """A training module; without torch and the rest of the extra it is one clear line."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = str(error.name).partition(".")[0]
        if missing in ("train", "ecmf"):
            raise
        raise MissingExtra(
            f"{missing} is not installed; install it with: pip install 'ecmf-live[live,train]'"
        ) from None


def parser() -> argparse.ArgumentParser:
    made = command.parser("fit", __doc__)
    made.add_argument(
        "--recipe", choices=sorted(RECIPE), help="train a model that is shipped, as its recipe says"
    )
    made.add_argument(
        "--data", type=Path, metavar="DIR", help="corpora of a recipe (default: $ECMF_DATA), or clips"
    )
    command.add(made, "--features", "--config")
    made.add_argument("--out", type=Path, metavar="DIR", help="bundle and checkpoints (default: runs/NAME)")
    export.add_engines(made)
    workers.add_processes(made)
    command.add(made, "--labels", "--cache")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    asked = parser().parse_args(arguments)

    def work() -> str:
        out, cache = asked.out or Path("runs") / _name(asked), asked.cache or cache_dir() / "features"
        command.writable("--out", out)
        command.writable("--cache", cache)
        bundle = fit(
            Run(
                out=out,
                cache=cache,
                recipe=asked.recipe,
                data=asked.data,
                features=asked.features,
                config=asked.config,
                labels=None if asked.labels is None else folder.label_set(asked.labels),
                processes=asked.processes,
            )
        )
        if not distributed.rank():
            export.engines(bundle, asked.engines)
        return told(bundle, asked.data)

    return command.carried_out(work)


def told(bundle: Bundle, data: Path | None) -> str:
    """What there is now, and what can be done with it."""
    reads = {port.name for port in bundle.manifest.inputs}
    if "features" in reads:
        return (
            f"{bundle.id} is in {bundle.folder}; it reads stored utterance features, so ecmf-live cannot run it: "
            "a head for a camera is trained on clips, with --data"
        )
    if "log_probs" not in reads:
        return (
            f"{bundle.id} is in {bundle.folder}; a branch, not a head: ecmf-live runs it in place of "
            f"{SHIPPED / bundle.manifest.name}, once a head was fitted to it (train.fit --recipe default)"
        )
    where = shlex.quote(str(bundle.folder))
    lines = [f"{bundle.id} is in {bundle.folder}; next:", f"  ecmf-live --model {where}"]
    if data is not None and layouts.kind_of(data) is not None:
        lines[1:1] = [f"  python -m train.evaluate --bundle {where} --data {shlex.quote(str(data))}"]
    return "\n".join(lines)


def _name(asked: argparse.Namespace) -> str:
    """Of the run's folder, where --out names none."""
    if asked.recipe is not None:
        return str(asked.recipe)
    return "mer2025" if asked.data is None else str(asked.data.resolve().stem)


if __name__ == "__main__":
    distributed.leave(main())
