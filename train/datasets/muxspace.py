"""muxspace/facial_expressions: photographs of heads, mostly from LFW, labelled by students (noisy)."""

from __future__ import annotations

import csv
import hashlib
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecmf.errors import DataError, need
from ecmf.labels import FERPLUS

_LFW = re.compile(r"^([A-Za-z.'-]+(?:_[A-Za-z.'-]+)*)_\d{4}$")
_NAMES = {"happy": "happiness", "sad": "sadness", "angry": "anger"}


@dataclass(frozen=True)
class Muxspace:
    name: tuple[str, ...]
    label: NDArray[np.int64]
    """int64[n]: index in FERPLUS."""
    person: tuple[str, ...]
    """Guessed from LFW's file names; empty where unknown."""
    jpeg: tuple[bytes, ...]
    """The encoded pictures."""

    def picture(self, row: int) -> NDArray[np.uint8]:
        """uint8[H, W] grey. Raises DataError when it cannot be decoded."""
        cv2: Any = need("cv2", "live")
        picture = cv2.imdecode(np.frombuffer(self.jpeg[row], np.uint8), cv2.IMREAD_GRAYSCALE)
        if picture is None:
            raise DataError(f"muxspace picture {self.name[row]}, row {row}: not a picture")
        return picture

    @cached_property
    def split(self) -> NDArray[np.str_]:
        """[n]: train (70 %), valid (10 %) or test (20 % of the people), by a hash of the person's name.

        Nobody is in two of them; pictures of unknown people are only in train.
        """
        return np.array([_split_of(person) for person in self.person])


def _split_of(person: str) -> str:
    if not person:
        return "train"
    share = int.from_bytes(hashlib.sha256(person.encode()).digest()[:4], "big") / 2**32
    return "test" if share < 0.2 else "valid" if share < 0.3 else "train"


def person_of(name: str) -> str:
    """'George_W_Bush' from 'George_W_Bush_0012'; empty when the name is not LFW's."""
    match = _LFW.match(name)
    return match.group(1) if match else ""


def read(path: Path | str) -> Muxspace:
    """Read ``muxspace.parquet``, or a folder that holds it or the official data/legend.csv and images/.

    Raises DataError naming the file, and the row where there is one.
    """
    path = Path(path)
    if path.is_dir():
        if (path / "muxspace.parquet").is_file():
            path = path / "muxspace.parquet"
        elif (path / "data" / "legend.csv").is_file():
            return _read_official(path)
        else:
            raise DataError(f"{path} holds neither muxspace.parquet nor data/legend.csv")
    if not path.is_file():
        raise DataError(f"{path}: no such file; expected muxspace.parquet or a folder with muxspace in it")
    parquet: Any = need("pyarrow.parquet", "train")
    columns = parquet.read_table(path).to_pydict()
    missing = {"name", "label", "person", "jpeg"} - columns.keys()
    if missing:
        raise DataError(f"{path} lacks the columns {sorted(missing)}")
    label = np.array(
        [_label(name, f"{path}, row {row}") for row, name in enumerate(columns["label"])], np.int64
    )
    return Muxspace(tuple(columns["name"]), label, tuple(columns["person"]), tuple(columns["jpeg"]))


def _read_official(folder: Path) -> Muxspace:
    names, labels, people, pictures = [], [], [], []
    with (folder / "data" / "legend.csv").open(newline="", encoding="utf-8") as file:
        for line, row in enumerate(csv.DictReader(file), start=2):
            where = f"{folder / 'data' / 'legend.csv'}, line {line}"
            try:
                image, emotion = row["image"], row["emotion"]
            except KeyError as error:
                raise DataError(f"{where}: no column {error}") from None
            picture = folder / "images" / image
            if not picture.is_file():
                raise DataError(f"{where}: {picture} is missing")
            names.append(picture.stem)
            labels.append(_label(emotion, where))
            people.append(person_of(picture.stem))
            pictures.append(picture.read_bytes())
    if not names:
        raise DataError(f"{folder / 'data' / 'legend.csv'} names no picture")
    return Muxspace(tuple(names), np.array(labels, np.int64), tuple(people), tuple(pictures))


def _label(name: str, where: str) -> int:
    name = _NAMES.get(name.strip().lower(), name.strip().lower())
    if name not in FERPLUS:
        raise DataError(f"{where}: unknown label {name!r}; known: {', '.join(FERPLUS)}")
    return FERPLUS.index(name)
