"""Where a corpus lies below --data: a parquet file, or the folder that its owner ships."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from ecmf.errors import DataError, UsageError

FERPLUS = ("ferplus.parquet", "ferplus", "FERPlus", "fer2013")
MUXSPACE = ("muxspace.parquet", "muxspace")
RAVDESS = ("ravdess.parquet", "ravdess", "RAVDESS")
EMODB = ("emodb4.parquet", "emodb.parquet", "emodb", "EMO-DB")
MELD = ("meld.parquet", "meld", "MELD")
GOEMOTIONS = ("goemotions.parquet", "goemotions", "GoEmotions")
"""What it may be called; the first that is there is taken."""


def root(data: Path | None) -> Path:
    """The folder of the corpora: ``data``, else $ECMF_DATA. Raises UsageError when there is none."""
    found = data or (Path(os.environ["ECMF_DATA"]) if os.environ.get("ECMF_DATA") else None)
    if found is None:
        raise UsageError(
            "where is the data? Give --data DIR or set ECMF_DATA to a folder with face/, speech/, text/"
        )
    if not found.is_dir():
        raise UsageError(f"{found} is no folder; give --data DIR with face/, speech/ and text/ in it")
    return found


def find(data: Path, kind: str, names: Sequence[str]) -> Path:
    """The first of ``names`` in ``data/kind`` or ``data``. Raises DataError when there is none."""
    for base in (data / kind, data):
        for name in names:
            if (base / name).exists():
                return base / name
    raise DataError(f"{data / kind} holds none of {', '.join(names)}; put the corpus there, or a link to it")


def size(source: Path) -> int:
    """Bytes of a corpus's file, or of all files of its folder: stands for what it holds in the names of features."""
    if source.is_file():
        return source.stat().st_size
    return sum(file.stat().st_size for file in source.rglob("*") if file.is_file())
