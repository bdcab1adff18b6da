"""Pick a backend that runs here, build on first use, and say what runs and why."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from ecmf.bundle import Bundle
from ecmf.engines import contest, graph, tuned
from ecmf.engines.aoti import AotiBackend
from ecmf.engines.base import Backend, Engine, EngineSpec, Precision, Refusal, Unsuitable
from ecmf.engines.cache import build_or_load, cache_dir
from ecmf.engines.onnxruntime import OnnxRuntimeBackend
from ecmf.engines.openvino import OpenVinoBackend
from ecmf.engines.tensorrt import TensorRtBackend
from ecmf.engines.torch_tensorrt import TorchTensorRtBackend
from ecmf.errors import BundleError, EngineError, UsageError

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
"""In the order in which ``auto`` tries them; among those in CPU a measurement decides."""
CPU = ("openvino", "onnxruntime")
TIE = 1.03
TIE_MS = 0.1
"""Times that differ by a smaller factor, or by less, count as equal: of small graphs the call is the greater part."""


class _Why(NamedTuple):
    """Why a backend does not run."""

    reason: str
    slower: bool = False


def open_engine(
    bundle: Bundle,
    *,
    backend: str = "auto",
    precision: Precision | None = None,
    threads: int = 1,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    sizes: Mapping[str, tuple[int, ...]] | None = None,
) -> Engine:
    """Load the cached engine of ``bundle``, building it first when there is none.

    ``auto`` takes the first GPU backend that can. Without one the CPU's are built and measured side by side, once on a
    machine, and the fastest is kept (see ecmf.engines.tuned). The engine's ``fallback`` says why none that comes
    earlier in BACKENDS runs, and its ``refusals`` which of them merely are slower. ``precision``: None means fp32, or
    what `ecmf-models engines tune` found to be faster.
    ``sizes``: see EngineSpec. Raises UsageError for an unknown backend, EngineError when none can run it.
    """
    if backend != "auto" and backend not in BACKENDS:
        raise UsageError(f"unknown engine {backend!r}; choose auto, {', '.join(BACKENDS)}")
    spec = EngineSpec(precision or "fp32", threads, dict(shapes or {}), dict(sizes or {}))
    refusals: dict[str, _Why] = {}
    names = [name for name in BACKENDS if name not in CPU] if backend == "auto" else [backend]
    engine = _first(names, bundle, spec, refusals)
    if engine is None and backend == "auto":
        engine = _fastest(bundle, spec, precision, refusals)
    if engine is None:
        raise EngineError(f"no engine runs {bundle.id}: {_summary(_grouped(refusals))}")
    order = list(BACKENDS)
    earlier = order[: order.index(engine.backend)]
    engine.refusals = _grouped({name: refusals[name] for name in earlier if name in refusals})
    engine.fallback = _summary(engine.refusals)
    return engine


def _first(
    names: Sequence[str], bundle: Bundle, spec: EngineSpec, refusals: dict[str, _Why]
) -> Engine | None:
    """The first of these backends that gives an engine; why the others do not is added to ``refusals``."""
    for name in names:
        candidate = BACKENDS[name]
        usable, reason = candidate.probe()
        if not usable:
            refusals[name] = _Why(reason)
            log.info("%s is not used for %s: %s", name, bundle.id, reason)
            continue
        try:
            return build_or_load(candidate, bundle, spec)
        except EngineError as error:
            refusals[name] = _Why(str(error))
            level = logging.INFO if isinstance(error, Unsuitable) else logging.WARNING
            log.log(level, "%s cannot run %s: %s", name, bundle.id, error)
    return None


def _fastest(
    bundle: Bundle, spec: EngineSpec, precision: Precision | None, refusals: dict[str, _Why]
) -> Engine | None:
    """The CPU engine that was measured to be fastest here; measured now where it has not been."""
    if bundle.model.suffix != ".onnx":
        return _first(["openvino"], bundle, spec, refusals)  # nothing else reads TensorFlow Lite
    choice = tuned.choice(bundle, spec, precision)
    if choice is None or choice.backend not in CPU:
        return _measured(bundle, spec, precision, refusals)
    engine = _first([choice.backend], bundle, replace(spec, precision=choice.precision), refusals)
    if engine is None:
        return _first([name for name in CPU if name != choice.backend], bundle, spec, refusals)
    refusals |= {name: _Why(reason, choice.is_slower(name)) for name, reason in choice.others.items()}
    return engine


def _measured(
    bundle: Bundle, spec: EngineSpec, precision: Precision | None, refusals: dict[str, _Why]
) -> Engine | None:
    """Build every CPU engine, let them run in turn, and keep which one is fastest."""
    names = list(CPU)
    if spec.precision == "fp32" and graph.quantizes_as_it_runs(bundle.model):
        # Known beforehand: it would compute MiniLM five times as long, and takes seconds to build.
        names.remove("openvino")
        refusals["openvino"] = _Why(
            "it computes int8 weights in float here, at a fifth of onnxruntime's speed", slower=True
        )
    engines = {name: engine for name in names if (engine := _first([name], bundle, spec, refusals))}
    if not engines:
        return None
    try:
        spent = contest.fastest_ms(list(engines.values()), contest.samples(bundle, spec))
    except (EngineError, BundleError) as error:
        log.warning("the engines of %s cannot be measured: %s", bundle.id, error)
        return next(iter(engines.values()))
    times = dict(zip(engines, spent, strict=True))
    # A tie goes to the last, ONNX Runtime, of which several streams may run one copy at a time.
    least = min(times.values())
    best = [name for name in times if times[name] <= max(TIE * least, least + TIE_MS)][-1]
    for name, ms in times.items():
        if name != best:
            told = "no faster" if ms < times[best] else "slower"
            reason = f"{told} here ({ms:.2f} ms; {best} takes {times[best]:.2f} ms)"
            refusals[name] = _Why(reason, slower=True)
    others = {name: refusals[name] for name in CPU if name in refusals}
    log.info("%s runs in %s: %s", bundle.id, best, _summary(_grouped(others)) or "nothing else does")
    choice = tuned.Choice(
        best,
        engines[best].precision,
        times[best],
        {name: why.reason for name, why in others.items()},
        [name for name, why in others.items() if why.slower],
    )
    try:
        tuned.store({tuned.key(bundle, spec, precision): choice})
    except OSError as error:
        log.warning("cannot keep the choice of engine in %s (%s)", tuned.file(), error.strerror or error)
    return engines[best]


def _summary(refusals: Sequence[Refusal]) -> str | None:
    """One line, each reason once with all that it holds for; None when nothing was refused."""
    return "; ".join(f"{', '.join(each.backends)}: {each.reason}" for each in refusals) or None


def _grouped(refusals: Mapping[str, _Why]) -> tuple[Refusal, ...]:
    """Each reason once, with all that it holds for."""
    grouped: dict[_Why, list[str]] = {}
    for name, why in refusals.items():
        grouped.setdefault(why, []).append(name)
    return tuple(Refusal(tuple(names), why.reason, why.slower) for why, names in grouped.items())
