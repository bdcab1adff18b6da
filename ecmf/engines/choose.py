"""Pick a backend that runs here, build on first use, and say what runs."""

from __future__ import annotations

import logging

from ecmf.bundle import Bundle
from ecmf.engines.base import Backend, Engine, EngineSpec, Precision
from ecmf.engines.cache import build_or_load, cache_dir
from ecmf.engines.onnxruntime import OnnxRuntimeBackend
from ecmf.engines.openvino import OpenVinoBackend
from ecmf.errors import EngineError, UsageError

__all__ = ["BACKENDS", "cache_dir", "open_engine"]

log = logging.getLogger("ecmf.engines")

BACKENDS: dict[str, Backend] = {b.name: b for b in (OpenVinoBackend(), OnnxRuntimeBackend())}


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
            return build_or_load(candidate, bundle, spec)
        except EngineError as error:
            refusals.append(f"{name}: {error}")
            log.warning("%s cannot run %s: %s", name, bundle.id, error)
    raise EngineError(f"no engine runs {bundle.id}: " + "; ".join(refusals))
