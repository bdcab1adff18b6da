"""Every corpus layout, in small and in its owner's own format, from the files to a head or to features."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ecmf.bundle import SHIPPED, load_bundle
from ecmf.errors import UsageError
from train import features, fit
from train.clip_file import TINY, open_clip
from train.datasets import folder, layouts

RECIPE = 'version = "1"\nsteps = 40\nbatch = 16\n[head]\nwidth = 16\nheads = 2\n'


def speech(source: Path, target: Path, start_s: float, seconds: float = 1.2) -> None:
    """Cut some seconds out of a recording, as 16 kHz wav."""
    import wave

    media = open_clip(source).audio
    first = round(start_s * 16000)
    samples = (media[first : first + round(seconds * 16000)] * 32767).astype(np.int16)
    target.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(target), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16000)
        file.writeframes(samples.tobytes())


def faces(video: Path, at_s: tuple[float, ...]) -> list[np.ndarray]:
    """Grey 48 x 48 cut-outs around the face of the demo video."""
    import cv2

    from ecmf.branches.face import FaceBranch

    found = []
    for t, frame in open_clip(video).frames:
        if not any(abs(t - wanted) < 0.11 for wanted in at_s):
            continue
        people = FaceBranch().process(frame, round(t * 1e9), round(t * 1e9))
        assert people and people[0].bbox is not None
        x, y, w, h = (round(v) for v in people[0].bbox)
        grey = cv2.cvtColor(frame[max(0, y) : y + h, max(0, x) : x + w], cv2.COLOR_BGR2GRAY)
        found.append(cv2.resize(grey, (48, 48), interpolation=cv2.INTER_AREA))
    return found


def fit_on(data: Path, work: Path) -> Any:
    """The bundle that train.fit makes of it."""
    work.mkdir(exist_ok=True)
    (work / "r.toml").write_text(RECIPE)
    where = ["--out", str(work / "out"), "--cache", str(work / "cache"), "--config", str(work / "r.toml")]
    assert fit.main(["--data", str(data), *where]) == 0
    return load_bundle(work / "out" / "model")


def test_meld_lines_train_a_head(tmp_path: Path) -> None:
    columns = ["Sr No.", "Utterance", "Speaker", "Emotion", "Sentiment", "Dialogue_ID", "Utterance_ID"]
    for split in ("train", "dev", "test"):
        with (tmp_path / f"{split}_sent_emo.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(columns)
            for number in range(6):
                text, label = (("I love this!", "joy"), ("I am so sad.", "sadness"))[number % 2]
                writer.writerow([number, f"{text} {number}", "Ross", label, "x", number // 3, number])
    bundle = fit_on(tmp_path, tmp_path / "work")
    assert bundle.manifest.labels == ("happiness", "sadness")
    assert bundle.manifest.training_data[0]["clips"] == {"train": 6, "valid": 6, "test": 6}


@pytest.mark.slow
@pytest.mark.skipif(not (SHIPPED / "voice").is_dir(), reason="no voice bundle is shipped")
@pytest.mark.parametrize("corpus", ["ravdess", "emodb"])
def test_speech_corpora_train_a_head(corpus: str, demo_speech: Path, tmp_path: Path) -> None:
    root = tmp_path / corpus
    for person in range(6):
        for take, (ravdess, emodb) in enumerate((("01", "N"), ("05", "W"))):
            name = (
                f"Actor_{person + 1:02d}/03-01-{ravdess}-01-01-01-{person + 1:02d}.wav"
                if corpus == "ravdess"
                else f"wav/{(3, 8, 9, 10, 11, 12)[person]:02d}a01{emodb}a.wav"
            )
            speech(demo_speech, root / name, 3.0 * person + 1.4 * take)
    assert layouts.kind_of(root) == corpus
    bundle = fit_on(root, tmp_path / "work")
    assert bundle.manifest.labels == ("neutral", "anger")
    people = bundle.manifest.training_data[0]["people"]
    assert [len(people[split]) for split in folder.SPLITS] == [4, 1, 1]
    assert "voice" in bundle.manifest.extra["modalities"]


@pytest.mark.parametrize("numbers", [range(1, 25), range(2, 25)])
def test_men_and_women_of_ravdess_are_in_every_split(numbers: range, tmp_path: Path) -> None:
    """Its actors with odd numbers are men."""
    for actor in numbers:
        for emotion in ("01", "05"):
            file = tmp_path / f"Actor_{actor:02d}" / f"03-01-{emotion}-01-01-01-{actor:02d}.wav"
            file.parent.mkdir(exist_ok=True)
            file.touch()
    listed = layouts.read(tmp_path)
    for split in folder.SPLITS:
        sexes = {int(item.speaker[-2:]) % 2 for item in listed.items if item.split == split}
        assert sexes == {0, 1}, split


@pytest.fixture
def fer(demo_face: Path, tmp_path: Path) -> Path:
    """fer2013.csv and fer2013new.csv of real faces."""
    root = tmp_path / "fer"
    root.mkdir()
    pictures = faces(demo_face, (3.0, 4.0, 5.0, 12.0, 13.0, 14.0))
    assert len(pictures) == 6
    usage = ("Training", "PublicTest", "PrivateTest") * 2
    votes = ["neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt"]
    with (root / "fer2013.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["emotion", "pixels", "Usage"])
        for number, picture in enumerate(pictures):
            writer.writerow([4 if number < 3 else 3, " ".join(map(str, picture.ravel())), usage[number]])
    with (root / "fer2013new.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["Usage", "Image name", *votes, "unknown", "NF"])
        for number in range(6):
            row = [0] * 10
            row[3 if number < 3 else 1] = 10
            writer.writerow([usage[number], f"fer{number:07d}.png", *row])
    return root


@pytest.mark.slow
@pytest.mark.parametrize("whose", ["FER2013", "FER+"])
def test_fer_pictures_train_a_head(whose: str, fer: Path, tmp_path: Path) -> None:
    if whose == "FER2013":
        (fer / "fer2013new.csv").unlink()
    listed = layouts.read(fer)
    assert listed.labels == ("happiness", "sadness") and len(listed.items) == 6
    bundle = fit_on(fer, tmp_path / "work")
    assert bundle.manifest.extra["modalities"] == ["face", "scene"]


@pytest.mark.slow
def test_a_folder_mixes_video_sound_pictures_and_text(
    demo_smile: Path, demo_speech_short: Path, weight: Callable[[str], Path], tmp_path: Path
) -> None:
    import cv2

    data = tmp_path / "mixed"
    data.mkdir()
    shutil.copy(demo_smile, data / "smile.mp4")
    speech(demo_speech_short, data / "talk.wav", 0.5, 2.0)
    frame = open_clip(demo_smile).frames[0][1]
    cv2.imwrite(str(data / "still.png"), frame)
    cv2.imwrite(str(data / "turned.jpg"), frame[:, ::-1])
    (data / "line.txt").write_text("I do not know what to say.")
    (data / "other.txt").write_text("This is wonderful!")
    rows = ["path,label,speaker,split", "smile.mp4,glad,a,train", "other.txt,glad,b,train"]
    rows += [
        "talk.wav,plain,c,train",
        "still.png,plain,d,train",
        "line.txt,plain,e,test",
        "turned.jpg,plain,f,test",
    ]
    (data / folder.TABLE).write_text("\n".join(rows) + "\n")
    bundle = fit_on(data, tmp_path / "work")
    assert bundle.manifest.extra["modalities"] == ["face", "scene", "text", "voice"]


def test_prepared_tables_are_known_by_their_names(tmp_path: Path) -> None:
    for name, kind in (
        ("ravdess.parquet", "ravdess"),
        ("emodb4.parquet", "emodb"),
        ("meld.parquet", "meld"),
        ("ferplus.parquet", "fer"),
        ("muxspace.parquet", "muxspace"),
        ("else.parquet", None),
    ):
        (tmp_path / name).touch()
        assert layouts.kind_of(tmp_path / name) == kind


def test_a_tiny_picture_gets_room_and_a_large_one_stays(tmp_path: Path) -> None:
    import cv2

    picture = np.random.default_rng(0).integers(0, 256, (48, 48), np.uint8)
    encoded = cv2.imencode(".png", picture)[1].tobytes()
    (_, shown) = open_clip(Path("x.png"), encoded).frames[0]
    assert min(shown.shape[:2]) >= 2 * 240 and not shown[0].any()
    large = np.zeros((TINY, TINY + 20, 3), np.uint8)
    cv2.imwrite(str(tmp_path / "large.png"), large)
    assert open_clip(tmp_path / "large.png").frames[0][1].shape == large.shape


def test_bad_fer_rows_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pixels = " ".join(["7"] * 48 * 48)
    for line, expected in (
        (f"9,{pixels},Training", "row 2: emotion '9'"),
        (f"3,{pixels} 1,Training", "row 2: pixels are not 2304 numbers"),
        (f"3,{pixels},Later", "Usage 'Later'"),
    ):
        (tmp_path / "fer2013.csv").write_text(f"emotion,pixels,Usage\n{line}\n")
        assert features.main(["--data", str(tmp_path), "--cache", str(tmp_path / "cache")]) == 2
        assert expected in capsys.readouterr().err


def test_an_unknown_layout_and_foreign_labels_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no other known layout"):
        layouts.read(tmp_path)
    (tmp_path / "train_sent_emo.csv").write_text(
        "Utterance,Speaker,Emotion,Dialogue_ID,Utterance_ID\nHi,R,joy,0,0\n"
    )
    for split in ("dev", "test"):
        (tmp_path / f"{split}_sent_emo.csv").write_text(
            "Utterance,Speaker,Emotion,Dialogue_ID,Utterance_ID\n"
        )
    with pytest.raises(UsageError, match="the corpus has happiness"):
        layouts.read(tmp_path, ("good", "bad"))
