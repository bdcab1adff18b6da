"""How well the voice is read: `python -m train.evaluate_voice --ravdess PATH --emodb PATH [--refit] [--json]`.

A bundle as it is, on the speakers that it never heard (named in its manifest), or, with --refit, the recipe trained
anew: six actor-disjoint folds of RAVDESS, and RAVDESS alone tested on EMO-DB's four classes.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecmf.branches.voice import AVERAGE
from ecmf.bundle import SHIPPED, Bundle, load_bundle
from ecmf.engines.choose import cache_dir, open_engine
from ecmf.errors import DataError
from ecmf.labels import EKMAN
from ecmf.speech import SpeechEncoder
from train import command
from train.datasets.emodb import read_emodb
from train.datasets.prompts import read_prompts
from train.datasets.ravdess import read_ravdess
from train.datasets.speech_clip import Clip
from train.scores import softmax
from train.voice_features import Features, Take, extract
from train.voice_recipe import Recipe, read_recipe
from train.voice_samples import Corpus, average_of, folds
from train.voice_scores import neutrality, scores, uar, with_sexes
from train.voice_sessions import demo_reading, in_sessions
from train.voice_training import predict, train

log = logging.getLogger("train.evaluate_voice")

WINDOWS = ("window-1-0", "window-2-0", "window-3-0")
CONDITIONS = (
    *("noise-20", "noise-10", "noise-5", "noise-0"),
    *("room-0.3", "room-0.8", "telephone", "gain--20", "dropout"),
)


@dataclass(frozen=True)
class VoiceData:
    """Where the corpora lie, and where features are kept."""

    ravdess: Path
    emodb: Path
    prompts: Path | None = None
    """Ordinary speech; None: the folder `prompts` beside RAVDESS, where there is one."""
    cache: Path = dataclasses.field(default_factory=lambda: cache_dir() / "features")

    @property
    def ordinary(self) -> Path | None:
        """Where ordinary speech lies, if anywhere."""
        beside = self.ravdess.parent / "prompts"
        return self.prompts or (beside if beside.is_dir() else None)


def load_corpora(recipe: Recipe, data: VoiceData, *, ordinary: bool) -> list[Corpus]:
    """RAVDESS, EMO-DB and, if ``ordinary``, ordinary speech, with the features of all the recipe's takes.

    Raises DataError for a corpus that cannot be read, or when ordinary speech is wanted and not there.
    """
    sources = [(read_ravdess(data.ravdess), False), (read_emodb(data.emodb), False)]
    if ordinary:
        if data.ordinary is None:
            raise DataError(
                f"{data.ravdess.parent} holds no prompts, the ordinary speech that the recipe holds a voice of back; "
                "put the folder (or a link) there, or leave prompts- speakers out of held_out in a recipe of your own"
            )
        sources.append((read_prompts(data.ordinary), True))
    encoder = SpeechEncoder(recipe.encoder)
    takes = [Take(name) for name in ("clean", *recipe.takes)]
    return [
        Corpus(clips, [extract(clips, take, encoder, data.cache) for take in takes], complete)
        for clips, complete in sources
    ]


def bundle_logits(bundle: Bundle, features: Features) -> NDArray[np.float32]:
    """The bundle's own answers, float32[clips, labels], run by the engine that live use takes."""
    engine = open_engine(bundle)
    out = np.zeros((len(features), len(bundle.manifest.labels)), np.float32)
    for row, (states, mask) in enumerate(zip(features.states, features.masks, strict=True)):
        if len(mask):
            inputs = {
                "states": states[None].astype(np.float32),
                "mask": mask[None],
                "prosody": features.prosody[[row]],
            }
            out[row] = engine.run(inputs)["logits"][0]
    return out


def held_out(clips: Sequence[Clip], bundle: Bundle) -> list[Clip]:
    """Clips of the speakers that the bundle never heard. Raises DataError when its manifest does not separate them."""
    kept = set(bundle.manifest.extra["held_out_speakers"])
    heard = set(bundle.manifest.extra["trained_speakers"])
    if kept & heard:
        raise DataError(f"{bundle.id}: {sorted(kept & heard)} are said to be both trained on and held out")
    return [clip for clip in clips if clip.speaker in kept]


