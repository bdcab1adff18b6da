"""Pick a backend that runs here, build on first use, and say what runs."""

from __future__ import annotations

import hashlib
import logging
import os
from pathlib import Path

from ecmf.bundle import Bundle
from ecmf.engines.base import Backend, Engine, EngineSpec, Precision
from ecmf.engines.onnxruntime import OnnxRuntimeBackend
from ecmf.engines.openvino import OpenVinoBackend
from ecmf.errors import EngineError, UsageError

log = logging.getLogger("ecmf.engines")

BACKENDS: dict[str, Backend] = {b.name: b for b in (OpenVinoBackend(), OnnxRuntimeBackend())}


def cache_dir() -> Path:
    """Where engines and weights are kept: $ECMF_CACHE, else the user's cache folder."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("ECMF_CACHE") or Path(home) / "ecmf-live")


def open_engine(
    bundle: Bundle,
    *,
    backend: str = "auto",
    precision: Precision = "fp32",
    threads: int = 1,
    shapes: dict[str, tuple[int, ...]] | None = None,
) -> Engine:
    """Load the cached engine of ``bundle``, building it first when there is none.

    Raises UsageError for an unknown backend, EngineError when none can run the bundle.
    """
    if backend != "auto" and backend not in BACKENDS:
        raise UsageError(f"unknown engine {backend!r}; choose auto, {', '.join(BACKENDS)}")
    spec = EngineSpec(precision, threads, shapes or {})
    refusals = []
    for name in BACKENDS if backend == "auto" else [backend]:
        candidate = BACKENDS[name]
        usable, reason = candidate.probe()
        if not usable:
            refusals.append(f"{name}: {reason}")
            continue
        try:
            return _build_or_load(candidate, bundle, spec)
        except EngineError as error:
            refusals.append(f"{name}: {error}")
            log.warning("%s cannot run %s: %s", name, bundle.id, error)
    raise EngineError(f"no engine runs {bundle.id}: " + "; ".join(refusals))


def _build_or_load(backend: Backend, bundle: Bundle, spec: EngineSpec) -> Engine:
    key = hashlib.sha256(repr((bundle.sha256, backend.identity(), spec)).encode()).hexdigest()[:24]
    path = cache_dir() / "engines" / f"{bundle.manifest.name}-{backend.name}-{spec.precision}-{key}"
    if path.is_file():
        try:
            return backend.load(path, bundle, spec)
        except EngineError as error:
            log.warning("%s; it is built again", error)
            path.unlink()
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        backend.build(bundle, spec, temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return backend.load(path, bundle, spec)
