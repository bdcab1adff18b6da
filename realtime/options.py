"""Fill a tree of frozen dataclasses: defaults, then a TOML file, then the command line.

A TOML key is the long option without its dashes, in its section: ``[pace]`` ``rate = 10``. What makes no sense is
said in one line that names the key, the value and what was expected.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import math
import tomllib
import types
import typing
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from ecmf.errors import UsageError

Tree = TypeVar("Tree")


@dataclass(frozen=True)
class Option:
    """What a person may say about a field: annotate it with ``Annotated[type, Option(...)]``."""

    help: str
    metavar: str = "N"
    low: float = -math.inf
    high: float = math.inf
    choices: tuple[str, ...] = ()
    valid: Callable[[str], bool] | None = None
    expected: str = ""
    """In words, where neither range nor choices say it."""
    flag: str = ""
    """The long option without dashes; empty: the field's name."""
    only_in_file: bool = False


@dataclass(frozen=True)
class Entry:
    """An option in its place."""

    field: str
    key: str
    kind: type
    """bool, int, float, str or Path."""
    default: Any
    option: Option

    @property
    def flag(self) -> str:
        return self.key.replace("_", "-")


def sections(tree: type) -> tuple[tuple[str, type, tuple[Entry, ...]], ...]:
    """Name, class and entries of each section of ``tree``, in order."""
    return _sections(tree)


@functools.cache
def _sections(tree: Hashable) -> tuple[tuple[str, type, tuple[Entry, ...]], ...]:
    found = []
    for section, kind in typing.get_type_hints(tree).items():
        hints = typing.get_type_hints(kind, include_extras=True)
        entries = []
        for field in dataclasses.fields(kind):
            hint, option = typing.get_args(hints[field.name])
            kinds = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
            plain = next(each for each in kinds if each is not type(None))
            entries.append(Entry(field.name, option.flag or field.name, plain, field.default, option))
        found.append((section, kind, tuple(entries)))
    return tuple(found)


def fill(tree: type[Tree], file: Path | None, said: Mapping[str, str | bool]) -> Tree:
    """``tree`` with defaults, then ``file``, then what was ``said`` on the command line (flag -> text).

    Raises UsageError for a file that cannot be read, an unknown section or key, and a value that makes no sense.
    """
    table = _read(file) if file is not None else {}
    known = [name for name, _, _ in sections(tree)]
    for name, content in table.items():
        if name not in known:
            raise UsageError(_unknown(f"{file}: unknown section", f"[{name}]", name, known))
        if not isinstance(content, dict):
            raise UsageError(
                f"{file}: {name} = {content!r} stands for a section; write [{name}] above its keys"
            )
    parts: dict[str, Any] = {}
    for name, kind, entries in sections(tree):
        given = table.get(name, {})
        keys = [entry.key for entry in entries]
        for key in given:
            if key not in keys:
                raise UsageError(_unknown(f"{file}: unknown key", f"[{name}] {key}", key, keys))
        values: dict[str, Any] = {}
        for entry in entries:
            if entry.key in given:  # checked even where the command line wins: else it fails the next time
                values[entry.field] = _from_toml(entry, given[entry.key], f"{file}: [{name}] {entry.key}")
            if entry.flag in said:
                values[entry.field] = _from_text(entry, said[entry.flag])
        parts[name] = kind(**values)
    return tree(**parts)


def meant(word: str, known: Iterable[str]) -> str:
    """`` (did you mean X?)`` where something known is close, else nothing."""
    close = difflib.get_close_matches(word, list(known), 1)
    return f" (did you mean {close[0]}?)" if close else ""


def _unknown(what: str, shown: str, word: str, known: list[str]) -> str:
    return f"{what} {shown}{meant(word, known)}; known: {', '.join(known)}"


def _read(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text("utf-8"))
    except OSError as error:
        raise UsageError(f"--config {file} cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"--config {file} is not TOML: {error}") from None


def _from_text(entry: Entry, found: str | bool) -> Any:
    value: Any = found
    if entry.kind in (int, float):
        try:
            value = entry.kind(found)
        except ValueError:
            value = None
    elif entry.kind is Path:
        value = Path(found) if isinstance(found, str) and found else None
    elif type(found) is not entry.kind:
        value = None
    return _checked(entry, value, f"--{entry.flag} {found}")


def _from_toml(entry: Entry, found: Any, where: str) -> Any:
    value: Any = None
    whole = isinstance(found, int) and not isinstance(found, bool)
    if entry.kind is float and (whole or isinstance(found, float)):
        value = float(found)
    elif entry.kind is str and whole:
        value = str(found)  # camera = 0
    elif entry.kind is Path and isinstance(found, str) and found:
        value = Path(found)
    elif type(found) is entry.kind:
        value = found
    return _checked(entry, value, f"{where} = {found!r}")


def _checked(entry: Entry, value: Any, where: str) -> Any:
    option = entry.option
    match value:
        case None:
            sound = False
        case bool() | Path():
            sound = True
        case int() | float():
            sound = option.low <= value <= option.high  # False for NaN
        case str():
            sound = bool(value) and value == value.strip() and (not option.choices or value in option.choices)
            sound = sound and (option.valid is None or option.valid(value))
    if not sound:
        hint = meant(value, option.choices) if isinstance(value, str) else ""
        raise UsageError(f"{where}: expected {_expected(entry)}{hint}")
    return value


def _expected(entry: Entry) -> str:
    option = entry.option
    if option.expected:
        return option.expected
    if option.choices:
        return "one of " + ", ".join(option.choices)
    if entry.kind in (int, float):
        return f"a {'whole ' if entry.kind is int else ''}number from {option.low:.15g} to {option.high:.15g}"
    return {bool: "true or false", Path: "a path"}.get(entry.kind, "a name without blanks around it")
