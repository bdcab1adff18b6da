"""Tables of a TOML recipe to frozen dataclasses."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

from ecmf.errors import UsageError

Kind = TypeVar("Kind")


def read_toml(path: Path) -> dict[str, Any]:
    """Raises UsageError for a file that is missing or not TOML."""
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise UsageError(f"recipe {path} cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"recipe {path} is not TOML: {error}") from None


def filled(kind: type[Kind], given: Mapping[str, Any], where: str, **more: Any) -> Kind:
    """``kind(**given, **more)``. Raises UsageError for an unknown key, a number or a list of the wrong kind."""
    known = {f.name: f for f in fields(kind) if f.name not in more}  # type: ignore[arg-type]
    values = dict(given)
    for key, value in given.items():
        if key not in known:
            raise UsageError(f"{where}: unknown key {key!r}; known: {', '.join(known)}")
        default = known[key].default
        if isinstance(default, int | float) and (isinstance(value, bool) != isinstance(default, bool)):
            raise UsageError(f"{where}: {key} = {value!r}; expected a value like {default!r}")
        if isinstance(default, int | float) and not isinstance(value, int | float):
            raise UsageError(f"{where}: {key} = {value!r}; expected a number like {default!r}")
        if isinstance(default, tuple):
            if not isinstance(value, list | tuple):
                raise UsageError(f"{where}: {key} = {value!r}; expected a list like {list(default)!r}")
            values[key] = tuple(value)
    return kind(**values, **more)
