"""Training, scores and folds of the voice network, on features whose answer is known."""

from __future__ import annotations

import dataclasses
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("sklearn")

import torch

from ecmf.bundle import SHIPPED, load_bundle
from ecmf.errors import DataError, UsageError
from ecmf.labels import EKMAN
from ecmf.prosody import FEATURES
from train import fit_voice, voice_training
from train.datasets.speech_clip import Clip
from train.evaluate_voice import VoiceData, load_corpora
from train.scores import calibration_error, softmax
from train.voice_card import card
from train.voice_features import Features
from train.voice_recipe import RECIPE, Recipe, read_recipe
from train.voice_samples import Corpus, average_of, folds
from train.voice_scores import scores, temperature_of, uar
from train.voice_sessions import in_sessions
from train.voice_training import predict, train

WIDTH = 8


def tone(path: Path) -> None:
    """Half a second of 200 Hz."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16000)
        file.writeframes((8000 * np.sin(np.arange(8000) * 0.0785)).astype(np.int16).tobytes())


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    small: dict[str, Any] = {
        "states": 12,
        "members": 2,
        "hidden": 16,
        "embedding": 8,
        "dropout": 0.1,  # twelve directions have none to spare
        "epochs": 12,
        "batch": 16,
    }
    return dataclasses.replace(read_recipe(RECIPE), learning_rate=0.01, **small)


def corpus(labels: list[str], seed: int, complete: bool = False, accent: float = 0.0) -> Corpus:
    """Twenty clips a label; its number shows in the speech frames, and another label's in the silent ones.

    ``accent``: how far each speaker's states lie from those of the others.
    """
    rng = np.random.default_rng(seed)
    accents = rng.normal(0, accent, (6, 3, 1, WIDTH))
    states, masks, clips = [], [], []
    for index in range(20 * len(labels)):
        k = EKMAN.index(labels[index % len(labels)])
        length = int(rng.integers(8, 20))
        mask = (np.arange(length) >= length // 2).astype(np.float32)
        signal = rng.normal(0, 0.5, (3, length, WIDTH))
        signal[:, mask > 0, k] += 3
        signal[:, mask == 0, (k + 1) % 7] += 6
        signal += accents[index % 6]
        states.append(signal.astype(np.float16))
        masks.append(mask)
        clips.append(Clip(str(index), EKMAN[k], f"s{index % 6}", "F", "", b""))
    prosody = rng.normal(0, 1, (len(clips), len(FEATURES))).astype(np.float32)
    return Corpus(clips, [Features(states, masks, prosody)], complete)


def test_it_learns_from_the_speech_and_ignores_the_silence(recipe: Recipe) -> None:
    trained, fresh = corpus(list(EKMAN), 0), corpus(list(EKMAN), 1)
    network = train([trained], [np.arange(len(trained.clips))], recipe)
    logits = predict(network, fresh.takes[0], np.arange(len(fresh.clips)))
    assert uar(fresh.labels, logits.argmax(1)) > 0.95


def test_the_same_seed_gives_the_same_network(recipe: Recipe) -> None:
    data = corpus(["neutral", "anger"], 0)
    rows = np.arange(len(data.clips))
    one, other = (predict(train([data], [rows], recipe), data.takes[0], rows) for _ in range(2))
    np.testing.assert_array_equal(one, other)


def test_a_corpus_does_not_teach_that_its_missing_labels_are_rare(recipe: Recipe) -> None:
    """Fear is known from one corpus only; clips of the other, which has none, must not push it down."""
    both = [corpus(["fear", "anger", "neutral"], 0), corpus(["anger", "neutral"], 1)]
    network = train(both, [np.arange(60), np.arange(40)], recipe)
    fresh = corpus(["fear", "anger", "neutral"], 2)
    logits = predict(network, fresh.takes[0], np.arange(60))
    assert uar(fresh.labels, logits.argmax(1)) > 0.9


def test_a_session_learns_the_speaker(recipe: Recipe) -> None:
    """Given speakers farther apart than the labels are, a session's later clips are read better than lone ones."""
    trained, *fresh = (corpus(list(EKMAN), seed, accent=2.0) for seed in range(4))
    rows = np.arange(len(trained.clips))
    network = train([trained], [rows], dataclasses.replace(recipe, cold_share=0.3))
    average = average_of([trained], [rows])
    gains = []
    for people in fresh:
        features, truth = people.takes[0], people.labels
        alone = predict(network, features, rows)
        sessions = in_sessions(network.answer, average, features, people.speakers, 1.0)
        gains.append(uar(truth, sessions.argmax(1)) - uar(truth, alone.argmax(1)))
    assert np.mean(gains) > 0.02


