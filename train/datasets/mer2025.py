"""MER2025 Track 1 as its owners ship it (arXiv 2504.19423): label csv or npz, candidates, utterance features.

track1_train_disdim.csv     name,discrete            7,369 clips
track_all_candidates.csv    name                    20,000 clips without labels
track1_label_6way.npz       train_corpus, test1_corpus: {name: {"emo": label}}
features/<feature>-UTT/<name>.npy                    float[d] each
"""

from __future__ import annotations

import csv
import pickle
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ecmf.errors import DataError
from ecmf.labels import MER

TRAIN = "track1_train_disdim.csv"
CANDIDATES = "track_all_candidates.csv"
LABELS = "track1_label_6way.npz"
FEATURES = "features"
SUFFIX = "-UTT"
PSEUDO = "pseudo"


@dataclass(frozen=True)
class Mer2025:
    names: tuple[str, ...]
    """Clips with a label."""
    emotions: tuple[str, ...]
    """Their labels, in the order of ``names``."""
    labels: tuple[str, ...]
    """The label set; MER's own six where nothing else occurs."""
    candidates: tuple[str, ...]
    """Clips to label for the submission; empty without a list of them."""
    features: Mapping[str, Path]
    """Feature name without -UTT -> its folder."""
    pseudo: tuple[bool, ...]
    """Labels that were guessed, not given (column pseudo, as train.pseudo writes it): never measured by."""


def read(root: Path, labels: Sequence[str] | None = None) -> Mer2025:
    """Read the folder. Raises DataError naming the file and the row."""
    where, pairs, pseudo = _labelled(root)
    if not pairs:
        raise DataError(f"{where} lists no clips")
    allowed = tuple(labels) if labels else MER
    for row, (name, emotion) in enumerate(pairs, start=2):
        if emotion not in allowed:
            raise DataError(
                f"{where}, row {row} ({name}): unknown label {emotion!r}; known: {', '.join(allowed)} "
                "(another set: --labels)"
            )
    names = [name for name, _ in pairs]
    if len(set(names)) < len(names):
        twice = next(name for index, name in enumerate(names) if name in names[:index])
        raise DataError(
            f"{where}, row {names.index(twice, names.index(twice) + 1) + 2}: clip {twice} is listed twice"
        )
    emotions = [emotion for _, emotion in pairs]
    for label in allowed:
        if label not in [e for e, guessed in zip(emotions, pseudo, strict=True) if not guessed]:
            raise DataError(f"{where}: no clip is labelled {label!r}; leave it out with --labels")
    folders = {
        folder.name.removesuffix(SUFFIX): folder
        for folder in sorted((root / FEATURES).glob(f"*{SUFFIX}"))
        if folder.is_dir()
    }
    if not folders:
        raise DataError(
            f"{root / FEATURES} holds no folder <feature>{SUFFIX}; extract or download features first"
        )
    return Mer2025(tuple(names), tuple(emotions), allowed, _candidates(root, set(names)), folders, pseudo)


def _labelled(root: Path) -> tuple[Path, list[tuple[str, str]], tuple[bool, ...]]:
    """The csv where there is one, else the npz."""
    table = root / TRAIN
    if table.is_file():
        rows = _rows(table, ("name", "discrete"))
        pseudo = tuple(row.get(PSEUDO, "") not in ("", "0") for row in rows)
        return table, [(row["name"], row["discrete"]) for row in rows], pseudo
    packed = root / LABELS
    if packed.is_file():
        corpus = read_object(packed, "train_corpus")
        try:
            pairs = [(str(name), str(entry["emo"])) for name, entry in corpus.items()]
            return packed, pairs, (False,) * len(pairs)
        except (AttributeError, KeyError, TypeError):
            raise DataError(f"{packed}: train_corpus is not {{name: {{'emo': label}}}}") from None
    raise DataError(f"{root} holds neither {TRAIN} nor {LABELS}; is it the folder of MER2025 Track 1?")


def _candidates(root: Path, labelled: set[str]) -> tuple[str, ...]:
    if (root / CANDIDATES).is_file():
        return tuple(row["name"] for row in _rows(root / CANDIDATES, ("name",)))
    if (root / LABELS).is_file():
        return tuple(str(name) for name in read_object(root / LABELS, "test1_corpus") if name not in labelled)
    return ()


def _rows(table: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            missing = set(columns) - set(reader.fieldnames or ())
            if missing:
                raise DataError(f"{table}, row 1: no column {sorted(missing)[0]!r}")
            rows = list(reader)
    except UnicodeDecodeError as error:
        raise DataError(f"{table} is not UTF-8 ({error.reason} at byte {error.start})") from None
    for number, row in enumerate(rows, start=2):
        for column in columns:
            if not row[column]:
                raise DataError(f"{table}, row {number}: no {column}")
    return rows


class _Plain(pickle.Unpickler):
    """Unpickles what numpy writes for an array that holds a dict of plain values, and nothing else."""

    _ALLOWED = frozenset(
        {
            *((module, "_reconstruct") for module in ("numpy._core.multiarray", "numpy.core.multiarray")),
            *((module, "scalar") for module in ("numpy._core.multiarray", "numpy.core.multiarray")),
            ("numpy", "ndarray"),
            ("numpy", "dtype"),
        }
    )

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self._ALLOWED:
            raise pickle.UnpicklingError(f"it refers to {module}.{name}")
        return super().find_class(module, name)


def read_object(path: Path, name: str) -> Any:
    """The Python object that the npz member ``name`` holds, read without running what the file may contain.

    Raises DataError for a file that is no such npz.
    """
    try:
        with zipfile.ZipFile(path) as archive, archive.open(f"{name}.npy") as file:
            version = np.lib.format.read_magic(file)
            header = (
                np.lib.format.read_array_header_1_0
                if version == (1, 0)
                else np.lib.format.read_array_header_2_0
            )
            shape, _, dtype = header(file)
            if dtype != np.dtype(object) or shape != ():
                raise DataError(f"{path}: {name} is {dtype}{list(shape)}, expected a dict")
            return _Plain(file).load().item()
    except (
        zipfile.BadZipFile,
        KeyError,
        ValueError,
        pickle.UnpicklingError,
        EOFError,
        AttributeError,
    ) as error:
        raise DataError(f"{path} cannot be read: {error}") from None


def write_submission(path: Path, names: Sequence[str], emotions: Sequence[str]) -> None:
    """The csv that is handed in: name,discrete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}")
    with temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("name", "discrete"))
        writer.writerows(zip(names, emotions, strict=True))
    temporary.replace(path)