def truth_of(clips: Sequence[Clip]) -> NDArray[np.int64]:
    return np.array([EKMAN.index(clip.label) for clip in clips])


def evaluate(bundle: Bundle, data: VoiceData, refit: bool = False) -> dict[str, Any]:
    """The table of the voice branch. Slow: it encodes what is not cached, and trains with ``refit``.

    Raises DataError for a corpus that cannot be read or holds no held-out speaker.
    """
    return _refitted(bundle, data) if refit else _as_it_is(bundle, data)


def _as_it_is(bundle: Bundle, data: VoiceData) -> dict[str, Any]:
    encoder = SpeechEncoder(str(bundle.manifest.extra["encoder"]["name"]))
    temperature = float(bundle.manifest.extra["temperature"])

    def probs(clips: Sequence[Clip], take: str) -> NDArray[np.float64]:
        return softmax(bundle_logits(bundle, extract(clips, Take(take), encoder, data.cache)) / temperature)

    clips = held_out(read_ravdess(data.ravdess), bundle)
    truth, clean = truth_of(clips), probs(clips, "clean")
    table: dict[str, Any] = {"bundle": bundle.id, "ravdess": with_sexes(clips, truth, clean)}
    if (average := average_state(bundle)) is not None:
        speakers = np.array([clip.speaker for clip in clips])
        features = extract(clips, Take("clean"), encoder, data.cache)
        engine = open_engine(bundle)

        def answer(
            states: NDArray[np.float32], mask: NDArray[np.float32], prosody: NDArray[np.float32]
        ) -> NDArray[np.float32]:
            inputs = {"states": states[None], "mask": mask[None], "prosody": prosody[None]}
            return engine.run(inputs)["logits"][0]

        logits = in_sessions(answer, average, features, speakers, temperature)
        table["ravdess_in_sessions"] = with_sexes(clips, truth, softmax(logits / temperature))
    table["windows"] = of_whole(
        table["ravdess"]["uar"], truth, {take: probs(clips, take) for take in WINDOWS}
    )
    table["conditions"] = {take: round(uar(truth, probs(clips, take).argmax(1)), 4) for take in CONDITIONS}
    german = held_out(read_emodb(data.emodb), bundle)
    if german:
        truth = truth_of(german)
        table["emodb"] = scores(truth, probs(german, "clean"), np.unique(truth).tolist())
    if data.ordinary is not None and (ordinary := held_out(read_prompts(data.ordinary), bundle)):
        table["ordinary_speech"] = neutrality(probs(ordinary, "clean"))
    table["demo_reading"] = neutrality(demo_reading(bundle, encoder))
    table["demo_reading_in_sessions"] = neutrality(demo_reading(bundle, encoder, sessions=True))
    return table


def of_whole(
    whole: float, truth: NDArray[np.int64], answers: Mapping[str, NDArray[np.floating]]
) -> dict[str, dict[str, float]]:
    """Per length in seconds: the UAR when clips are cut to it, and its share of the whole clips' UAR."""
    table = {}
    for take, answer in answers.items():
        value = uar(truth, answer.argmax(1))
        table[take.split("-")[1]] = {"uar": round(value, 4), "of_whole": round(value / whole, 4)}
    return table


def average_state(bundle: Bundle) -> NDArray[np.float32] | None:
    """Where sessions start from, float32[layers, d]; None for a bundle that was not trained with sessions."""
    if AVERAGE not in bundle.manifest.files:
        return None
    average: NDArray[np.float32] = np.load(bundle.folder / AVERAGE, allow_pickle=False)
    return average