def test_members_are_taken_from_a_stopped_run(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, rows = corpus(["neutral", "anger"], 0), np.arange(40)
    short = dataclasses.replace(recipe, epochs=1)
    first = predict(train([data], [rows], short, tmp_path), data.takes[0], rows)
    kept = {file.name: file.stat().st_mtime_ns for file in tmp_path.iterdir()}
    again = predict(train([data], [rows], short, tmp_path), data.takes[0], rows)
    np.testing.assert_array_equal(first, again)
    assert {file.name: file.stat().st_mtime_ns for file in tmp_path.iterdir()} == kept and len(kept) == 2
    train([data], [rows[:30]], short, tmp_path)
    assert len(list(tmp_path.iterdir())) == 4  # other samples, other members
    train([dataclasses.replace(data, complete=True)], [rows], short, tmp_path)
    assert len(list(tmp_path.iterdir())) == 6  # other answers possible
    swapped = [dataclasses.replace(clip, speaker=f"s{i % 5}") for i, clip in enumerate(data.clips)]
    train([dataclasses.replace(data, clips=swapped)], [rows], short, tmp_path)
    assert len(list(tmp_path.iterdir())) == 8  # other speakers, other histories
    train([data], [rows], dataclasses.replace(short, version="next", held_out=("s9",)), tmp_path)
    assert len(list(tmp_path.iterdir())) == 8  # neither changes a weight
    monkeypatch.setattr(voice_training, "SESSION_PRIOR_S", 5.0)
    train([data], [rows], short, tmp_path)
    assert len(list(tmp_path.iterdir())) == 10  # other histories


@pytest.mark.parametrize("distorted", [0, 1, 3])
def test_the_temperature_takes_as_many_distorted_copies_as_there_are(
    distorted: int, recipe: Recipe, tmp_path: Path
) -> None:
    data, rows = corpus(list(EKMAN), 0), np.arange(140)
    takes = dataclasses.replace(data, takes=list(data.takes) * (1 + distorted))
    temperature, measured = fit_voice.calibrate(
        [takes], [rows], dataclasses.replace(recipe, epochs=1), tmp_path
    )
    apart = int((folds(data.speakers, 4) == 0).sum())
    assert temperature > 0
    assert measured["clips"] == apart * (min(1 + distorted, 3) + 1)


def test_the_card_is_of_the_measures_and_needs_no_german_speaker() -> None:
    bundle = load_bundle(SHIPPED / "voice")
    shipped = (bundle.folder / "README.md").read_text("utf-8")
    chosen, measured = read_recipe(bundle.folder / "recipe.toml"), dict(bundle.manifest.metrics)
    assert card(measured, chosen) == shipped
    measured["held_out"] = {k: v for k, v in measured["held_out"].items() if k != "emodb"}
    less = card(measured, chosen)
    assert "clips of two speakers" in shipped and "clips of two speakers" not in less


def test_a_layer_that_is_left_out_changes_nothing(recipe: Recipe) -> None:
    data, rows = corpus(["neutral", "anger"], 0), np.arange(40)
    network = train([data], [rows], dataclasses.replace(recipe, epochs=1, layers=(2, 3)))
    states, mask = data.takes[0].states[0].astype(np.float32), data.takes[0].masks[0]
    changed = states.copy()
    changed[2] += 5
    np.testing.assert_array_equal(
        network.answer(states, mask, data.takes[0].prosody[0]),
        network.answer(changed, mask, data.takes[0].prosody[0]),
    )


def test_silence_alone_is_no_opinion(recipe: Recipe) -> None:
    data = corpus(["neutral", "anger"], 0)
    network = train([data], [np.arange(40)], dataclasses.replace(recipe, epochs=1))
    silent = Features(
        [data.takes[0].states[0]], [np.zeros_like(data.takes[0].masks[0])], data.takes[0].prosody[:1]
    )
    assert not predict(network, silent, np.arange(1)).any()


def test_the_reduction_does_not_change_what_the_exported_network_says(recipe: Recipe) -> None:
    """`predict` drops silent frames before the members; the bundle takes them masked."""
    data = corpus(["neutral", "anger"], 0)
    network = train([data], [np.arange(40)], recipe)
    features = data.takes[0]
    with torch.no_grad():
        whole = network(
            torch.from_numpy(features.states[0].astype(np.float32))[None],
            torch.from_numpy(features.masks[0])[None],
            torch.from_numpy(features.prosody[:1]),
        )[1].numpy()
    np.testing.assert_allclose(predict(network, features, np.arange(1)), whole, atol=0.02)


def test_folds_keep_speakers_whole() -> None:
    speakers = np.array([f"ravdess-{n:02d}" for n in range(2, 25) for _ in range(3)])
    parts = folds(speakers)
    assert set(parts.tolist()) == set(range(6))
    assert all(len(set(parts[speakers == s].tolist())) == 1 for s in set(speakers.tolist()))


def test_temperature_undoes_overconfidence() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 1.5, (4000, 7)).astype(np.float32)
    truth = np.array([rng.choice(7, p=p) for p in softmax(logits)])
    assert temperature_of(3 * logits, truth) == pytest.approx(3, rel=0.1)
    sure = softmax(3 * logits)
    assert calibration_error(sure, truth) > 0.1
    right = softmax(3 * logits / 3)
    assert calibration_error(right, truth) < 0.05


