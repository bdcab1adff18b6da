"""OpenVINO on the CPU; also reads TensorFlow Lite graphs."""

from __future__ import annotations

import io
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecmf.bundle import Bundle
from ecmf.engines import graph
from ecmf.engines.base import Arrays, EngineSpec, Precision, Refusal, Unsuitable
from ecmf.errors import EngineError, MissingExtra, need

STUCK_S = 5.0
"""No model here takes as long for one run."""

_FIRST_LOOK = threading.Lock()

_HINT = {"fp32": "f32", "bf16": "bf16", "fp16": "f16", "int8": "f32"}


def _properties(spec: EngineSpec) -> dict[str, Any]:
    return {
        # Left alone, OpenVINO picks bf16 silently, and quantizes activations beside int8 weights.
        "INFERENCE_PRECISION_HINT": _HINT[spec.precision],
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0,
        "INFERENCE_NUM_THREADS": spec.threads,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
        # Left alone, every model's thread is tied to the same first core, and waits there for the others.
        "ENABLE_CPU_PINNING": False,
    }


def _cautions(model: Any) -> dict[str, Any]:
    """Optimizations to be left out for this graph.

    Of an attention with fixed shapes OpenVINO makes one fused kernel (Snippets' MHA tokenization), and that of the
    fusion head, 4 tokens in heads of 8, answers wrongly: its output is off by 0.9 of the largest value, that of the
    head by 0.05 (2026.4.1 on AVX-512; Transpose(MatMul(Softmax, value)) is the first node that differs, and with
    dynamic shapes nothing does).
    """
    attends = any(node.get_type_name() == "Softmax" for node in model.get_ops())
    return {"SNIPPETS_MODE": "DISABLE"} if attends and not model.is_dynamic() else {}


def _settle() -> None:
    """Let OpenVINO's binding see an array before several threads use it.

    It fills a table on its first look at one, and two threads that look first at the same time wait for each
    other for ever, one of them holding the interpreter's lock: the whole process hangs.
    """
    openvino = need("openvino", "live")
    with _FIRST_LOOK:
        openvino.Tensor(np.zeros(1, np.float32)).data[:] = 0.0


class OpenVinoEngine:
    backend = "openvino"
    concurrent = False
    fallback: str | None = None
    refusals: tuple[Refusal, ...] = ()

    def __init__(self, compiled: Any, bundle: Bundle, precision: Precision) -> None:
        _settle()
        self._openvino = need("openvino", "live")
        self._compiled, self._bundle = compiled, bundle
        self._running: dict[int, float] = {}
        """Who of all that share the model is running it, and since when (time.monotonic)."""
        self._request = compiled.create_infer_request()
        self._origin: OpenVinoEngine | None = None
        # A graph may carry several names per tensor; positions follow the manifest's order.
        self._inputs = [port.name for port in bundle.manifest.inputs]
        self._outputs = [port.name for port in bundle.manifest.outputs]
        self.precision = precision

    def twin(self) -> OpenVinoEngine:
        other = OpenVinoEngine(self._compiled, self._bundle, self.precision)
        other._origin = self._origin or self  # it lives as long as its twins
        other._running = self._running
        return other

    @property
    def stuck(self) -> bool:
        began = min(self._running.copy().values(), default=None)
        return began is not None and time.monotonic() - began > STUCK_S

    def run(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        try:
            arrays = [np.ascontiguousarray(inputs[name]) for name in self._inputs]
            for index, array in enumerate(arrays):
                self._request.set_input_tensor(index, self._openvino.Tensor(array, shared_memory=True))
            self._running[id(self)] = time.monotonic()
            self._request.infer(share_outputs=True)  # here and in the line above, the default is to copy
            return {
                name: self._request.get_output_tensor(index).data.copy()
                for index, name in enumerate(self._outputs)
            }
        except KeyError as error:
            raise EngineError(f"openvino: input {error} is missing; expected {self._inputs}") from None
        except (RuntimeError, TypeError, ValueError) as error:
            raise EngineError(f"openvino: {error}") from None
        finally:
            self._running.pop(id(self), None)


class OpenVinoBackend:
    name = "openvino"
    revision = 1

    def probe(self) -> tuple[bool, str]:
        try:
            need("openvino", "live")
        except MissingExtra as error:
            return False, str(error)
        return True, ""

    def identity(self) -> str:
        openvino = need("openvino", "live")
        device = openvino.Core().get_property("CPU", "FULL_DEVICE_NAME")
        return f"openvino {openvino.__version__} on {device}"

    def build(self, bundle: Bundle, spec: EngineSpec, target: Path) -> None:
        target.write_bytes(self._compiled(bundle, spec).export_model().getvalue())

    def compile(self, bundle: Bundle, spec: EngineSpec) -> OpenVinoEngine:
        """Compile for this run alone. Raises EngineError."""
        return OpenVinoEngine(self._compiled(bundle, spec), bundle, spec.precision)

    def _compiled(self, bundle: Bundle, spec: EngineSpec) -> Any:
        openvino = need("openvino", "live")
        if spec.target:
            raise Unsuitable(f"openvino builds for the processor here, not for {spec.target}")
        core = openvino.Core()
        if spec.precision in ("bf16", "fp16"):
            able = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
            if spec.precision.upper() not in able:
                raise Unsuitable(
                    f"openvino: this processor computes in {', '.join(able)}, not {spec.precision}"
                )
        try:
            path = graph.path_of(bundle, spec.precision)
            if graph.quantizes_as_it_runs(path):
                # OpenVINO emulates that step by step, far slower than float weights.
                model = core.read_model(graph.read(bundle, "fp32").SerializeToString(), b"")
            else:
                model = core.read_model(str(path))
            names = [port.name for port in bundle.manifest.inputs]
            if spec.shapes:
                model.reshape({names.index(name): list(shape) for name, shape in spec.shapes.items()})
            return openvino.compile_model(model, "CPU", _properties(spec) | _cautions(model))
        except RuntimeError as error:
            raise EngineError(f"openvino cannot build {bundle.id}: {error}") from None

    def load(self, path: Path, bundle: Bundle, spec: EngineSpec) -> OpenVinoEngine:
        openvino = need("openvino", "live")
        try:
            compiled = openvino.Core().import_model(io.BytesIO(path.read_bytes()), "CPU", _properties(spec))
        except RuntimeError as error:
            raise EngineError(f"openvino cannot load the engine of {bundle.id}: {error}") from None
        return OpenVinoEngine(compiled, bundle, spec.precision)
