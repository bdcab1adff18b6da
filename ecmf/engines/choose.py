"""Pick a backend that runs here, build on first use, and say what runs and why."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from ecmf.bundle import Bundle
from ecmf.engines import graph, tuned
from ecmf.engines.aoti import AotiBackend
from ecmf.engines.base import Backend, Engine, EngineSpec, Precision, Unsuitable
from ecmf.engines.cache import build_or_load, cache_dir
from ecmf.engines.onnxruntime import OnnxRuntimeBackend
from ecmf.engines.openvino import OpenVinoBackend
from ecmf.engines.tensorrt import TensorRtBackend
from ecmf.engines.torch_tensorrt import TorchTensorRtBackend
from ecmf.errors import EngineError, UsageError

__all__ = ["BACKENDS", "cache_dir", "open_engine"]

log = logging.getLogger("ecmf.engines")

BACKENDS: dict[str, Backend] = {
    backend.name: backend
    for backend in (
        TensorRtBackend("tensorrt", "tensorrt", "gpu"),
        TensorRtBackend("tensorrt-rtx", "tensorrt_rtx", "gpu-rtx"),
        TorchTensorRtBackend(),
        AotiBackend(),
        OpenVinoBackend(),
        OnnxRuntimeBackend(),
    )
}
"""In the order in which ``auto`` tries them."""


def open_engine(
    bundle: Bundle,
    *,
    backend: str = "auto",
    precision: Precision | None = None,
    threads: int = 1,
    shapes: dict[str, tuple[int, ...]] | None = None,
    sizes: Mapping[str, tuple[int, ...]] | None = None,
) -> Engine:
    """Load the cached engine of ``bundle``, building it first when there is none.

    ``auto`` takes what `ecmf-models engines tune` measured to be fastest on this machine, else the first of `order`
    that can; the engine's ``fallback`` then says why no earlier one does. ``precision``: None means fp32, or the tuned
    one. ``sizes``: see EngineSpec. Raises UsageError for an unknown backend, EngineError when none can run it.
    """
    if backend != "auto" and backend not in BACKENDS:
        raise UsageError(f"unknown engine {backend!r}; choose auto, {', '.join(BACKENDS)}")
    refusals: dict[str, str] = {}
    for name, number_type in _candidates(bundle, backend, precision, threads):
        candidate = BACKENDS[name]
        usable, reason = candidate.probe()
        if not usable:
            refusals[name] = reason
            log.info("%s is not used for %s: %s", name, bundle.id, reason)
            continue
        try:
            engine = build_or_load(
                candidate, bundle, EngineSpec(number_type, threads, shapes or {}, sizes or {})
            )
        except EngineError as error:
            refusals[name] = str(error)
            expected = isinstance(error, Unsuitable)
            log.log(
                logging.INFO if expected else logging.WARNING, "%s cannot run %s: %s", name, bundle.id, error
            )
            continue
        engine.fallback = _summary(refusals)
        return engine
    raise EngineError(f"no engine runs {bundle.id}: {_summary(refusals)}")


SMALL = 1_000_000
"""Bytes of a graph under which the call counts for more than the work."""


def order(bundle: Bundle) -> list[str]:
    """Backends for ``auto``, best first.

    A graph that quantizes its activations as it runs is ONNX Runtime's own: there it takes a fifth of the time that
    float weights take in OpenVINO. So is a small one: a call of OpenVINO's costs more than the work in it (the fusion
    head: 0.32 against 0.04 ms).
    """
    names = list(BACKENDS)
    small = bundle.model.suffix == ".onnx" and bundle.model.stat().st_size < SMALL
    if small or graph.quantizes_as_it_runs(bundle.model):
        names.remove("onnxruntime")
        names.insert(names.index("openvino"), "onnxruntime")
    return names


def _candidates(
    bundle: Bundle, backend: str, precision: Precision | None, threads: int
) -> list[tuple[str, Precision]]:
    """Backends with their precision, best first."""
    if backend != "auto":
        return [(backend, precision or "fp32")]
    candidates: list[tuple[str, Precision]] = [(name, precision or "fp32") for name in order(bundle)]
    choice = tuned.choice(bundle, threads) if precision is None else None
    if choice is not None and choice.backend in BACKENDS:
        candidates.insert(0, (choice.backend, choice.precision))
    return candidates


def _summary(refusals: Mapping[str, str]) -> str | None:
    """One line, each reason once with all that it holds for; None when nothing was refused."""
    grouped: dict[str, list[str]] = {}
    for name, reason in refusals.items():
        grouped.setdefault(reason, []).append(name)
    return "; ".join(f"{', '.join(names)}: {reason}" for reason, names in grouped.items()) or None
