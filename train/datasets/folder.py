"""A folder of labelled clips: labels.csv with path, label, speaker, split; video, sound, pictures or text files."""

from __future__ import annotations

import csv
import hashlib
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ecmf.errors import DataError, UsageError

log = logging.getLogger("train.datasets.folder")
TABLE = "labels.csv"
SPLITS = ("train", "valid", "test")
_SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "valid": "valid",
    "val": "valid",
    "dev": "valid",
    "test": "test",
}


@dataclass(frozen=True)
class Item:
    """One labelled clip."""

    path: Path
    label: str
    speaker: str
    split: str
    """One of SPLITS."""
    row: int
    """Line in the table, the header being 1; 0 where a folder of files is the list."""
    content: bytes | str | None = field(default=None, repr=False)
    """The clip itself, an encoded file or a line of text, where it lies within a table; ``path`` then only names it."""


@dataclass(frozen=True)
class Folder:
    table: Path
    """The file or folder that lists the clips, for errors."""
    items: tuple[Item, ...]
    labels: tuple[str, ...]
    """neutral first where there is one, the others by name."""

    def where(self, item: Item) -> str:
        """How an error names an item."""
        row = f", row {item.row}" if item.row else ""
        return f"{self.table}{row} ({item.path.name})"

    def told(self) -> str:
        """What was found, in one line."""
        label, split = Counter(i.label for i in self.items), Counter(i.split for i in self.items)
        labels = [f"{name} {label[name]}" for name in self.labels]
        splits = [f"{name} {split[name]}" for name in SPLITS if split[name]]
        people = len({item.speaker for item in self.items})
        if self.unlabelled:
            labels.append(f"without a label {len(self.unlabelled)}")
        counts = f"{', '.join(labels)}; {', '.join(splits)}"
        return f"{self.table}: {len(self.items)} clips of {people} people; {counts}"

    @property
    def unlabelled(self) -> tuple[Item, ...]:
        """Clips without a label: ``train.pseudo`` finds some for them."""
        return tuple(item for item in self.items if not item.label)


def label_set(text: str) -> tuple[str, ...]:
    """Names from "a,b,c". Raises UsageError for fewer than two or one twice."""
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    if len(names) < 2 or len(set(names)) < len(names):
        raise UsageError(f"--labels {text!r}: give at least two different names, separated by commas")
    return names


def read(
    root: Path, labels: Sequence[str] | None = None, *, training: bool = True, unlabelled: bool = False
) -> Folder:
    """Read ``root/labels.csv``.

    Columns: path (relative to the folder), label; speaker (default: each clip its own) and split (train, valid, test;
    default: 70, 15 and 15 % of the speakers by a hash of their names). Raises DataError naming file and row: a missing
    file or value, an unknown split, a label that is not among ``labels``, a clip twice, a speaker in two splits; or,
    for ``training``, a label without a clip in train. ``unlabelled``: a clip in train may be without a label.
    """
    table = root / TABLE
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, skipinitialspace=True)
            columns = [name.strip().lower() for name in reader.fieldnames or []]
            reader.fieldnames = columns
            rows = list(enumerate(reader, start=2))
    except FileNotFoundError:
        raise DataError(f"{table} is missing; it lists the clips: path,label,speaker,split") from None
    except UnicodeDecodeError as error:
        raise DataError(
            f"{table} is not UTF-8 ({error.reason} at byte {error.start}); save it as UTF-8"
        ) from None
    for column in ("path", "label"):
        if column not in columns:
            raise DataError(
                f"{table}, row 1: no column {column!r}, only {', '.join(columns) or 'nothing'}; the first row "
                "names the columns, with commas between them: path,label,speaker,split"
            )
    for number, row in rows:
        if None in row:
            raise DataError(
                f"{table}, row {number}: more values than the {len(columns)} columns; put quotes around a value with a "
                "comma"
            )
    items = [_item(root, f"{table}, row {number}", row, number, labels, unlabelled) for number, row in rows]
    _check_paths(table, items)
    return listing(table, items, labels, training=training)


def listing(
    table: Path, items: Sequence[Item], labels: Sequence[str] | None = None, *, training: bool = True
) -> Folder:
    """Items of any layout as a Folder. Raises DataError as ``read`` does."""
    if not items:
        raise DataError(f"{table} lists no clips")
    for item in items:
        if labels is not None and item.label and item.label not in labels:
            raise DataError(
                f"{Folder(table, (), ()).where(item)}: unknown label {item.label!r}; "
                f"--labels has {', '.join(labels)}"
            )
    _check_speakers(table, items)
    found = Counter(item.label for item in items if item.split == "train")
    names = tuple(labels) if labels else _order({item.label for item in items} - {""})
    for name in names:
        if training and not found[name]:
            raise DataError(
                f"{table}: no clip in train is labelled {name!r}; add some, or leave that label out"
            )
    for name in names if training and labels is None else ():
        if found[name] == 1:
            only = next(item for item in items if item.label == name)
            log.warning(
                "%s: the only clip to train on that is labelled %r; mistyped? --labels names the label set",
                Folder(table, (), ()).where(only), name,
            )  # fmt: skip
    if len(names) < 2:
        raise DataError(
            f"{table}: {f'every clip is labelled {names[0]!r}' if names else 'no clip has a label'}; there is "
            "nothing to tell apart"
        )
    return Folder(table, tuple(items), names)


def _item(
    root: Path,
    where: str,
    row: dict[str, str | None],
    number: int,
    labels: Sequence[str] | None,
    unlabelled: bool,
) -> Item:
    def value(column: str) -> str:
        return (row.get(column) or "").strip()

    for column in ("path",) if unlabelled else ("path", "label"):
        if not value(column):
            raise DataError(
                f"{where}: no {column}{'; python -m train.pseudo finds some' if column == 'label' else ''}"
            )
    path = root / value("path")
    if not path.is_file():
        raise DataError(f"{where}: {path} is missing")
    label = value("label")
    if label and labels is not None and label not in labels:
        raise DataError(f"{where}: unknown label {label!r}; --labels has {', '.join(labels)}")
    speaker = value("speaker") or value("path")
    split = value("split").lower()
    if split and split not in _SPLIT_NAMES:
        raise DataError(f"{where}: split {split!r} is none of {', '.join(SPLITS)}")
    found = _SPLIT_NAMES[split] if split else _drawn(speaker)
    if not label and found != "train":
        raise DataError(f"{where}: no label, in {found}; only clips to train on may be without one")
    return Item(path, label, speaker, found, number)


def _drawn(speaker: str) -> str:
    share = int.from_bytes(hashlib.sha256(speaker.encode()).digest()[:4], "big") / 2**32
    return "train" if share < 0.7 else "valid" if share < 0.85 else "test"


def _check_paths(table: Path, items: Sequence[Item]) -> None:
    seen: dict[Path, int] = {}
    for item in items:
        key = item.path.resolve()
        if key in seen:
            raise DataError(f"{table}, row {item.row}: {item.path.name} is already in row {seen[key]}")
        seen[key] = item.row


def _check_speakers(table: Path, items: Sequence[Item]) -> None:
    seen: dict[str, Item] = {}
    for item in items:
        other = seen.setdefault(item.speaker, item)
        if other.split != item.split:
            there = f"row {other.row}" if other.row else other.path.name
            raise DataError(
                f"{Folder(table, (), ()).where(item)}: speaker {item.speaker!r} is in {item.split} here and in "
                f"{other.split} in {there}; a model must be measured on people it was not trained on"
            )


def _order(names: set[str]) -> tuple[str, ...]:
    return tuple(sorted(names, key=lambda name: (name.lower() != "neutral", name)))
