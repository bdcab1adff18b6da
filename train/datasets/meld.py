"""MELD (Poria et al. 2019, arXiv 1810.02508): lines of TV dialogue with one of seven emotions, official split.

Read from the owner's folder (`train_sent_emo.csv`, `dev_sent_emo.csv`, `test_sent_emo.csv`) or from one parquet file
with the columns split, dialogue, utt, speaker, label, text.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ecmf.errors import DataError, need
from ecmf.labels import to_ekman

SPLITS = ("train", "dev", "test")
_CSV = {
    "Utterance": "text",
    "Speaker": "speaker",
    "Emotion": "label",
    "Dialogue_ID": "dialogue",
    "Utterance_ID": "utt",
}
_COLUMNS = ("split", "dialogue", "utt", "speaker", "label", "text")


@dataclass(frozen=True)
class Line:
    """One utterance of a dialogue."""

    split: str
    dialogue: str
    number: int
    """Position within its dialogue; numbers may have gaps."""
    speaker: str
    label: str
    """One of ecmf.labels.EKMAN."""
    text: str


def read_meld(path: Path) -> list[Line]:
    """All lines, ordered by split, dialogue and number. Raises DataError naming the file and row of a bad entry."""
    if path.is_dir():
        rows = [row for split in SPLITS for row in _csv_rows(path / f"{split}_sent_emo.csv", split)]
    elif path.is_file():
        rows = list(_parquet_rows(path))
    else:
        raise DataError(f"no MELD in {path}: give the folder with train_sent_emo.csv or a parquet file")
    lines = [_line(row, where) for where, row in rows]
    return sorted(lines, key=lambda line: (SPLITS.index(line.split), int(line.dialogue), line.number))


def with_history(lines: Iterable[Line]) -> Iterator[tuple[Line, list[Line]]]:
    """Each line of an ordered list with the earlier lines of its dialogue, oldest first."""
    key, earlier = ("", ""), list[Line]()
    for line in lines:
        if (line.split, line.dialogue) != key:
            key, earlier = (line.split, line.dialogue), []
        yield line, list(earlier)
        earlier.append(line)


def _csv_rows(path: Path, split: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            for number, row in enumerate(csv.DictReader(file), start=2):
                yield (
                    f"{path}, row {number}",
                    {"split": split, **{ours: row.get(csv_) for csv_, ours in _CSV.items()}},
                )
    except FileNotFoundError:
        raise DataError(f"{path} is missing; MELD ships one csv per split") from None
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is not UTF-8 ({error.reason} at byte {error.start}); take the owner's file"
        ) from None


def _parquet_rows(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    parquet = need("pyarrow.parquet", "train")
    try:
        table = parquet.read_table(path, columns=list(_COLUMNS))
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path} is not a MELD parquet file ({error}); it needs {', '.join(_COLUMNS)}"
        ) from None
    for number, row in enumerate(table.to_pylist()):
        yield f"{path}, row {number}", row


def _line(row: Mapping[str, Any], where: str) -> Line:
    for column in _COLUMNS:
        if row.get(column) is None:
            raise DataError(f"{where}: no {column}")
    if row["split"] not in SPLITS:
        raise DataError(f"{where}: split {row['split']!r} is none of {', '.join(SPLITS)}")
    try:
        number = int(row["utt"])
        int(row["dialogue"])
    except ValueError:
        raise DataError(
            f"{where}: dialogue {row['dialogue']!r}, utterance {row['utt']!r}: expected numbers"
        ) from None
    label = to_ekman(row["label"], where=where)
    return Line(row["split"], str(row["dialogue"]), number, row["speaker"], label, row["text"])
