"""The JSON file that every benchmark writes: what was measured, on what, with which options, of which commit."""

from __future__ import annotations

import datetime
import json
import subprocess
from pathlib import Path
from typing import Any

from bench.machine import describe, versions
from ecmf.errors import DataError

Record = dict[str, Any]
"""One measurement: ``benchmark`` names it; machine, versions, commit, date and options say how it came about."""


def record(benchmark: str, options: dict[str, Any], figures: dict[str, Any]) -> Record:
    """``figures`` with their circumstances."""
    return {
        "benchmark": benchmark,
        "date": datetime.date.today().isoformat(),
        "commit": commit(),
        "machine": describe(),
        "versions": versions(),
        "options": options,
        **figures,
    }


def save(path: Path, content: Record) -> None:
    """Write ``content``; folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n", "utf-8")


def load(path: Path) -> Record:
    """Read what ``save`` wrote; a file that names no benchmark is called by its own name. Raises DataError."""
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}") from None
    except json.JSONDecodeError as error:
        raise DataError(
            f"{path} is not JSON ({error}); was its benchmark interrupted? run it again"
        ) from None
    if not isinstance(content, dict):
        raise DataError(
            f"{path} holds a {type(content).__name__}, expected what a benchmark wrote with --json"
        )
    return {"benchmark": path.stem, **content}


def commit() -> str | None:
    """The commit of this checkout, with -dirty when files differ from it; None outside a repository."""
    asked = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--exclude=*"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return asked.stdout.strip() if asked.returncode == 0 else None
