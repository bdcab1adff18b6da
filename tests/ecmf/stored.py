"""What is in a cache of weights, and which registry says so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ecmf import weights
from ecmf.registry import read_registry, registry


def use(monkeypatch: pytest.MonkeyPatch, raw: dict[str, Any]) -> None:
    monkeypatch.setattr(weights, "registry", lambda: read_registry(raw))


def visible(folder: Path) -> list[str]:
    """Names of the files that a reader of the cache would take for weights."""
    return sorted(p.name for p in folder.rglob("*") if p.is_file() and not p.name.startswith("."))


def hidden_parts(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.rglob(".*.part"))


def registered(name: str) -> dict[str, Any]:
    file = registry().weight(name).files[0]
    return {"name": file.name, "sha256": file.sha256, "size": file.size}
