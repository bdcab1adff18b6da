"""FER+: 48 x 48 grey faces from the web, each labelled by ten people (Barsoum et al. 2016)."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecmf.errors import DataError, need
from ecmf.labels import FERPLUS

SIZE = 48
VOTES = (*FERPLUS, "unknown", "NF")
"""Columns of the votes: the eight emotions, "I cannot tell" and "not a face"."""
USAGE = {"Training": "train", "PublicTest": "valid", "PrivateTest": "test"}


@dataclass(frozen=True)
class FerPlus:
    name: tuple[str, ...]
    split: NDArray[np.str_]
    """[n]: train, valid or test (FER2013's Training, PublicTest, PrivateTest)."""
    votes: NDArray[np.float32]
    """float32[n, 10]: annotators per column of VOTES."""
    pictures: NDArray[np.uint8]
    """uint8[n, 48, 48] grey."""

    @cached_property
    def majority(self) -> NDArray[np.int64]:
        """int64[n]: column of VOTES with the most votes, the first one where several share the most."""
        return self.votes.argmax(axis=1)

    @cached_property
    def tie(self) -> NDArray[np.bool_]:
        """bool[n]: two or more columns share the most votes."""
        return (self.votes == self.votes.max(axis=1, keepdims=True)).sum(axis=1) > 1

    @cached_property
    def _keys(self) -> list[bytes]:
        return [picture.tobytes() for picture in self.pictures]

    def twins(self, split: str, of: tuple[str, ...]) -> NDArray[np.bool_]:
        """bool[n]: pictures of ``split`` whose very pixels also occur in one of the splits ``of``."""
        others = {key for key, s in zip(self._keys, self.split, strict=True) if s in of}
        same = np.array([key in others for key in self._keys], bool)
        return same & (self.split == split)

    @cached_property
    def face(self) -> NDArray[np.bool_]:
        """bool[n]: most annotators saw one of the eight emotions, not "unknown" or "not a face"."""
        return self.majority < len(FERPLUS)

    def rows(self, split: str) -> NDArray[np.int64]:
        """Row numbers to use for ``split``.

        train: faces whose pixels are not in valid or test. valid and test: faces with one clear majority whose
        pixels are not in an earlier split (the protocol behind every FER+ number in this project).
        """
        if split == "train":
            return np.flatnonzero(
                (self.split == "train") & self.face & ~self.twins("train", ("valid", "test"))
            )
        earlier = ("train",) if split == "valid" else ("train", "valid")
        return np.flatnonzero((self.split == split) & self.face & ~self.tie & ~self.twins(split, earlier))


def read(path: Path | str) -> FerPlus:
    """Read ``ferplus.parquet``, or a folder that holds it or the official fer2013.csv and fer2013new.csv.

    Raises DataError naming the file, and the row where there is one.
    """
    path = Path(path)
    if path.is_dir():
        if (path / "ferplus.parquet").is_file():
            path = path / "ferplus.parquet"
        elif (path / "fer2013.csv").is_file() and (path / "fer2013new.csv").is_file():
            return _read_official(path / "fer2013.csv", path / "fer2013new.csv")
        else:
            raise DataError(f"{path} holds neither ferplus.parquet nor fer2013.csv and fer2013new.csv")
    if not path.is_file():
        raise DataError(f"{path}: no such file; expected ferplus.parquet or a folder with FER+ in it")
    parquet: Any = need("pyarrow.parquet", "train")
    cv2: Any = need("cv2", "live")
    columns = parquet.read_table(path).to_pydict()
    missing = {"name", "split", "png", *(f"votes_{v}" for v in VOTES)} - columns.keys()
    if missing:
        raise DataError(f"{path} lacks the columns {sorted(missing)}")
    pictures = np.empty((len(columns["name"]), SIZE, SIZE), np.uint8)
    for row, png in enumerate(columns["png"]):
        picture = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_GRAYSCALE)
        if picture is None or picture.shape != (SIZE, SIZE):
            raise DataError(f"{path}, row {row}: not a {SIZE} x {SIZE} picture")
        pictures[row] = picture
    votes = np.stack([np.asarray(columns[f"votes_{v}"], np.float32) for v in VOTES], axis=1)
    return FerPlus(tuple(columns["name"]), np.asarray(columns["split"]), votes, pictures)


def _read_official(pixels_csv: Path, votes_csv: Path) -> FerPlus:
    """The two files pair row by row; a row of fer2013new.csv without an image name was removed by its authors."""
    names, splits, votes, pictures = [], [], [], []
    for row, (pixels, labels) in enumerate(zip(_rows(pixels_csv), _rows(votes_csv), strict=False), start=2):
        name = labels.get("Image name", "")
        if not name:
            continue
        try:
            picture = np.array(pixels["pixels"].split(), np.uint8).reshape(SIZE, SIZE)
            count = [float(labels[v]) for v in VOTES]
            split = USAGE[labels["Usage"]]
        except (KeyError, ValueError) as error:
            raise DataError(f"{pixels_csv.name} or {votes_csv.name}, line {row}: {error!r}") from None
        names.append(name)
        splits.append(split)
        votes.append(count)
        pictures.append(picture)
    if not names:
        raise DataError(f"{votes_csv} names no picture")
    return FerPlus(tuple(names), np.array(splits), np.array(votes, np.float32), np.stack(pictures))


def _rows(path: Path) -> Iterator[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        yield from csv.DictReader(file)
