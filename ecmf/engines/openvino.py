"""OpenVINO on the CPU; also reads TensorFlow Lite graphs."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecmf.bundle import Bundle
from ecmf.engines.base import Arrays, EngineSpec, Precision
from ecmf.errors import EngineError, MissingExtra, need

_HINT = {"fp32": "f32", "bf16": "bf16", "fp16": "f16", "int8": "f32"}


def _properties(spec: EngineSpec) -> dict[str, Any]:
    return {
        "INFERENCE_PRECISION_HINT": _HINT[spec.precision],  # left alone, OpenVINO picks bf16 silently
        "INFERENCE_NUM_THREADS": spec.threads,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
    }


class OpenVinoEngine:
    backend = "openvino"

    def __init__(self, compiled: Any, bundle: Bundle, precision: Precision) -> None:
        self._request = compiled.create_infer_request()
        # A graph may carry several names per tensor; positions follow the manifest's order.
        self._inputs = [port.name for port in bundle.manifest.inputs]
        self._outputs = [port.name for port in bundle.manifest.outputs]
        self.precision = precision

    def run(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        try:
            results = self._request.infer([np.ascontiguousarray(inputs[name]) for name in self._inputs])
        except KeyError as error:
            raise EngineError(f"openvino: input {error} is missing; expected {self._inputs}") from None
        except RuntimeError as error:
            raise EngineError(f"openvino: {error}") from None
        return {name: np.array(results[index]) for index, name in enumerate(self._outputs)}


class OpenVinoBackend:
    name = "openvino"

    def probe(self) -> tuple[bool, str]:
        try:
            need("openvino", "live")
        except MissingExtra as error:
            return False, str(error)
        return True, ""

    def identity(self) -> str:
        openvino = need("openvino", "live")
        device = openvino.Core().get_property("CPU", "FULL_DEVICE_NAME")
        return f"openvino-{openvino.__version__}-{device}"

    def build(self, bundle: Bundle, spec: EngineSpec, target: Path) -> None:
        openvino = need("openvino", "live")
        try:
            model = openvino.Core().read_model(str(bundle.model))
            names = [port.name for port in bundle.manifest.inputs]
            if spec.shapes:
                model.reshape({names.index(name): list(shape) for name, shape in spec.shapes.items()})
            compiled = openvino.compile_model(model, "CPU", _properties(spec))
            target.write_bytes(compiled.export_model().getvalue())
        except RuntimeError as error:
            raise EngineError(f"openvino cannot build {bundle.id}: {error}") from None

    def load(self, path: Path, bundle: Bundle, spec: EngineSpec) -> OpenVinoEngine:
        openvino = need("openvino", "live")
        try:
            compiled = openvino.Core().import_model(io.BytesIO(path.read_bytes()), "CPU", _properties(spec))
        except RuntimeError as error:
            raise EngineError(f"openvino cannot load the engine of {bundle.id}: {error}") from None
        return OpenVinoEngine(compiled, bundle, spec.precision)
