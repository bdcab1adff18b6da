"""Corpora below --data: prepared tables or the owners' folders, for the shipped head as for everything else."""

from __future__ import annotations

import csv
import wave
from pathlib import Path

import numpy as np
import pytest

from ecmf.bundle import SHIPPED, load_bundle
from ecmf.errors import DataError
from train import corpora
from train.clip_file import open_clip
from train.pools import Extraction

LINES = {
    "train": (),
    "dev": (("I love this!", "joy"),),
    "test": (("He died.", "sadness"), ("Oh no!", "fear")),
}


def test_the_first_name_that_is_there_is_taken_wherever_it_lies(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"text holds none of meld\.parquet, meld, MELD; put the corpus there"
    ):
        corpora.find(tmp_path, "text", corpora.MELD)
    (tmp_path / "MELD").mkdir()
    assert corpora.find(tmp_path, "text", corpora.MELD) == tmp_path / "MELD"
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "meld.parquet").write_bytes(b"12345")
    assert corpora.find(tmp_path, "text", corpora.MELD) == tmp_path / "text" / "meld.parquet"
    assert corpora.size(tmp_path / "text" / "meld.parquet") == corpora.size(tmp_path) == 5


@pytest.mark.skipif(not (SHIPPED / "voice").is_dir(), reason="no voice bundle is shipped")
def test_the_head_s_cues_come_from_the_owners_folders(demo_speech: Path, tmp_path: Path) -> None:
    meld = tmp_path / "text" / "MELD"
    meld.mkdir(parents=True)
    for split, lines in LINES.items():
        with (meld / f"{split}_sent_emo.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["Utterance", "Speaker", "Emotion", "Dialogue_ID", "Utterance_ID"])
            writer.writerows((text, "Ross", label, 0, n) for n, (text, label) in enumerate(lines))
    held_out = load_bundle(SHIPPED / "voice").manifest.extra["held_out_speakers"]
    ravdess = [name.partition("-")[2] for name in held_out if name.startswith("ravdess-")][:2]
    emodb = [name.partition("-")[2] for name in held_out if name.startswith("emodb-")][:2]
    files = [f"RAVDESS/Actor_{n}/03-01-05-01-01-01-{n}.wav" for n in ("01", *ravdess)]
    files += [f"EMO-DB/wav/{n}a01Na.wav" for n in ("03", *emodb)]
    audio = open_clip(demo_speech).audio
    for number, name in enumerate(files):
        path = tmp_path / "speech" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with wave.open(str(path), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(16000)
            said = audio[number * 48000 :][:32000]
            file.writeframes((said * 32767).astype(np.int16).tobytes())
    extraction = Extraction(tmp_path, tmp_path / "cache")
    texts = extraction.texts()
    assert (len(texts.fit), len(texts.test)) == (1, 2)
    voices = extraction.voices()
    heard = {*voices.fit.group.tolist(), *voices.test.group.tolist()}
    assert heard == {*(f"ravdess-{n}" for n in ravdess), *(f"emodb-{n}" for n in emodb)}

    with (meld / "dev_sent_emo.csv").open("a", newline="", encoding="utf-8") as file:
        csv.writer(file).writerow(["We won!", "Ross", "joy", 0, 5])
    assert len(extraction.texts().fit) == 2  # a folder that changed is not mistaken for what it was