def test_scores_of_a_subset_of_labels() -> None:
    truth = np.array([0, 0, 1, 1])
    probs = np.zeros((4, 7))
    probs[:, 5] = 0.9  # not among the corpus's labels
    probs[[0, 2, 3], [0, 1, 1]] = 0.05
    probs[1, 1] = 0.05
    table = scores(truth, probs, [0, 1])
    assert table["uar"] == 0.75 and table["recall"] == {"neutral": 0.5, "happiness": 1.0}


def test_a_recipe_that_holds_a_prompts_voice_back_wants_prompts(recipe: Recipe, tmp_path: Path) -> None:
    tone(tmp_path / "ravdess" / "03-01-05-01-01-01-02.wav")
    tone(tmp_path / "emodb" / "wav" / "03a01Fa.wav")
    data = VoiceData(tmp_path / "ravdess", tmp_path / "emodb", cache=tmp_path / "cache")
    assert recipe.hears_prompts and data.ordinary is None
    with pytest.raises(DataError, match=f"{tmp_path} holds no prompts"):
        load_corpora(recipe, data, ordinary=recipe.hears_prompts)
    (tmp_path / "prompts").mkdir()
    assert data.ordinary == tmp_path / "prompts"
    assert not dataclasses.replace(recipe, held_out=("ravdess-21",)).hears_prompts


def test_an_unknown_key_in_a_recipe_is_named(tmp_path: Path) -> None:
    path = tmp_path / "voice.toml"
    path.write_text(RECIPE.read_text() + "\nspeed = 3\n")
    with pytest.raises(UsageError, match="unknown key 'speed'"):
        read_recipe(path)
