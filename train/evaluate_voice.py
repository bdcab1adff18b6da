"""How well the voice is read: `python -m train.evaluate_voice --ravdess PATH --emodb PATH [--refit] [--json]`.

A bundle as it is, on the speakers that it never heard (named in its manifest), or, with --refit, the recipe trained
anew: six actor-disjoint folds of RAVDESS, and RAVDESS alone tested on EMO-DB's four classes.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecmf.branches.voice import AVERAGE, WINDOW_S, VoiceBranch, VoiceSession
from ecmf.bundle import SHIPPED, Bundle, load_bundle
from ecmf.engines.choose import cache_dir, open_engine
from ecmf.errors import DataError, EcmfError
from ecmf.labels import EKMAN
from ecmf.speech import SpeechEncoder
from ecmf.vad import BLOCK, SpeechDetector
from ecmf.weights import fetch
from train.datasets.emodb import read_emodb
from train.datasets.prompts import read_prompts
from train.datasets.ravdess import read_ravdess
from train.datasets.speech_clip import Clip
from train.voice_features import Features, Take, extract

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
    """Ordinary speech; optional."""
    cache: Path = dataclasses.field(default_factory=lambda: cache_dir() / "voice-features")


def scores(truth: NDArray[np.int64], probs: NDArray[np.floating], labels: Sequence[int]) -> dict[str, Any]:
    """Accuracy, UAR with a 95 % bootstrap interval, weighted F1, recall per label, confusion, calibration error.

    ``truth`` int64[n] and ``probs`` float[n, 7] in EKMAN's order; only ``labels`` can be chosen.
    """
    from sklearn.metrics import confusion_matrix, f1_score

    if not len(truth):
        raise DataError("there is nothing to evaluate: no clip of those speakers")
    allowed = probs[:, list(labels)] / np.maximum(probs[:, list(labels)].sum(1, keepdims=True), 1e-12)
    guess = np.array(labels)[allowed.argmax(1)]
    rng = np.random.default_rng(0)
    draws = [uar(truth[rows], guess[rows]) for rows in rng.integers(0, len(truth), (1000, len(truth)))]
    low, high = np.percentile(draws, (2.5, 97.5))
    return {
        "clips": len(truth),
        "uar": round(uar(truth, guess), 4),
        "uar_interval": [round(float(low), 4), round(float(high), 4)],
        "accuracy": round(float((truth == guess).mean()), 4),
        "weighted_f1": round(float(f1_score(truth, guess, average="weighted")), 4),
        "calibration_error": round(calibration_error(truth == guess, allowed.max(1)), 4),
        "recall": {
            EKMAN[k]: round(float((guess[truth == k] == k).mean()), 4) for k in labels if (truth == k).any()
        },
        "confusion": confusion_matrix(truth, guess, labels=list(labels)).tolist(),
    }


def uar(truth: NDArray[np.int64], guess: NDArray[np.int64]) -> float:
    """Unweighted average recall over the labels that occur."""
    return float(np.mean([(guess[truth == k] == k).mean() for k in np.unique(truth)]))


def calibration_error(right: NDArray[np.bool_], confidence: NDArray[np.floating], bins: int = 15) -> float:
    """Expected calibration error over equally wide bins (Naeini et al. 2015)."""
    index = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = [
        abs(right[index == b].mean() - confidence[index == b].mean()) * (index == b).mean()
        for b in set(index)
    ]
    return float(sum(gaps))


def softmax(logits: NDArray[np.floating], temperature: float = 1.0) -> NDArray[np.float64]:
    scaled = logits.astype(np.float64) / temperature
    powers = np.exp(scaled - scaled.max(1, keepdims=True))
    out: NDArray[np.float64] = powers / powers.sum(1, keepdims=True)
    return out


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
        return softmax(bundle_logits(bundle, extract(clips, Take(take), encoder, data.cache)), temperature)

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
        table["ravdess_in_sessions"] = with_sexes(clips, truth, softmax(logits, temperature))
    whole = table["ravdess"]["uar"]
    table["windows"] = {}
    for take in WINDOWS:
        value = uar(truth, probs(clips, take).argmax(1))
        table["windows"][take.split("-")[1]] = {"uar": round(value, 4), "of_whole": round(value / whole, 4)}
    table["conditions"] = {take: round(uar(truth, probs(clips, take).argmax(1)), 4) for take in CONDITIONS}
    german = held_out(read_emodb(data.emodb), bundle)
    if german:
        truth = truth_of(german)
        table["emodb"] = scores(truth, probs(german, "clean"), np.unique(truth).tolist())
    if data.prompts is not None:
        ordinary = held_out(read_prompts(data.prompts), bundle)
        table["ordinary_speech"] = _neutrality(probs(ordinary, "clean"))
    table["demo_reading"] = _neutrality(demo_reading(bundle, encoder))
    table["demo_reading_in_sessions"] = _neutrality(demo_reading(bundle, encoder, sessions=True))
    return table


def in_sessions(
    answer: Callable[[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]], NDArray[np.float32]],
    average: NDArray[np.float32],
    features: Features,
    speakers: NDArray[np.str_],
    temperature: float,
    seed: int = 0,
) -> NDArray[np.float32]:
    """Logits float32[clips, labels] when each speaker's clips are heard one after the other, in random order.

    ``answer``: states float32[layers, T, d], mask, prosody -> logits. Each clip is judged with what the session has
    learnt from those before it, by the network's own opinion of how neutral they were; no label is looked at.
    """
    out = np.zeros((len(features), len(EKMAN)), np.float32)
    rng = np.random.default_rng(seed)
    for speaker in sorted(set(speakers.tolist())):
        session = VoiceSession(average)
        for row in rng.permutation(np.flatnonzero(speakers == speaker)):
            states, mask = features.states[row].astype(np.float32), features.masks[row]
            if not len(mask):
                continue
            out[row] = answer(states - session.shift()[:, None], mask, features.prosody[row])
            powers = np.exp((out[row] - out[row].max()) / temperature)
            session.learn(states, mask, float(powers[EKMAN.index("neutral")] / powers.sum()))
    return out


def with_sexes(
    clips: Sequence[Clip], truth: NDArray[np.int64], probs: NDArray[np.floating]
) -> dict[str, Any]:
    """`scores` over all seven labels, and the UAR of women and men apart."""
    sexes = np.array([clip.sex for clip in clips])
    guess = probs.argmax(1)
    by_sex = {
        sex: round(uar(truth[sexes == sex], guess[sexes == sex]), 4) for sex in np.unique(sexes).tolist()
    }
    return {**scores(truth, probs, range(len(EKMAN))), "uar_by_sex": by_sex}


def average_state(bundle: Bundle) -> NDArray[np.float32] | None:
    """Where sessions start from, float32[layers, d]; None for a bundle that was not trained with sessions."""
    if AVERAGE not in bundle.manifest.files:
        return None
    average: NDArray[np.float32] = np.load(bundle.folder / AVERAGE, allow_pickle=False)
    return average


def _neutrality(probs: NDArray[np.floating]) -> dict[str, Any]:
    """How often ordinary speech is called neutral, how surely, and what else it is called."""
    guess = probs.argmax(1)
    return {
        "judged": len(probs),
        "neutral": round(float((guess == EKMAN.index("neutral")).mean()), 4),
        "confidence": round(float(probs.max(1).mean()), 4),
        "called": {EKMAN[k]: int((guess == k).sum()) for k in np.unique(guess).tolist()},
    }


def demo_reading(bundle: Bundle, encoder: SpeechEncoder, sessions: bool = False) -> NDArray[np.float32]:
    """The live branch over the two demo readings, twice a second: float32[n, 7]. Nothing was trained on them.

    ``sessions``: each reading is a session, as it is live.
    """
    detector, branch = SpeechDetector(), VoiceBranch(bundle, encoder=encoder)
    rows = []
    for name in ("demo-speech", "demo-speech-short"):
        audio = Clip(name, "neutral", name, "", "", fetch(name)).audio()
        detector.reset()
        session = branch.session() if sessions else None
        speech = detector.process(audio[: len(audio) // BLOCK * BLOCK])
        for end in range(2 * BLOCK * 16, len(audio), BLOCK * 16):
            begin = max(0, end - round(WINDOW_S * 16000)) // BLOCK * BLOCK
            heard = audio[begin:end]
            judged = speech[begin // BLOCK : end // BLOCK]
            cue = branch.process(
                heard, encoder.encode(heard), judged, 0, end, session=session, new_s=BLOCK * 16 / 16000
            )
            if cue is not None and cue.probs is not None:
                rows.append(cue.probs)
    return np.array(rows)


def _refitted(bundle: Bundle, data: VoiceData) -> dict[str, Any]:
    """Six actor-disjoint folds and RAVDESS to EMO-DB. Trained members are kept: a stopped run goes on."""
    from train.fit_voice import load_corpora
    from train.voice_training import average_of, folds, predict, read_recipe, train

    recipe = read_recipe(bundle.folder / "recipe.toml")
    work, temperature = data.cache / "members", float(bundle.manifest.extra["temperature"])
    ravdess, emodb = load_corpora(recipe, dataclasses.replace(data, prompts=None))
    truth, parts, clean = ravdess.labels, folds(ravdess.speakers), ravdess.takes[0]
    alone, sessions = (np.zeros((len(truth), len(EKMAN)), np.float32) for _ in range(2))
    for fold in np.unique(parts):
        fitted, tested = np.flatnonzero(parts != fold), np.flatnonzero(parts == fold)
        network = train([ravdess], [fitted], recipe, work)
        alone[tested] = predict(network, clean, tested)
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
        "ravdess_six_folds": with_sexes(ravdess.clips, truth, softmax(alone, temperature)),
        "ravdess_six_folds_in_sessions": with_sexes(ravdess.clips, truth, softmax(sessions, temperature)),
        "ravdess_to_emodb": scores(emodb.labels, softmax(logits, temperature), german),
        "ravdess_to_emodb_in_sessions": scores(emodb.labels, softmax(in_turn, temperature), german),
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m train.evaluate_voice", description=__doc__)
    parser.add_argument("--ravdess", type=Path, required=True, help="folder with Actor_01 … or parquet file")
    parser.add_argument("--emodb", type=Path, required=True, help="folder with wav/ or parquet file")
    parser.add_argument("--prompts", type=Path, help="folder of Asterisk prompts, ordinary speech (optional)")
    parser.add_argument("--bundle", type=Path, default=SHIPPED / "voice")
    parser.add_argument("--cache", type=Path, default=None, help="folder for features")
    parser.add_argument("--refit", action="store_true", help="train anew: folds and cross-corpus")
    parser.add_argument("--json", action="store_true", help="JSON on stdout")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    data = VoiceData(options.ravdess, options.emodb, options.prompts)
    if options.cache:
        data = dataclasses.replace(data, cache=options.cache)
    try:
        table = evaluate(load_bundle(options.bundle), data, options.refit)
    except EcmfError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    print(json.dumps(table, indent=None if options.json else 1))


if __name__ == "__main__":
    main()
