"""TensorRT 10 and 11 and TensorRT for RTX, by one code path: strongly typed network, named tensors, CUDA graphs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecmf.bundle import Bundle
from ecmf.engines import cuda, graph
from ecmf.engines.base import Arrays, EngineSpec, Precision, Refusal, Unsuitable
from ecmf.engines.profiles import Profile, Shape, fitting, is_static, profiles
from ecmf.errors import EngineError, need


class TensorRtBackend:
    """Compiles ONNX into a TensorRT engine. RTX engines can be built for a GPU that is not here."""

    revision = 1

    def __init__(self, name: str, module: str, extra: str) -> None:
        """``module``: what to import, ``tensorrt`` or ``tensorrt_rtx``; ``extra``: what brings it."""
        self.name = name
        self._module = module
        self._extra = extra

    def probe(self) -> tuple[bool, str]:
        found, reason = cuda.find()
        if found is None:
            return False, reason
        try:
            trt = self._trt()
            if hasattr(trt, "ComputeCapability") and not hasattr(
                trt.ComputeCapability, _member(found.target)
            ):
                return False, f"{self.name} {trt.__version__} does not support {found.name} ({found.target})"
        except Exception as error:  # the package on PyPI is a stub that fails in many ways
            return False, str(error).splitlines()[0] if str(error) else type(error).__name__
        return True, ""

    def identity(self) -> str:
        found, _ = cuda.find()
        device = f"{found.name} {found.target}" if found else "no device"
        return f"{self._module} {self._trt().__version__} on {device}"

    def build(self, bundle: Bundle, spec: EngineSpec, target: Path) -> None:
        trt = self._trt()
        content = graph.read(bundle, spec.precision).SerializeToString()
        log = _logger(trt)
        builder = trt.Builder(log)
        strongly_typed = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)  # later: always
        network = builder.create_network(0 if strongly_typed is None else 1 << int(strongly_typed))
        parser = trt.OnnxParser(network, log)
        if not parser.parse(content):
            told = [_told(parser.get_error(index)) for index in range(parser.num_errors)]
            raise EngineError(f"{self.name} cannot parse {bundle.id}: " + "; ".join(told or log.said))
        config = builder.create_builder_config()
        if hasattr(trt.BuilderFlag, "TF32"):
            config.clear_flag(trt.BuilderFlag.TF32)  # on by default; its ten bits of mantissa are not fp32
        self._aim(trt, config, spec)
        for shapes in profiles(bundle, spec):
            profile = builder.create_optimization_profile()
            for name, (low, usual, high) in shapes.items():
                profile.set_shape(name, low, usual, high)
            if config.add_optimization_profile(profile) < 0:
                raise EngineError(f"{self.name} refuses the shapes of {bundle.id}: {'; '.join(log.said)}")
        engine = builder.build_serialized_network(network, config)
        if engine is None:
            raise EngineError(
                f"{self.name} cannot build {bundle.id}: " + "; ".join(log.said or ["no reason given"])
            )
        target.write_bytes(memoryview(engine))

    def load(self, path: Path, bundle: Bundle, spec: EngineSpec) -> TensorRtEngine:
        found, reason = cuda.find()
        if found is None:
            raise EngineError(f"{self.name} cannot load the engine of {bundle.id}: {reason}")
        trt = self._trt()
        cuda.enter()
        log = _logger(trt)
        engine = trt.Runtime(log).deserialize_cuda_engine(path.read_bytes())
        if engine is None:
            raise EngineError(f"{self.name} cannot load the engine of {bundle.id}: {'; '.join(log.said)}")
        return TensorRtEngine(self.name, trt, engine, log, profiles(bundle, spec), spec.precision)

    def _trt(self) -> Any:
        return need(self._module, self._extra)

    def _aim(self, trt: Any, config: Any, spec: EngineSpec) -> None:
        """Name the GPU that the engine is for."""
        found, reason = cuda.find()
        wanted = spec.target or (found.target if found else None)
        if wanted is None:
            raise EngineError(f"{self.name}: {reason}; name the GPU to build for with --target, e.g. sm_86")
        if not hasattr(trt, "ComputeCapability"):
            if found is None or found.target != wanted:
                raise Unsuitable(
                    f"{self.name} builds on the GPU that runs the engine, not for {wanted}; use tensorrt-rtx"
                )
            return
        capability = getattr(trt.ComputeCapability, _member(wanted), None)
        if capability is None:
            known = sorted(f"sm_{name[2:]}" for name in dir(trt.ComputeCapability) if name.startswith("SM"))
            raise Unsuitable(f"{self.name} {trt.__version__} builds for {', '.join(known)}, not {wanted}")
        config.num_compute_capabilities = 1
        config.set_compute_capability(capability, 0)


class TensorRtEngine:
    """A loaded engine: an execution context, buffers and a graph per profile, one stream for all of them."""

    fallback: str | None = None
    refusals: tuple[Refusal, ...] = ()

    def __init__(
        self, backend: str, trt: Any, engine: Any, log: Any, shapes: list[Profile], precision: Precision
    ) -> None:
        self.backend = backend
        self.precision = precision
        self._log = log
        self._engine = engine
        self._profiles = shapes
        self._stream = cuda.Stream()
        self._bindings: dict[int, _Binding] = {}
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        is_input = {name: engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT for name in names}
        self._inputs = {n: np.dtype(trt.nptype(engine.get_tensor_dtype(n))) for n in names if is_input[n]}
        self._outputs = {
            n: np.dtype(trt.nptype(engine.get_tensor_dtype(n))) for n in names if not is_input[n]
        }

    def run(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        missing = self._inputs.keys() - inputs.keys()
        if missing:
            raise EngineError(f"{self.backend}: input {', '.join(sorted(missing))} is missing")
        cuda.enter()
        shapes = {name: inputs[name].shape for name in self._inputs}
        index = fitting(shapes, self._profiles)
        if index is None:
            raise EngineError(f"{self.backend}: no profile of this engine takes the shapes {shapes}")
        if index not in self._bindings:
            self._bindings[index] = _Binding(self, index)
        return self._bindings[index].run(inputs, shapes)

    def said(self) -> str:
        """What TensorRT complained of."""
        return "; ".join(self._log.said) or "no reason given"


class _Binding:
    """One profile ready to run. Buffers hold its largest shapes; nothing is allocated afterwards."""

    def __init__(self, owner: TensorRtEngine, index: int) -> None:
        self._owner = owner
        self._stream = owner._stream
        self._context = owner._engine.create_execution_context()
        if self._context is None:
            raise EngineError(f"{owner.backend} cannot make an execution context: {owner.said()}")
        profile = owner._profiles[index]
        self._static = is_static(profile)
        if not self._context.set_optimization_profile_async(index, self._stream.handle.value):
            raise EngineError(f"{owner.backend} cannot select profile {index}: {owner.said()}")
        self._stream.wait()
        self._shapes: dict[str, Shape] = {}
        self._reshape({name: high for name, (_, _, high) in profile.items()})
        self._buffers: dict[str, cuda.Buffer] = {}
        for name, dtype in (*owner._inputs.items(), *owner._outputs.items()):
            buffer = cuda.Buffer(tuple(self._context.get_tensor_shape(name)), dtype)
            self._context.set_tensor_address(name, buffer.address)
            self._buffers[name] = buffer
        self._graph: cuda.Graph | None = None
        self._runs = 0

    def run(self, inputs: Arrays, shapes: dict[str, Shape]) -> dict[str, NDArray[Any]]:
        self._reshape(shapes)
        for name, dtype in self._owner._inputs.items():
            flat = self._buffers[name].host.reshape(-1)
            flat[: inputs[name].size] = inputs[name].reshape(-1).astype(dtype, copy=False)
        if self._graph is not None:
            self._graph.launch(self._stream)
        else:
            self._enqueue()
        self._stream.wait()
        self._runs += 1
        # The first run compiles kernels and may allocate, which cannot be recorded.
        if self._static and self._graph is None and self._runs == 2:
            self._graph = self._record()
        results = {}
        for name in self._owner._outputs:
            shape = tuple(self._context.get_tensor_shape(name))
            results[name] = self._buffers[name].host.reshape(-1)[: int(np.prod(shape))].reshape(shape).copy()
        return results

    def _reshape(self, shapes: dict[str, Shape]) -> None:
        if shapes == self._shapes:
            return
        for name, shape in shapes.items():
            if not self._context.set_input_shape(name, shape):
                raise EngineError(
                    f"{self._owner.backend} refuses {name} of shape {shape}: {self._owner.said()}"
                )
        self._shapes = dict(shapes)

    def _enqueue(self) -> None:
        for name in self._owner._inputs:
            self._buffers[name].upload(self._stream)
        if not self._context.execute_async_v3(self._stream.handle.value):
            raise EngineError(f"{self._owner.backend} fails to run: {self._owner.said()}")
        for name in self._owner._outputs:
            self._buffers[name].download(self._stream)

    def _record(self) -> cuda.Graph | None:
        """Copies and kernels as one CUDA graph; None where the network cannot be recorded."""
        try:
            self._stream.begin()
            self._enqueue()
            return self._stream.end()
        except EngineError:
            self._stream.abandon()
            self._static = False  # it runs as well without, only slower
            return None


def _member(target: str) -> str:
    """sm_86 -> SM86, as TensorRT names it."""
    return target.upper().replace("_", "")


def _logger(trt: Any) -> Any:
    """A logger that keeps errors instead of printing them. The caller keeps it as long as what uses it."""

    class Log(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.said: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if int(severity) <= int(trt.ILogger.ERROR):
                self.said.append(message)

    return Log()


def _told(error: Any) -> str:
    node = f" at node {error.node_name()!r} ({error.node_operator()})" if error.node_operator() else ""
    return f"{error.desc()}{node} [{error.func()}, {error.file()}:{error.line()}]"
