"""What `ecmf-models engines` shows: rows for JSON, tables and progress bars for people."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ecmf.engines.cache import Record
from ecmf.engines.tuned import is_chosen
from ecmf.errors import need

FOLDED = {"bundle": 16, "device": 8, "note": 8}
"""Columns of long texts, and their least width."""
WIDE = 160
"""Characters of a table that goes to a file or a pipe, where nothing needs to be folded."""
RIGHT = frozenset({"MB", "build s", "error", "ms"})


def row_of(folder: Path, record: Record) -> dict[str, Any]:
    """A cached engine for JSON."""
    proof = record.parity or {}
    return {
        "bundle": record.bundle,
        "backend": record.backend,
        "precision": record.precision,
        "device": record.target or record.identity.rpartition(" on ")[2],
        "identity": record.identity,
        "bytes": record.size,
        "build_s": record.build_s,
        "parity_error": proof.get("error"),
        "label_agreement": proof.get("agreement"),
        "latency_ms": proof.get("latency_ms"),
        "chosen": is_chosen(record),
        "unproven": None if record.parity else (record.unproven or "built before engines were proven"),
        "spec": json.loads(record.spec),
        "path": str(folder),
    }


def show(rows: Sequence[dict[str, Any]], as_json: bool) -> None:
    """Cached engines, or what could not be built."""
    if as_json:
        print(json.dumps(rows))
        return
    view = table("bundle", "backend", "precision", "device", "MB", "build s", "error", "ms", "note")
    for row in rows:
        if row.get("error"):
            view.add_row(row["bundle"], row["backend"], *[""] * 6, f"failed: {row['error']}")
            continue
        error = "" if row["parity_error"] is None else f"{row['parity_error']:.1e}"
        latency = "" if row["latency_ms"] is None else f"{row['latency_ms']:.2f}"
        view.add_row(
            row["bundle"],
            row["backend"],
            row["precision"],
            row["device"],
            f"{row['bytes'] / 1e6:.1f}",
            f"{row['build_s']:.1f}",
            error,
            latency,
            f"unproven: {row['unproven']}" if row["unproven"] else "fastest here" if row["chosen"] else "",
        )
    output(view)


def show_tuned(rows: Sequence[dict[str, Any]]) -> None:
    """What `tune` measured."""
    view = table("bundle", "backend", "precision", "ms", "note")
    for row in rows:
        time_ms = f"{row['ms']:.2f}" if row["ms"] is not None else ""
        mark = "chosen" if row["chosen"] else row["reason"] or ""
        view.add_row(row["bundle"], row["backend"], row["precision"], time_ms, mark)
    output(view)


def table(*columns: str) -> Any:
    """An empty rich table; numbers to the right, long texts folded."""
    view = need("rich.table", "live").Table(box=need("rich.box", "live").SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        view.add_column(
            column,
            justify="right" if column in RIGHT else "left",
            overflow="fold",
            no_wrap=column not in FOLDED,
            min_width=FOLDED.get(column),
        )
    return view


def output(view: Any) -> None:
    """To stdout."""
    width = None if sys.stdout.isatty() else WIDE
    need("rich.console", "live").Console(width=width).print(view)


@contextmanager
def bar(what: str, total: int) -> Iterator[Any]:
    """A progress bar on stderr; call what it gives with the name of each part as it begins."""
    progress = need("rich.progress", "live")
    console = need("rich.console", "live").Console(stderr=True)
    columns = progress.TextColumn("{task.description}"), progress.BarColumn(), progress.MofNCompleteColumn()
    with progress.Progress(*columns, progress.TimeElapsedColumn(), console=console) as shown:
        task = shown.add_task(what, total=total)
        begun = 0

        def advance(name: str) -> None:
            nonlocal begun
            shown.update(task, description=f"{what} {name}", completed=begun)
            begun += 1

        yield advance
        shown.update(task, description=what, completed=begun)
