"""RAVDESS and EMO-DB as their owners ship them, and the takes made of a clip."""

from __future__ import annotations

import importlib
import wave
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from ecmf.errors import DataError
from train import augment_audio, voice_features
from train.datasets.emodb import read_emodb
from train.datasets.prompts import read_prompts
from train.datasets.ravdess import read_ravdess
from train.datasets.speech_clip import Clip
from train.voice_code import code_digest


def tone(path: Path, seconds: float = 0.5, rate: int = 48000) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = (8000 * np.sin(2 * np.pi * 200 * np.arange(int(seconds * rate)) / rate)).astype(np.int16)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(samples.tobytes())
    return path


def test_ravdess_folder(tmp_path: Path) -> None:
    tone(tmp_path / "Actor_12" / "03-01-02-01-01-01-12.wav")
    tone(tmp_path / "Actor_07" / "03-01-08-02-02-01-07.wav")
    tone(tmp_path / "Actor_07" / "03-02-05-02-02-01-07.wav")  # song
    clips = read_ravdess(tmp_path)
    assert [(c.speaker, c.label, c.sex, c.intensity) for c in clips] == [
        ("ravdess-07", "surprise", "M", "strong"),
        ("ravdess-12", "neutral", "F", "normal"),
    ]
    audio = clips[0].audio()
    assert audio.dtype == np.float32 and len(audio) == pytest.approx(8000, abs=64)


def test_emodb_folder(tmp_path: Path) -> None:
    for name in ("03a01Fa", "16b10Td", "08a07La"):
        tone(tmp_path / "wav" / f"{name}.wav", rate=16000)
    clips = read_emodb(tmp_path)
    assert [(c.speaker, c.label, c.sex) for c in clips] == [
        ("emodb-03", "happiness", "M"),
        ("emodb-16", "sadness", "F"),
    ]


def test_parquet_like_the_folder(tmp_path: Path) -> None:
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    sound = tone(tmp_path / "x.wav").read_bytes()
    table = arrow.table({"name": ["03-01-05-02-01-01-24"], "flac": [sound], "label": ["angry"]})
    parquet.write_table(table, tmp_path / "ravdess.parquet")
    (clip,) = read_ravdess(tmp_path / "ravdess.parquet")
    assert (clip.label, clip.speaker, clip.sex) == ("anger", "ravdess-24", "F")
    assert len(clip.audio()) == pytest.approx(8000, abs=64)


@pytest.mark.parametrize("name", ["03-01-09-01-01-01-01", "03-01-05-02-01-24", "03-01-xx-02-01-01-24"])
def test_a_clip_with_an_odd_name_is_named(tmp_path: Path, name: str) -> None:
    tone(tmp_path / f"{name}.wav")
    with pytest.raises(DataError, match=name):
        read_ravdess(tmp_path)


def test_an_empty_folder_says_what_is_expected(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="Actor_01"):
        read_ravdess(tmp_path)
    with pytest.raises(DataError, match="03a01Fa"):
        read_emodb(tmp_path / "nowhere")


def test_a_parquet_file_without_its_column_is_refused(tmp_path: Path) -> None:
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    parquet.write_table(arrow.table({"name": ["03a01Fa"]}), tmp_path / "x.parquet")
    with pytest.raises(DataError, match="lacks the column 'flac'"):
        read_emodb(tmp_path / "x.parquet")


def test_a_broken_recording_is_named() -> None:
    with pytest.raises(DataError, match="clip broken of ravdess-01"):
        Clip("broken", "anger", "ravdess-01", "M", "", b"not sound").audio()


def test_noise_has_the_asked_distance() -> None:
    rng = np.random.default_rng(0)
    audio = (0.1 * np.sin(np.arange(32000) * 0.1)).astype(np.float32)
    noise = augment_audio.add_noise(audio, 10, rng) - audio
    assert 10 * np.log10((audio**2).mean() / (noise**2).mean()) == pytest.approx(10, abs=0.5)


def test_distortion_stays_sound_and_repeats_with_its_seed() -> None:
    pytest.importorskip("scipy")
    pytest.importorskip("soxr")
    audio = (0.3 * np.sin(np.arange(24000) * 0.05)).astype(np.float32)
    for seed in range(25):
        once, again = (augment_audio.distort(audio, np.random.default_rng(seed)) for _ in range(2))
        np.testing.assert_array_equal(once, again)
        assert once.dtype == np.float32 and np.isfinite(once).all() and np.abs(once).max() <= 1.5


def test_prompts_are_neutral_and_capped(tmp_path: Path) -> None:
    for number in range(4):
        tone(tmp_path / "sounds" / "it_IT_m_Carlo" / f"vm-{number}.wav")
    tone(tmp_path / "sounds" / "it_IT_m_Carlo" / "beep.wav", seconds=0.05)  # too short to be a sentence
    clips = read_prompts(tmp_path, per_folder=3)
    assert len(clips) == 3 and {c.name for c in clips} < {f"it_IT-vm-{n}" for n in range(4)}
    assert {(c.label, c.speaker, c.sex) for c in clips} == {("neutral", "prompts-Carlo", "M")}
    with pytest.raises(DataError, match="en_US_f_Allison"):
        read_prompts(tmp_path / "sounds" / "it_IT_m_Carlo")


def test_the_key_of_features_follows_sound_and_order_but_no_comment(
    weight: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weight("silero-vad")
    encoder = SimpleNamespace(name="some", sha256="0" * 64)

    def key(*clips: Clip, seed: int = 0) -> str:
        return voice_features._key(clips, encoder, seed)  # type: ignore[arg-type]

    one = Clip("a", "anger", "ravdess-02", "F", "", b"sound")
    other = replace(one, name="b")
    assert key(one, other) == key(replace(one, label="fear"), other)
    (tmp_path / "sound.wav").write_bytes(b"sound")
    assert key(replace(one, sound=tmp_path / "sound.wav")) == key(one)
    keys = {key(one), key(replace(one, sound=b"louder")), key(one, seed=1), key(one, other), key(other, one)}
    for name in ("WINDOW_S", "BUCKETS_S", "PADDING_S", "RATE"):
        monkeypatch.setattr(voice_features, name, 7)
        keys.add(key(one))
    monkeypatch.setattr(Clip, "audio", lambda clip: np.zeros(1600, np.float32))
    keys.add(key(one))
    assert len(keys) == 10


def test_a_digest_of_code_sees_code_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))

    def digest(name: str, source: str) -> str:
        (tmp_path / f"{name}.py").write_text(source)
        return code_digest(importlib.import_module(name))

    first = digest("digest_one", '"""Two."""\n\n\ndef two() -> int:\n    return 2\n')
    assert digest("digest_two", "def two() -> int:\n    # of them\n    return 2\n") == first
    assert digest("digest_three", '"""Two."""\n\n\ndef two() -> int:\n    return 3\n') != first
