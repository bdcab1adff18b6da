"""What the recipes of fusion heads on clips and on stored features have in common."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

from ecmf.errors import UsageError
from ecmf.fusion import NAMING, HeadOptions
from train.options import filled, read_toml

Kind = TypeVar("Kind")


@dataclass(frozen=True)
class Training:
    """How ``train.descent`` goes down, and the head's size."""

    steps: int = 3000
    batch: int = 256
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    seed: int = 0
    head: HeadOptions = field(default_factory=HeadOptions)


def head_options(given: Mapping[str, Any], where: str) -> HeadOptions:
    """The table [head]. Raises UsageError for a key that is unknown, of the wrong kind, or names no cue."""
    found = filled(HeadOptions, given, where)
    for name in found.read_alone:
        if name not in NAMING:
            raise UsageError(f"{where}: read_alone names {name!r}; known: {', '.join(NAMING)}")
    return found


def read(kind: type[Kind], path: Path) -> Kind:
    """``kind`` (a dataclass with a field ``fit`` of Training) from a TOML file: its own keys, Training's, and [head].

    Raises UsageError for a key that is unknown or of the wrong kind.
    """
    raw = read_toml(path)
    head = head_options(raw.pop("head", {}), f"{path} [head]")
    own: dict[str, Any] = {f.name: raw.pop(f.name) for f in fields(kind) if f.name in raw}  # type: ignore[arg-type]
    return filled(kind, own, str(path), fit=filled(Training, raw, str(path), head=head))
