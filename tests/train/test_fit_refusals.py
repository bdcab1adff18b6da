"""Options that do not fit and bad data: one line, which names file and row, exit code 2, and nothing half written."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ecmf.labels import MER
from train import clip_store, fit
from train.datasets import folder, mer2025

ROWS = (
    "a.txt,glad,anna,train", "b.txt,grim,bert,train", "c.txt,glad,cleo,train", "d.txt,grim,dora,valid",
    "e.txt,glad,emil,test",
)  # fmt: skip
TEXTS = {"a": "I love this.", "b": "He died.", "c": "We won!", "d": "I am sad.", "e": "Wonderful!"}


def replaced(old: str, new: str) -> Callable[[Path], None]:
    def spoil(root: Path) -> None:
        table = root / folder.TABLE
        assert old in table.read_text()
        table.write_text(table.read_text().replace(old, new))

    return spoil


def damaged(name: str, content: bytes) -> Callable[[Path], None]:
    def spoil(root: Path) -> None:
        (root / "b.txt").unlink()
        (root / name).write_bytes(content)
        replaced("b.txt", name)(root)

    return spoil


def complaint(capsys: pytest.CaptureFixture[str]) -> str:
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert message.startswith("error: ")
    return message


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((), "say what to train"),
        (("--recipe", "face"), "where is the data"),
        (("--recipe", "face", "--data", "/nonexistent"), "is no folder"),
        (("--data", "."), "holds no labels.csv"),
        (("--features", ".", "--recipe", "face"), "goes without --recipe"),
        (("--features", "."), "neither track1_train_disdim.csv nor"),
        (("--recipe", "text", "--data", "."), "holds none of meld.parquet"),
        (("--recipe", "face", "--data", ".", "--labels", "a,b"), "has its own labels"),
        (("--data", ".", "--labels", "a"), "at least two different names"),
        (("--recipe", "face", "--data", ".", "--config", "none.toml"), "no recipe none.toml"),
        (
            ("--recipe", "face", "--data", ".", "--processes", "2"),
            "--processes goes with --data or --features",
        ),
    ],
)
def test_options(
    arguments: tuple[str, ...],
    expected: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ECMF_DATA", raising=False)
    assert fit.main(list(arguments)) == 2
    assert expected in complaint(capsys)


@pytest.mark.parametrize(
    ("spoil", "more", "expected"),
    [
        (damaged("b.mp4", b"no video" * 99), (), "labels.csv, row 3 (b.mp4): unreadable clip: b.mp4 cannot be"),
        (damaged("b.png", b"\x89PNG"), (), "labels.csv, row 3 (b.png): unreadable clip: b.png cannot be"),
        (damaged("b.wav", b"RIFF"), (), "labels.csv, row 3 (b.wav): unreadable clip"),
        (damaged("b.txt", b""), (), "labels.csv, row 3 (b.txt): unreadable clip: b.txt is empty"),
        (damaged("b.txt", b"\xff\xfe\xfa"), (), "labels.csv, row 3 (b.txt): unreadable clip: b.txt is not UTF-8"),
        (replaced("bert", "emil"), (), "row 6 (e.txt): speaker 'emil' is in test here and in train in row 3"),
        (replaced("a.txt", "z.txt"), (), "labels.csv, row 2:"),
        (replaced("b.txt,grim", "b.txt,glad"), (), "no clip in train is labelled 'grim'"),
        (replaced("b.txt,grim", "b.txt,odd"), ("--labels", "glad,grim"), "row 3: unknown label 'odd'"),
        (replaced("b.txt,grim", "b.txt,"), (), "row 3: no label"),
        (replaced("path,label", "path,name"), (), "row 1: no column 'label'"),
        (replaced("b.txt,grim", "b.txt,,grim"), (), "row 3: more values than the 4 columns"),
    ],
)  # fmt: skip
def test_clips(
    spoil: Callable[[Path], None],
    more: tuple[str, ...],
    expected: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    root = tmp_path / "clips"
    root.mkdir()
    for name, text in TEXTS.items():
        (root / f"{name}.txt").write_text(text)
    (root / folder.TABLE).write_text("\n".join(["path,label,speaker,split", *ROWS]) + "\n")
    spoil(root)
    refused(["--data", str(root), *more], expected, tmp_path, capsys)


def test_features_of_a_clip_that_are_not_finite(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "clips"
    root.mkdir()
    for name, text in TEXTS.items():
        (root / f"{name}.txt").write_text(text)
    (root / folder.TABLE).write_text("\n".join(["path,label,speaker,split", *ROWS]) + "\n")
    read = clip_store.clip_cues.ClipReader.read

    def broken(reader: object, path: Path, content: object = None) -> object:
        moments = read(reader, path, content)  # type: ignore[arg-type]
        if path.name == "c.txt":
            moments[0]["text"].embedding[0] = np.nan
        return moments

    monkeypatch.setattr(clip_store.clip_cues.ClipReader, "read", broken)
    refused(["--data", str(root)], "row 4 (c.txt): text features are not finite", tmp_path, capsys)


def refused(arguments: list[str], expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert fit.main([*arguments, "--out", str(out), "--cache", str(tmp_path / "cache")]) == 2
    assert expected in complaint(capsys)
    assert not out.exists()
    assert not list((tmp_path / "cache").glob("**/.*.npz"))


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("s000003,sad", "s000003,odd", "track1_train_disdim.csv, row 5 (s000003): unknown label 'odd'"),
        ("s000003,sad", "s000002,sad", "row 5: clip s000002 is listed twice"),
        ("surprise", "sad", "no clip is labelled 'surprise'"),
        ("name,discrete", "name,emotion", "row 1: no column 'discrete'"),
        ("s000003,sad", "s999999,sad", "no feature has clip s999999"),
        ("NaN", "", "s000004.npy (clip s000004) is not finite"),
        ("half", "", "s000004.npy cannot be read"),
        ("short", "", "s000004.npy has 3 numbers, the files before it have 8"),
    ],
)
def test_mer_features(
    old: str, new: str, expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "mer"
    place = root / mer2025.FEATURES / f"chinese-hubert-large{mer2025.SUFFIX}"
    place.mkdir(parents=True)
    names = [f"s{n:06d}" for n in range(12)]
    with (root / mer2025.TRAIN).open("w", newline="") as file:
        csv.writer(file).writerows([("name", "discrete"), *((n, MER[i % 6]) for i, n in enumerate(names))])
    for name in names:
        np.save(place / f"{name}.npy", np.ones(8, np.float32))
    victim = place / "s000004.npy"
    if old == "NaN":
        np.save(victim, np.full(8, np.nan, np.float32))
    elif old == "half":
        victim.write_bytes(victim.read_bytes()[:20])
    elif old == "short":
        np.save(victim, np.ones(3, np.float32))
    else:
        table = root / mer2025.TRAIN
        assert old in table.read_text()
        table.write_text(table.read_text().replace(old, new))
    refused(["--features", str(root)], expected, tmp_path, capsys)
