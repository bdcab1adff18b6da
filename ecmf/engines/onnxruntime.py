"""ONNX Runtime on the CPU."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from ecmf.bundle import Bundle
from ecmf.engines import graph
from ecmf.engines.base import Arrays, EngineSpec, Precision, Refusal, Unsuitable
from ecmf.engines.processor import processor
from ecmf.errors import EngineError, MissingExtra, need


@functools.cache
def failures() -> tuple[type[Exception], ...]:
    """What ONNX Runtime raises: a dozen classes that have nothing but Exception in common."""
    native = need("onnxruntime.capi.onnxruntime_pybind11_state", "live")
    own = (each for each in vars(native).values() if isinstance(each, type) and issubclass(each, Exception))
    return (RuntimeError, ValueError, *own)


def _options(spec: EngineSpec) -> Any:
    ort = need("onnxruntime", "live")
    options = ort.SessionOptions()
    options.intra_op_num_threads = spec.threads
    options.inter_op_num_threads = 1
    # Spinning workers steal the core from the other models' threads.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    return options


class OnnxRuntimeEngine:
    backend = "onnxruntime"
    concurrent = True
    stuck = False
    fallback: str | None = None
    refusals: tuple[Refusal, ...] = ()

    def __init__(self, session: Any, precision: Precision) -> None:
        self._session = session
        self._outputs = [output.name for output in session.get_outputs()]
        self.precision = precision
        self._origin: OnnxRuntimeEngine | None = None

    def twin(self) -> OnnxRuntimeEngine:
        other = OnnxRuntimeEngine(self._session, self.precision)
        other._origin = self._origin or self  # it lives as long as its twins
        return other

    def run(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        return self._run(inputs, None)

    def run_once(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """The arena grows by doubling, and by itself never shrinks."""
        options = need("onnxruntime", "live").RunOptions()
        options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
        return self._run(inputs, options)

    def _run(self, inputs: Arrays, options: Any) -> dict[str, NDArray[Any]]:
        try:
            return dict(zip(self._outputs, self._session.run(None, dict(inputs), options), strict=True))
        except failures() as error:
            raise EngineError(f"onnxruntime: {error}") from None


class OnnxRuntimeBackend:
    name = "onnxruntime"
    revision = 1

    def probe(self) -> tuple[bool, str]:
        try:
            need("onnxruntime", "live")
        except MissingExtra as error:
            return False, str(error)
        return True, ""

    def identity(self) -> str:
        return f"onnxruntime {need('onnxruntime', 'live').__version__} on {processor()}"

    def build(self, bundle: Bundle, spec: EngineSpec, target: Path) -> None:
        ort = need("onnxruntime", "live")
        if bundle.model.suffix != ".onnx":
            raise Unsuitable(f"onnxruntime cannot read {bundle.model.name}; use --backend openvino")
        if spec.target:
            raise Unsuitable(f"onnxruntime builds for the processor here, not for {spec.target}")
        if spec.precision not in ("fp32", "int8"):
            raise Unsuitable(f"onnxruntime computes in fp32 or int8 on a CPU, not {spec.precision}")
        source = graph.path_of(bundle, spec.precision)
        options = _options(spec)
        options.optimized_model_filepath = str(target)
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
        try:
            ort.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])
        except failures() as error:
            raise EngineError(f"onnxruntime cannot build {bundle.id}: {error}") from None

    def load(self, path: Path, bundle: Bundle, spec: EngineSpec) -> OnnxRuntimeEngine:
        ort = need("onnxruntime", "live")
        try:
            session = ort.InferenceSession(str(path), _options(spec), providers=["CPUExecutionProvider"])
        except failures() as error:
            raise EngineError(f"onnxruntime cannot load the engine of {bundle.id}: {error}") from None
        return OnnxRuntimeEngine(session, spec.precision)
