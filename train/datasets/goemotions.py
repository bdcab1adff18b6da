"""GoEmotions (Demszky et al. 2020, arXiv 2005.00547): Reddit comments with one or several emotions, official split.

Read from the owner's folder (`train.tsv`, `dev.tsv`, `test.tsv`: text, label numbers, comment id; `emotions.txt` if it
is there) or from one parquet file with the columns split, label (Ekman groups joined by `|`), text.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ecmf.errors import DataError, need
from ecmf.labels import to_ekman

SPLITS = ("train", "dev", "test")
_NAMES = """
    admiration amusement anger annoyance approval caring confusion curiosity desire disappointment disapproval
    disgust embarrassment excitement fear gratitude grief joy love nervousness optimism pride realization relief
    remorse sadness surprise neutral
"""
EMOTIONS = tuple(_NAMES.split())
"""The 28 classes in the owner's order."""
EKMAN_GROUPS = {
    "anger": "anger annoyance disapproval",
    "disgust": "disgust",
    "fear": "fear nervousness",
    "happiness": "joy amusement approval excitement gratitude love optimism relief pride admiration desire caring",
    "sadness": "sadness disappointment embarrassment grief remorse",
    "surprise": "surprise realization confusion curiosity",
    "neutral": "neutral",
}
"""The owner's grouping (`ekman_mapping.json`), joy under our name."""
_GROUP = {emotion: group for group, members in EKMAN_GROUPS.items() for emotion in members.split()}


@dataclass(frozen=True)
class Comment:
    split: str
    labels: tuple[str, ...]
    """One or several of ecmf.labels.EKMAN, without repeats."""
    text: str


def read_goemotions(path: Path) -> list[Comment]:
    """All comments in file order. Raises DataError naming the file and row of a bad entry."""
    if path.is_dir():
        return [comment for split in SPLITS for comment in _tsv(path / f"{split}.tsv", split)]
    if path.is_file():
        return list(_parquet(path))
    raise DataError(f"no GoEmotions in {path}: give the folder with train.tsv or a parquet file")


def _tsv(path: Path, split: str) -> Iterator[Comment]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            for number, row in enumerate(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE), start=1):
                try:
                    names = [EMOTIONS[int(index)] for index in row[1].split(",")]
                except (IndexError, ValueError):
                    raise DataError(
                        f"{path}, row {number}: expected text, label numbers 0 to 27, id"
                    ) from None
                yield Comment(split, tuple(dict.fromkeys(_GROUP[name] for name in names)), row[0])
    except FileNotFoundError:
        raise DataError(f"{path} is missing; GoEmotions ships train.tsv, dev.tsv and test.tsv") from None


def _parquet(path: Path) -> Iterator[Comment]:
    parquet = need("pyarrow.parquet", "train")
    try:
        table = parquet.read_table(path, columns=["split", "label", "text"])
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path} is not a GoEmotions parquet file ({error}); it needs split, label, text"
        ) from None
    for number, row in enumerate(table.to_pylist()):
        where = f"{path}, row {number}"
        if row["split"] not in SPLITS or not row["label"] or row["text"] is None:
            raise DataError(
                f"{where}: split {row['split']!r}, label {row['label']!r}: expected {', '.join(SPLITS)}"
            )
        yield Comment(
            row["split"], tuple(to_ekman(n, where=where) for n in row["label"].split("|")), row["text"]
        )
