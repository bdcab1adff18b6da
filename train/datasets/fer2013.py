"""FER2013's own labels: one person's noisy opinion of each picture that FER+ later had judged by ten."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecmf.errors import DataError, need
from ecmf.labels import EKMAN, to_ekman
from train.datasets.ferplus import SIZE, USAGE

EMOTIONS = ("anger", "disgust", "fear", "happiness", "sadness", "surprise", "neutral")
"""In the order of fer2013.csv's numbers."""


def read_labels(path: Path) -> NDArray[np.int64]:
    """int64[n], numbers in EKMAN, in the rows of ``train.datasets.ferplus.read(path)``.

    Reads the column fer2013_label of ferplus.parquet, or emotion of the official fer2013.csv. Raises DataError.
    """
    if path.is_dir():
        path = path / "ferplus.parquet" if (path / "ferplus.parquet").is_file() else path / "fer2013.csv"
    if not path.is_file():
        raise DataError(f"{path}: no such file; expected ferplus.parquet or a folder with fer2013.csv")
    if path.suffix == ".csv":
        return _official(path)
    parquet: Any = need("pyarrow.parquet", "train")
    try:
        column = parquet.read_table(path, columns=["fer2013_label"])["fer2013_label"].to_pylist()
    except (KeyError, ValueError, OSError) as error:
        raise DataError(f"{path} has no column fer2013_label ({error})") from None
    return np.array([EKMAN.index(to_ekman(n, where=f"{path}, row {row}")) for row, n in enumerate(column)])


def read_pictures(path: Path) -> Iterator[tuple[int, str, str, NDArray[np.uint8]]]:
    """Row, label, split and picture uint8[48, 48] of each line of the official fer2013.csv, with its own labels.

    Left out: pictures whose very pixels an earlier line has in another split. Raises DataError naming file and row.
    """
    seen: dict[bytes, str] = {}
    with path.open(newline="", encoding="utf-8") as file:
        for row, line in enumerate(csv.DictReader(file), start=2):
            where = f"{path}, row {row}"
            try:
                label = EMOTIONS[int(line["emotion"])]
                split = USAGE[line["Usage"]]
            except (KeyError, ValueError, IndexError):
                raise DataError(
                    f"{where}: emotion {line.get('emotion')!r}, Usage {line.get('Usage')!r}; expected 0 to 6 and one "
                    f"of {', '.join(USAGE)}"
                ) from None
            try:
                picture = np.array(line["pixels"].split(), np.uint8).reshape(SIZE, SIZE)
            except (KeyError, ValueError, OverflowError, AttributeError):
                raise DataError(f"{where}: pixels are not {SIZE * SIZE} numbers from 0 to 255") from None
            if seen.setdefault(picture.tobytes(), split) == split:
                yield row, label, split, picture


def _official(path: Path) -> NDArray[np.int64]:
    """Rows whose picture FER+ removed are left out, as in ``ferplus.read``."""
    votes = path.with_name("fer2013new.csv")
    if not votes.is_file():
        raise DataError(f"{votes} is missing; it says which pictures FER+ kept")
    found = []
    with (
        path.open(newline="", encoding="utf-8") as pixels,
        votes.open(newline="", encoding="utf-8") as judged,
    ):
        for row, (one, other) in enumerate(
            zip(csv.DictReader(pixels), csv.DictReader(judged), strict=False), start=2
        ):
            if not other.get("Image name"):
                continue
            try:
                found.append(EKMAN.index(EMOTIONS[int(one["emotion"])]))
            except (KeyError, ValueError, IndexError):
                raise DataError(
                    f"{path}, row {row}: emotion {one.get('emotion')!r}; expected 0 to 6"
                ) from None
    return np.array(found, np.int64)
