"""What a run was asked to do, kept in its folder, so that it can be resumed and exported from there."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from ecmf.errors import UsageError
from train.atomic import write_whole

FILE, CONFIG = "run.json", "recipe.toml"


@dataclass(frozen=True)
class Run:
    """The options of ``python -m train.fit``; paths are absolute once it is stored."""

    out: Path
    cache: Path
    recipe: str | None = None
    data: Path | None = None
    features: Path | None = None
    config: Path | None = None
    labels: tuple[str, ...] | None = None
    unfinished: bool = False
    """Export the last checkpoint as it is."""
    processes: int | None = None
    """That work side by side, one a core where None; they change nothing in the result."""


PASSING = ("unfinished", "processes")
"""Options of one command, not of the run: never stored."""


def store(run: Run) -> None:
    """Write run.json, and a copy of the recipe where one was named, into the run's folder."""
    record: dict[str, Any] = {}
    for field in fields(Run):
        value = getattr(run, field.name)
        if field.name not in PASSING:
            record[field.name] = str(value.resolve()) if isinstance(value, Path) else value
    if run.config is not None:
        copy = run.out / CONFIG
        if copy.resolve() != run.config.resolve():
            write_whole(copy, run.config.read_bytes())
        record["config"] = str(copy.resolve())
    write_whole(run.out / FILE, (json.dumps(record, indent=1) + "\n").encode())


def load(folder: Path) -> Run:
    """Raises UsageError for a folder that is no run's."""
    path = folder / FILE
    try:
        record = json.loads(path.read_text("utf-8"))
        for name in ("out", "cache", "data", "features", "config"):
            record[name] = None if record[name] is None else Path(record[name])
        record["labels"] = None if record["labels"] is None else tuple(record["labels"])
        return replace(Run(**record), out=folder)
    except FileNotFoundError:
        raise UsageError(
            f"{folder} is no run: it holds no {FILE}; python -m train.fit --out {folder} makes one"
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"{path} cannot be read ({error}); give the command that made the run again"
        ) from None
