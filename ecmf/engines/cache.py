"""Where built engines are kept: one folder each, the engine beside a record of what it is."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ecmf.bundle import Bundle, sha256_of
from ecmf.engines import graph
from ecmf.engines.base import Backend, Engine, EngineSpec, Unsuitable
from ecmf.engines.shared import share
from ecmf.errors import EngineError, MissingExtra
from ecmf.fetch import locked

log = logging.getLogger("ecmf.engines")


def cache_dir() -> Path:
    """Where engines, bundles and weights are kept: $ECMF_CACHE, else the user's cache folder."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("ECMF_CACHE") or Path(home) / "ecmf-live")


@dataclass(frozen=True)
class Record:
    """What is known of a cached engine.

    Another model, twin, backend, identity, precision, spec or revision leads to another key; another ``bundle`` does
    not where its name and graph are the same.
    """

    bundle: str
    model_sha256: str
    backend: str
    identity: str
    """Version and device."""
    precision: str
    spec: str
    engine_sha256: str
    size: int
    """Bytes."""
    build_s: float
    """Seconds it took to build."""
    target: str | None = None
    """Compute capability it was built for, where that is not the device here."""
    parity: Mapping[str, Any] | None = None
    """ecmf.engines.parity.ParityReport; None: not proven."""
    unproven: str | None = None
    """Why there is no parity report."""
    revision: int = 0
    """Of the backend's way of building; 0: from before these were counted."""
    twin_sha256: str | None = None
    """Of the int8 graph that it was built of; None in other precisions, and from before this was kept."""


def key(bundle: Bundle, backend: Backend, spec: EngineSpec) -> str:
    """Folder name: readable parts, then a hash of everything the engine depends on."""
    twin = _twin(bundle, spec)
    parts = (bundle.sha256, twin, backend.name, backend.identity(), backend.revision, _spec(spec))
    digest = hashlib.sha256(repr(parts).encode()).hexdigest()[:16]
    return f"{bundle.manifest.name}-{backend.name}-{spec.precision}-{digest}"


def build_or_load(backend: Backend, bundle: Bundle, spec: EngineSpec) -> Engine:
    """The cached engine; built first where there is none, and again where it is broken.

    A cache folder that cannot be written is one warning; the engine is then built for this run alone. Processes
    that want the same engine wait for the one that builds it; within one they share it. Raises EngineError.
    """
    folder = cache_dir() / "engines" / key(bundle, backend, spec)
    return share(str(folder), lambda: _build_or_load(folder, backend, bundle, spec))


def _build_or_load(folder: Path, backend: Backend, bundle: Bundle, spec: EngineSpec) -> Engine:
    engine = _load(folder, backend, bundle, spec)
    if engine is not None:
        return engine
    try:
        with locked(folder.with_name(f".{folder.name}.lock")):
            engine = _load(folder, backend, bundle, spec)  # another process may have built it meanwhile
            if engine is None:
                _build(folder, backend, bundle, spec)
                engine = _load(folder, backend, bundle, spec)
    except OSError as error:
        log.warning(
            "cannot keep engines in %s (%s); %s is built for this run alone", folder.parent, error, bundle.id
        )
        with tempfile.TemporaryDirectory() as temporary:
            target = Path(temporary) / "engine.bin"
            backend.build(bundle, spec, target)
            engine = backend.load(target, bundle, spec)
            _prove(engine, bundle, spec)
            return engine
    if engine is None:
        raise EngineError(f"{backend.name} cannot load the engine of {bundle.id} that it has just built")
    return engine


def build(backend: Backend, bundle: Bundle, spec: EngineSpec) -> tuple[Path, Record]:
    """Have the engine in the cache, without loading it where it is there; proven where it was not and now can be.

    Folder and record. Raises EngineError, and OSError when the cache cannot be written.
    """
    folder = cache_dir() / "engines" / key(bundle, backend, spec)
    with locked(folder.with_name(f".{folder.name}.lock")):
        record, path = _record(folder), folder / "engine.bin"
        if record is None or not path.is_file() or sha256_of(path) != record.engine_sha256:
            _build(folder, backend, bundle, spec)
        elif record.parity is None and spec.target is None:
            try:
                parity, unproven = _prove(backend.load(path, bundle, spec), bundle, spec)
            except EngineError as error:
                log.warning("%s; it is built again", error)
                _build(folder, backend, bundle, spec)
            else:
                _write(folder, replace(record, parity=parity, unproven=unproven))
        return folder, Record(**json.loads((folder / "engine.json").read_text("utf-8")))


