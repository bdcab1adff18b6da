"""FER+ and muxspace in the prepared and in the official layout, and what may be used of them."""

from __future__ import annotations

import csv
from pathlib import Path

import cv2
import numpy as np
import pytest

from ecmf.errors import DataError
from ecmf.labels import FERPLUS
from train import corpora
from train.datasets import ferplus, muxspace
from train.face_examples import soft_votes

VOTES = {
    "happy": [0, 9, 0, 0, 0, 0, 0, 0, 1, 0],
    "sad or neutral": [5, 0, 0, 5, 0, 0, 0, 0, 0, 0],
    "unclear": [2, 0, 0, 1, 0, 0, 0, 0, 7, 0],
    "angry": [1, 0, 0, 2, 7, 0, 0, 0, 0, 0],
}
ROWS = (
    # usage, picture, votes
    ("Training", 1, "happy"),
    ("Training", 2, "unclear"),
    ("Training", 3, "angry"),
    ("PublicTest", 4, "angry"),
    ("PublicTest", 3, "angry"),
    ("PrivateTest", 5, "happy"),
    ("PrivateTest", 1, "happy"),
    ("PrivateTest", 6, "sad or neutral"),
    ("Training", 7, "happy"),
)


def _picture(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (48, 48), np.uint8)


@pytest.fixture
def official(tmp_path: Path) -> Path:
    """A folder in FER2013's and FER+'s own layout, with one row that FER+'s authors removed."""
    with (tmp_path / "fer2013.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["emotion", "pixels", "Usage"])
        writer.writerow([0, " ".join(map(str, _picture(99).ravel())), "Training"])
        for usage, seed, _ in ROWS:
            writer.writerow([0, " ".join(map(str, _picture(seed).ravel())), usage])
    with (tmp_path / "fer2013new.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["Usage", "Image name", *ferplus.VOTES])
        writer.writerow(["Training", "", *[0] * 10])
        for number, (usage, _, votes) in enumerate(ROWS):
            writer.writerow([usage, f"fer{number:07d}.png", *VOTES[votes]])
    return tmp_path


def test_official_layout_pairs_rows_and_skips_removed_ones(official: Path) -> None:
    read = ferplus.read(official)
    assert len(read.name) == len(ROWS)
    assert read.split.tolist() == ["train"] * 3 + ["valid"] * 2 + ["test"] * 3 + ["train"]
    np.testing.assert_array_equal(read.pictures[3], _picture(4))
    assert read.votes[3].tolist() == VOTES["angry"]


def test_parquet_and_official_layout_agree(official: Path, tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    read = ferplus.read(official)
    table = {
        "name": list(read.name),
        "split": read.split.tolist(),
        "png": [cv2.imencode(".png", p)[1].tobytes() for p in read.pictures],
        **{f"votes_{v}": read.votes[:, k].astype(np.int8) for k, v in enumerate(ferplus.VOTES)},
    }
    pq.write_table(pa.table(table), tmp_path / "ferplus.parquet")
    again = ferplus.read(tmp_path)
    np.testing.assert_array_equal(again.pictures, read.pictures)
    np.testing.assert_array_equal(again.votes, read.votes)


def test_rows_leave_out_leaked_twins_ties_and_what_is_no_emotion(official: Path) -> None:
    read = ferplus.read(official)
    assert read.rows("train").tolist() == [8], "row 1 is unclear, rows 0 and 2 are also in test and valid"
    assert read.rows("valid").tolist() == [3], "row 4's pixels are in train"
    assert read.rows("test").tolist() == [5], "row 6's pixels are in train, row 7 is a tie"


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("fer2013.csv", "PublicTest\n", "PublicTest\n1,1 2 3,Training\n"),
        ("fer2013new.csv", "PublicTest", "Nowhere"),
    ],
)
def test_a_broken_row_is_named(official: Path, file: str, old: str, new: str) -> None:
    text = (official / file).read_text().replace("\r\n", "\n")
    (official / file).write_text(text.replace(old, new, 1))
    with pytest.raises(DataError, match="line"):
        ferplus.read(official)


def test_missing_data_say_what_was_looked_for(tmp_path: Path) -> None:
    for reader in (ferplus.read, muxspace.read):
        with pytest.raises(DataError, match="neither"):
            reader(tmp_path)
        with pytest.raises(DataError, match="no such file"):
            reader(tmp_path / "absent.parquet")
    with pytest.raises(DataError, match=r"ferplus\.parquet"):
        corpora.find(tmp_path, "face", corpora.FERPLUS)


def test_slips_are_dropped_unless_nothing_else_is_left() -> None:
    votes = np.array([[6, 1, 0, 2, 0, 0, 0, 0, 1, 0], [1, 1, 0, 0, 0, 0, 0, 0, 8, 0]], np.float32)
    np.testing.assert_allclose(soft_votes(votes, 1)[:, :4], [[0.75, 0, 0, 0.25], [0.5, 0.5, 0, 0]])


def test_muxspace_official_layout_keeps_people_apart(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "images").mkdir()
    names = [f"Person_{chr(65 + k)}_{n:04d}.jpg" for k in range(26) for n in (1, 2)] + ["stranger_7.jpg"]
    with (tmp_path / "data" / "legend.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["user.id", "image", "emotion"])
        for number, name in enumerate(names):
            writer.writerow([1, name, "HAPPINESS" if number % 2 else "neutral"])
            (tmp_path / "images" / name).write_bytes(cv2.imencode(".jpg", _picture(number))[1].tobytes())
    read = muxspace.read(tmp_path)
    assert read.picture(0).shape == (48, 48)
    assert read.label[:2].tolist() == [FERPLUS.index("neutral"), FERPLUS.index("happiness")]
    assert read.person[0] == "Person_A"
    assert read.person[-1] == ""
    assert read.split[-1] == "train", "an unknown person may be anyone"
    by_person = {(p, s) for p, s in zip(read.person, read.split, strict=True)}
    assert len(by_person) == 27, "nobody is in two splits"
    assert {"train", "test"} <= set(read.split)


def test_muxspace_names_an_unknown_label(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.jpg").write_bytes(b"")
    (tmp_path / "data" / "legend.csv").write_text("user.id,image,emotion\n1,a.jpg,boredom\n")
    with pytest.raises(DataError, match=r"line 2: unknown label 'boredom'"):
        muxspace.read(tmp_path)