def _refitted(bundle: Bundle, data: VoiceData) -> dict[str, Any]:
    """Six actor-disjoint folds and RAVDESS to EMO-DB. Trained members are kept: a stopped run goes on."""
    recipe = read_recipe(bundle.folder / "recipe.toml")
    work, temperature = data.cache / "members", float(bundle.manifest.extra["temperature"])
    ravdess, emodb = load_corpora(recipe, data, ordinary=False)
    encoder = SpeechEncoder(recipe.encoder)
    cut = {take: extract(ravdess.clips, Take(take), encoder, data.cache) for take in WINDOWS}
    truth, parts, clean = ravdess.labels, folds(ravdess.speakers), ravdess.takes[0]
    alone, sessions = (np.zeros((len(truth), len(EKMAN)), np.float32) for _ in range(2))
    short = {take: np.zeros_like(alone) for take in cut}
    for fold in np.unique(parts):
        fitted, tested = np.flatnonzero(parts != fold), np.flatnonzero(parts == fold)
        network = train([ravdess], [fitted], recipe, work)
        alone[tested] = predict(network, clean, tested)
        for take, features in cut.items():
            short[take][tested] = predict(network, features, tested)
        average = average_of([ravdess], [fitted])
        sessions[tested] = in_sessions(
            network.answer, average, clean.of(tested), ravdess.speakers[tested], temperature
        )
        found = (uar(truth[tested], logits[tested].argmax(1)) for logits in (alone, sessions))
        log.info("fold %d: UAR %.3f, in sessions %.3f", fold, *found)
    everyone, german = np.arange(len(truth)), np.unique(emodb.labels).tolist()
    network = train([ravdess], [everyone], recipe, work)
    logits = predict(network, emodb.takes[0], np.arange(len(emodb.clips)))
    in_turn = in_sessions(
        network.answer, average_of([ravdess], [everyone]), emodb.takes[0], emodb.speakers, temperature
    )
    return {
        "recipe": bundle.id,
        "ravdess_six_folds": with_sexes(ravdess.clips, truth, softmax(alone / temperature)),
        "ravdess_six_folds_windows": of_whole(uar(truth, alone.argmax(1)), truth, short),
        "ravdess_six_folds_in_sessions": with_sexes(ravdess.clips, truth, softmax(sessions / temperature)),
        "ravdess_to_emodb": scores(emodb.labels, softmax(logits / temperature), german),
        "ravdess_to_emodb_in_sessions": scores(emodb.labels, softmax(in_turn / temperature), german),
    }


def add_corpora(made: argparse.ArgumentParser) -> None:
    """The options that ``corpora_of`` reads."""
    made.add_argument(
        "--ravdess", type=Path, required=True, metavar="PATH", help="folder with Actor_01 … or parquet file"
    )
    made.add_argument(
        "--emodb", type=Path, required=True, metavar="PATH", help="folder with wav/ or parquet file"
    )
    made.add_argument(
        "--prompts",
        type=Path,
        metavar="DIR",
        help="Asterisk's prompts, ordinary speech (default: prompts/ beside RAVDESS)",
    )
    command.add(made, "--cache")


def corpora_of(asked: argparse.Namespace) -> VoiceData:
    """Where the command line says that the corpora lie."""
    data = VoiceData(asked.ravdess, asked.emodb, asked.prompts)
    return dataclasses.replace(data, cache=asked.cache) if asked.cache else data


def parser() -> argparse.ArgumentParser:
    made = command.parser("evaluate_voice", __doc__)
    add_corpora(made)
    made.add_argument(
        "--bundle",
        type=Path,
        default=SHIPPED / "voice",
        metavar="DIR",
        help="what is measured (default: the shipped one)",
    )
    made.add_argument("--refit", action="store_true", help="train anew: folds and cross-corpus")
    made.add_argument("--json", action="store_true", help="one line of JSON instead of indented")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    asked = parser().parse_args(arguments)

    def work() -> str:
        table = evaluate(load_bundle(asked.bundle), corpora_of(asked), asked.refit)
        return json.dumps(table, indent=None if asked.json else 1)

    return command.carried_out(work)


if __name__ == "__main__":
    raise SystemExit(main())