def _record(folder: Path) -> Record | None:
    try:
        return Record(**json.loads((folder / "engine.json").read_text("utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def records() -> Iterator[tuple[Path, Record]]:
    """Every engine in the cache, by name; broken entries are left out."""
    for path in sorted((cache_dir() / "engines").glob("*/engine.json")):
        try:
            yield path.parent, Record(**json.loads(path.read_text("utf-8")))
        except (ValueError, TypeError, OSError):
            continue


def _load(folder: Path, backend: Backend, bundle: Bundle, spec: EngineSpec) -> Engine | None:
    """None when there is none; one that is damaged or refused by its backend is thrown away first."""
    path = folder / "engine.bin"
    try:
        record = Record(**json.loads((folder / "engine.json").read_text("utf-8")))
        if sha256_of(path) != record.engine_sha256:  # a backend may crash on a truncated file
            raise EngineError(f"the cached engine {path} is damaged")
        if record.model_sha256 != bundle.sha256:
            raise EngineError(f"the cached engine {path} is of another model, {record.bundle}")
        if record.identity != backend.identity():
            raise EngineError(
                f"the cached engine {path} is of {record.identity}, here is {backend.identity()}"
            )
        return backend.load(path, bundle, spec)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (EngineError, ValueError, TypeError) as error:
        log.warning("%s; it is built again", error)
        shutil.rmtree(folder, ignore_errors=True)
        return None


def _build(folder: Path, backend: Backend, bundle: Bundle, spec: EngineSpec) -> None:
    """Into a temporary folder, then renamed: an interrupted build leaves nothing that could be taken for one."""
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        target = temporary / "engine.bin"
        log.info("building %s with %s (%s)", bundle.id, backend.name, spec.precision)
        began = time.perf_counter()
        backend.build(bundle, spec, target)
        build_s = round(time.perf_counter() - began, 3)
        parity: Mapping[str, Any] | None = None
        unproven: str | None = f"built for {spec.target}, not for the device here"
        if spec.target is None:
            parity, unproven = _prove(backend.load(target, bundle, spec), bundle, spec)
        record = Record(
            bundle=bundle.id,
            model_sha256=bundle.sha256,
            backend=backend.name,
            identity=backend.identity(),
            precision=spec.precision,
            spec=_spec(spec),
            engine_sha256=sha256_of(target),
            size=target.stat().st_size,
            build_s=build_s,
            target=spec.target,
            parity=parity,
            unproven=unproven,
            revision=backend.revision,
            twin_sha256=_twin(bundle, spec),
        )
        _write(temporary, record)
        shutil.rmtree(folder, ignore_errors=True)
        temporary.replace(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write(folder: Path, record: Record) -> None:
    temporary = folder / ".engine.json"
    temporary.write_text(json.dumps(asdict(record), indent=1) + "\n", "utf-8")
    temporary.replace(folder / "engine.json")


def _prove(engine: Engine, bundle: Bundle, spec: EngineSpec) -> tuple[dict[str, Any] | None, str | None]:
    """The parity report, or why there is none. Raises EngineError for an engine that answers otherwise."""
    from ecmf.engines import parity
    from ecmf.golden import NoGolden

    try:
        report = parity.check(engine, bundle, spec)
    except (NoGolden, Unsuitable, MissingExtra) as reason:
        log.warning(
            "the %s engine of %s is not proven against the plain graph: %s",
            engine.backend,
            bundle.id,
            str(reason),
        )
        return None, str(reason)
    if not report.passed:
        raise EngineError(
            f"{engine.backend} {engine.precision} fails parity for {bundle.id}: {report.verdict}; the engine is refused"
        )
    log.info("%s %s of %s passes parity: %s", engine.backend, engine.precision, bundle.id, report.verdict)
    return report.record(), None


def _twin(bundle: Bundle, spec: EngineSpec) -> str | None:
    return bundle.manifest.files.get(graph.INT8) if spec.precision == "int8" else None


def _spec(spec: EngineSpec) -> str:
    return json.dumps(asdict(spec), sort_keys=True, default=list)
