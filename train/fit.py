"""Train a model and write it as a bundle that ecmf-live runs.

three ways in:
  python -m train.fit --recipe default          the fusion head, on the corpora of --data (likewise face, voice, text)
  python -m train.fit --data MY_CLIPS           your own clips: a folder with labels.csv, one line a clip:
                                                path,label,speaker,split
                                                a.mp4,bored,anna,train      (video, sound, picture or .txt)
  python -m train.fit --features MER2025        features in the layout of MER2025 Track 1: five folds, and the
                                                submission csv

A run that was stopped goes on where it was when the same command is given again.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ecmf.bundle import Bundle
from ecmf.engines.cache import cache_dir
from ecmf.errors import DataError, EcmfError, MissingExtra, UsageError
from train.datasets import folder

RECIPES = Path(__file__).parent / "recipes"
RAVDESS = ("ravdess.parquet", "ravdess", "RAVDESS")
EMODB = ("emodb4.parquet", "emodb.parquet", "emodb", "EMO-DB")
MELD = ("meld.parquet", "meld", "MELD")
GOEMOTIONS = ("goemotions.parquet", "goemotions", "GoEmotions")
"""What a corpus may be called below --data: a parquet file, or the folder that its owner ships."""


def face(recipe: Path, out: Path, data: Path, cache: Path) -> Bundle:
    """The expression network of the face branch."""
    module = _part("train.fit_face")
    bundle: Bundle = module.main(recipe, out / "face", data=data, cache=cache, work=out)
    return bundle


def voice(recipe: Path, out: Path, data: Path, cache: Path) -> Bundle:
    """The emotion network of the voice branch."""
    module = _part("train.fit_voice")
    voices = module.VoiceData(*(corpus(data, "speech", names) for names in (RAVDESS, EMODB)), cache=cache)
    bundle: Bundle = module.fit(recipe, voices, out / "voice")
    return bundle


def text(recipe: Path, out: Path, data: Path, cache: Path) -> Bundle:
    """The text branch's encoder."""
    module = _part("train.fit_text")
    from ecmf.weights import fetch
    from ecmf.wordpiece import WordPiece

    meld, goemotions = corpus(data, "text", MELD), corpus(data, "text", GOEMOTIONS)
    chosen = module.read_recipe(recipe)
    lines = module.read_corpus(meld, goemotions)
    minilm, tokenizer = fetch("minilm-fp32") / "model.safetensors", fetch("minilm-tokenizer")
    out.mkdir(parents=True, exist_ok=True)
    model = module.fit(chosen, lines, WordPiece(tokenizer), minilm, out)
    written = module.write(
        model, tokenizer, out / "text", version=chosen.version, recipe=recipe.read_text("utf-8")
    )
    bundle: Bundle = module.calibrated(written, module.read_meld(meld), chosen)
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


def fit(
    recipe: str | None,
    data: Path | None,
    features: Path | None,
    *,
    config: Path | None,
    out: Path | None,
    cache: Path,
    labels: Sequence[str] | None,
) -> Bundle:
    """Do what the command line asks. Raises UsageError for options that do not go together, DataError for bad data."""
    if features is not None:
        if recipe is not None or data is not None:
            raise UsageError(
                "--features goes without --recipe and --data: the features and labels are all there"
            )
        from train import fit_mer

        return fit_mer.main(features, out or Path("runs/mer2025"), cache=cache, config=config, labels=labels)
    if recipe is not None:
        if labels is not None:
            raise UsageError(
                f"--labels goes with --data or --features; the recipe {recipe} has its own labels"
            )
        chosen = config or RECIPES / f"{recipe}.toml"
        if not chosen.is_file():
            raise UsageError(f"no recipe {chosen}; --config names a TOML file like those in {RECIPES}")
        return RECIPE[recipe](chosen, out or Path("runs") / recipe, corpora(data), cache)
    if data is None:
        raise UsageError(
            "say what to train: --recipe NAME, --data DIR or --features DIR; --help explains them"
        )
    from train import fit_folder

    return fit_folder.main(
        data, out or Path("runs") / data.resolve().name, cache=cache, config=config, labels=labels
    )


def corpora(data: Path | None) -> Path:
    """The folder of the corpora: ``data``, else $ECMF_DATA. Raises UsageError when there is none."""
    found = data or (Path(os.environ["ECMF_DATA"]) if os.environ.get("ECMF_DATA") else None)
    if found is None:
        raise UsageError(
            "where is the data? Give --data DIR or set ECMF_DATA to a folder with face/, speech/, text/"
        )
    if not found.is_dir():
        raise UsageError(f"{found} is no folder; give --data DIR with face/, speech/ and text/ in it")
    return found


def corpus(data: Path, kind: str, names: Sequence[str]) -> Path:
    """The first of ``names`` in ``data/kind`` or ``data``. Raises DataError when there is none."""
    for base in (data / kind, data):
        for name in names:
            if (base / name).exists():
                return base / name
    raise DataError(f"{data / kind} holds none of {', '.join(names)}; put the corpus there, or a link to it")


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
    what, _, more = (__doc__ or "").partition("\n")
    made = argparse.ArgumentParser(
        prog="python -m train.fit",
        description=f"{what}\n{more}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument(
        "--recipe", choices=sorted(RECIPE), help="train a model that is shipped, as its recipe says"
    )
    made.add_argument(
        "--data", type=Path, metavar="DIR", help="corpora of a recipe (default: $ECMF_DATA), or clips"
    )
    made.add_argument("--features", type=Path, metavar="DIR", help="MER2025 Track 1: csv, npz and features/")
    made.add_argument(
        "--config", type=Path, metavar="FILE", help="TOML in place of the recipe in train/recipes"
    )
    made.add_argument("--out", type=Path, metavar="DIR", help="bundle and checkpoints (default: runs/NAME)")
    made.add_argument(
        "--cache", type=Path, metavar="DIR", help="extracted features (default: features/ in the cache)"
    )
    made.add_argument(
        "--labels", metavar="A,B,C", help="the label set; any other label is an error (default: as found)"
    )
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    asked = parser().parse_args(arguments)
    logging.basicConfig(
        level=logging.WARNING, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr
    )
    for ours in ("train", "ecmf"):
        logging.getLogger(ours).setLevel(logging.INFO)
    warnings.filterwarnings("ignore", module=r"torch\.onnx")
    try:
        labels = None if asked.labels is None else folder.label_set(asked.labels)
        bundle = fit(
            asked.recipe,
            asked.data,
            asked.features,
            config=asked.config,
            out=asked.out,
            cache=asked.cache or cache_dir() / "features",
            labels=labels,
        )
    except EcmfError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        return 130
    reads = {port.name for port in bundle.manifest.inputs}
    live = f"; try it: ecmf-live --model {bundle.folder}" if "log_probs" in reads else ""
    print(f"{bundle.id} is in {bundle.folder}{live}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
