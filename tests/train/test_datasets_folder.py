"""labels.csv: what is read, and which line and file an error names."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from ecmf.errors import DataError, UsageError
from train.datasets import folder

GOOD = """path,label,speaker,split
a.txt,happy,anna,train
b.txt,neutral,anna,train
c.txt,bored,bert,train
d.txt,happy,cleo,valid
e.txt,neutral,dora,test
"""
Make = Callable[..., Path]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    def write(table: str = GOOD, encoding: str = "utf-8") -> Path:
        for name in "abcdef":
            (tmp_path / f"{name}.txt").write_text(f"words of {name}")
        (tmp_path / folder.TABLE).write_bytes(table.encode(encoding))
        return tmp_path

    return write


def refusal(root: Path, labels: tuple[str, ...] | None = None) -> str:
    with pytest.raises(DataError) as caught:
        folder.read(root, labels)
    message = str(caught.value)
    assert folder.TABLE in message and "\n" not in message
    return message


def test_clips_keep_their_order_and_labels_begin_with_neutral(make: Make) -> None:
    found = folder.read(make())
    assert [item.path.name for item in found.items] == ["a.txt", "b.txt", "c.txt", "d.txt", "e.txt"]
    assert found.labels == ("neutral", "bored", "happy")
    assert [item.split for item in found.items] == ["train", "train", "train", "valid", "test"]
    assert found.items[2].row == 4


def test_spreadsheets_write_a_mark_capitals_and_dev(make: Make) -> None:
    found = folder.read(make("\ufeff" + GOOD.replace("path,label", "Path, Label").replace("valid", "DEV")))
    assert found.items[3].split == "valid"


def test_speaker_and_split_may_be_left_out(make: Make) -> None:
    rows = "".join(f"{name}.txt,{label}\n" for name, label in zip("abcdef", "xyxyxy", strict=True))
    first, second = (folder.read(make("path,label\n" + rows), training=False) for _ in range(2))
    assert first == second
    assert len({item.speaker for item in first.items}) == 6


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("b.txt,neutral", "z.txt,neutral", r"row 3: .*z\.txt is missing"),
        ("b.txt,neutral", "b.txt,", r"row 3: no label"),
        ("b.txt,neutral", ",neutral", r"row 3: no path"),
        ("cleo,valid", "cleo,holdout", r"row 5: split 'holdout' is none of train, valid, test"),
        (
            "cleo,valid",
            "anna,valid",
            r"row 5 \(d\.txt\): speaker 'anna' is in valid here and in train in row 2",
        ),
        ("d.txt,happy", "a.txt,happy", r"row 5: a\.txt is already in row 2"),
        ("c.txt,bored,bert,train", "c.txt,bored,bert,test", r"no clip in train is labelled 'bored'"),
        ("path,label", "file,label", r"row 1: no column 'path'"),
    ],
)
def test_bad_lines_are_named(make: Make, old: str, new: str, expected: str) -> None:
    assert re.search(expected, refusal(make(GOOD.replace(old, new))))


def test_a_label_outside_the_asked_set_is_an_error(make: Make) -> None:
    assert "row 4: unknown label 'bored'; --labels has neutral, happy" in refusal(
        make(), ("neutral", "happy")
    )


def test_a_label_on_one_clip_may_be_mistyped(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    table = GOOD.replace("c.txt,bored", "c.txt,hapyp").replace("b.txt,neutral", "b.txt,happy")
    table = table.replace("e.txt,neutral", "e.txt,happy")
    folder.read(make(table))
    assert "row 4 (c.txt): the only clip to train on that is labelled 'hapyp'; mistyped?" in caplog.text
    assert "'happy'" not in caplog.text
    caplog.clear()
    folder.read(make(table), ("happy", "hapyp"))
    assert "mistyped" not in caplog.text


def test_a_single_label_leaves_nothing_to_learn(make: Make) -> None:
    assert "nothing to tell apart" in refusal(make("path,label\na.txt,happy\nb.txt,happy\nc.txt,happy\n"))


def test_other_encodings_and_missing_tables_are_said(make: Make, tmp_path: Path) -> None:
    assert "not UTF-8" in refusal(make(GOOD.replace("anna", "änna"), "latin-1"))
    (tmp_path / folder.TABLE).unlink()
    assert "is missing" in refusal(tmp_path)


def test_label_sets_have_two_different_names() -> None:
    assert folder.label_set(" a, b ,c") == ("a", "b", "c")
    for bad in ("a", "a,a", ""):
        with pytest.raises(UsageError, match="at least two different"):
            folder.label_set(bad)
