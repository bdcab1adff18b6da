"""Train the voice branch: `python -m train.fit --recipe voice --data DIR`.

DIR/speech holds ravdess.parquet, emodb4.parquet (or the owners' folders ravdess and emodb) and the folder prompts. What
lies elsewhere: `python -m train.fit_voice --ravdess PATH --emodb PATH --prompts DIR --out DIR`.

Features of every take and trained members are cached, so a stopped run goes on where it was. Calibrated out of fold on
the training speakers; the held-out speakers of the recipe are never touched.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ecmf.bundle import Bundle
from ecmf.errors import DataError, need
from ecmf.labels import EKMAN
from ecmf.speech import SpeechEncoder
from train import command
from train.evaluate_voice import VoiceData, add_corpora, corpora_of, evaluate, load_corpora
from train.export_voice import export, golden_inputs, with_measures
from train.scores import softmax
from train.voice_card import card
from train.voice_recipe import RECIPE, Recipe, read_recipe
from train.voice_samples import Corpus, average_of, folds
from train.voice_scores import scores, temperature_of
from train.voice_sessions import in_sessions
from train.voice_training import predict, train

log = logging.getLogger("train.fit_voice")
GOLDEN_WEIGHT, GOLDEN_FROM_S, GOLDEN_TO_S = "demo-speech-short", 1.0, 4.2


def calibrate(
    corpora: list[Corpus], rows: list[NDArray[np.intp]], recipe: Recipe, work: Path
) -> tuple[float, dict[str, Any]]:
    """Temperature from a quarter of RAVDESS's training speakers, judged by a network that never heard them.

    Clean, cut and distorted, alone and in sessions.
    """
    ravdess = corpora[0]
    apart = folds(ravdess.speakers[rows[0]], 4) == 0
    chosen, tested = [rows[0][~apart], *rows[1:]], rows[0][apart]
    network = train(corpora, chosen, recipe, work)
    alone = [predict(network, take, tested) for take in ravdess.takes[:3]]
    speakers = ravdess.speakers[tested]
    average = average_of(corpora, chosen)
    sessions = in_sessions(network.answer, average, ravdess.takes[0].of(tested), speakers, 1.0)
    logits = np.concatenate([*alone, sessions])
    labels = np.tile(ravdess.labels[tested], len(alone) + 1)
    temperature = temperature_of(logits, labels)
    return temperature, scores(labels, softmax(logits / temperature), range(len(EKMAN)))


def fit(recipe_path: Path, data: VoiceData, out: Path) -> Bundle:
    """Features, training, calibration, bundle, and the measures of the held-out speakers inside it."""
    torch.set_num_threads(1)
    recipe = read_recipe(recipe_path)
    corpora = load_corpora(recipe, data, ordinary=recipe.hears_prompts)
    speakers = {speaker for corpus in corpora for speaker in corpus.speakers.tolist()}
    if unknown := set(recipe.held_out) - speakers:
        raise DataError(f"{recipe_path}: held-out speaker {sorted(unknown)[0]!r} is in no corpus")
    rows = [np.flatnonzero(~np.isin(corpus.speakers, recipe.held_out)) for corpus in corpora]
    work = data.cache / "members"
    network = train(corpora, rows, recipe, work)
    temperature, calibration = calibrate(corpora, rows, recipe, work)
    log.info("temperature %.3f, out of fold UAR %.3f", temperature, calibration["uar"])
    encoder = SpeechEncoder(recipe.encoder)
    bundle = export(
        network,
        out,
        encoder=encoder,
        version=recipe.version,
        temperature=temperature,
        trained=sorted(speakers - set(recipe.held_out)),
        held_out=sorted(recipe.held_out),
        golden=golden_inputs(_golden_audio(), encoder),
        golden_from={"weight": GOLDEN_WEIGHT, "from_s": GOLDEN_FROM_S, "to_s": GOLDEN_TO_S},
        recipe=recipe_path.read_text("utf-8"),
        average=average_of(corpora, rows),
    )
    measured = {
        "calibration": calibration,
        "held_out": evaluate(bundle, data),
        "refit": evaluate(bundle, data, refit=True),
    }
    return with_measures(bundle, measured, card(measured, recipe))


def _golden_audio() -> NDArray[np.float32]:
    from ecmf.weights import fetch
    from train.datasets.speech_clip import Clip

    need("av", "live")
    audio = Clip(GOLDEN_WEIGHT, "", "demo", "", "", fetch(GOLDEN_WEIGHT)).audio()
    return audio[int(GOLDEN_FROM_S * 16000) : int(GOLDEN_TO_S * 16000)]


def parser() -> argparse.ArgumentParser:
    made = command.parser("fit_voice", __doc__)
    add_corpora(made)
    made.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the bundle")
    made.add_argument(
        "--recipe",
        type=Path,
        default=RECIPE,
        metavar="FILE",
        help="takes, sizes, rates (default: train/recipes/voice.toml)",
    )
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    asked = parser().parse_args(arguments)

    def work() -> str:
        return fit(asked.recipe, corpora_of(asked), asked.out).id

    return command.carried_out(work)


if __name__ == "__main__":
    raise SystemExit(main())
