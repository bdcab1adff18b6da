"""AOTInductor: torch compiles the graph into a library; on a GPU each profile is replayed as a CUDA graph."""

from __future__ import annotations

import io
import logging
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecmf.bundle import Bundle
from ecmf.engines import cuda, torch_graph
from ecmf.engines.base import Arrays, EngineSpec, Precision, Refusal, Unsuitable
from ecmf.engines.profiles import fitting, is_static, profiles
from ecmf.errors import EngineError, need

log = logging.getLogger("ecmf.engines")


class AotiBackend:
    """Needs nothing beyond torch; a package must be built on the device that runs it."""

    name = "aoti"
    revision = 1

    def __init__(self, device: str = "cuda") -> None:
        """``device``: cuda, or cpu to compile with the system's C++ compiler."""
        self._device = device

    def probe(self) -> tuple[bool, str]:
        if self._device == "cuda":
            found, reason = cuda.find()
            if found is None:
                return False, reason
        try:
            torch = need("torch", "gpu")
            if self._device == "cuda" and not torch.cuda.is_available():
                return False, f"torch {torch.__version__} does not see the GPU"
        except Exception as error:  # an import that half works fails in many ways
            return False, str(error).splitlines()[0] if str(error) else type(error).__name__
        return True, ""

    def identity(self) -> str:
        found, _ = cuda.find()
        device = f"{found.name} {found.target}" if found and self._device == "cuda" else self._device
        return f"torch {need('torch', 'gpu').__version__} on {device}"

    def build(self, bundle: Bundle, spec: EngineSpec, target: Path) -> None:
        torch = need("torch", "gpu")
        if spec.target:
            raise Unsuitable(f"aoti builds on the device that runs the engine, not for {spec.target}")
        inductor = need("torch._inductor", "gpu")
        torch.backends.cudnn.allow_tf32 = False  # on by default for convolutions
        with tempfile.TemporaryDirectory() as scratch, zipfile.ZipFile(target, "w") as archive:
            for index, profile in enumerate(profiles(bundle, spec)):
                part = Path(scratch) / f"{index}.pt2"
                try:
                    exported, _ = torch_graph.program(bundle, spec, profile, self._device)
                    inductor.aoti_compile_and_package(exported, package_path=str(part))
                except (RuntimeError, ValueError, torch._dynamo.exc.TorchDynamoException) as error:
                    raise EngineError(f"aoti cannot build {bundle.id}: {_first_line(error)}") from None
                archive.write(part, part.name)

    def load(self, path: Path, bundle: Bundle, spec: EngineSpec) -> TorchEngine:
        torch = need("torch", "gpu")
        inductor = need("torch._inductor", "gpu")
        models = []
        try:
            with zipfile.ZipFile(path) as archive:
                for index in range(len(archive.namelist())):
                    package = io.BytesIO(archive.read(f"{index}.pt2"))
                    # The default runner allocates in a way that cannot be recorded into a CUDA graph.
                    models.append(inductor.aoti_load_package(package, run_single_threaded=True))
        except (zipfile.BadZipFile, KeyError, RuntimeError, OSError) as error:
            raise EngineError(f"aoti cannot load the engine of {bundle.id}: {_first_line(error)}") from None
        if self._device == "cpu":
            torch.set_num_threads(spec.threads)
        return TorchEngine(self.name, models, bundle, spec, self._device)


class TorchEngine:
    """Compiled torch programs, one per profile; on a GPU with pinned buffers, one stream and CUDA graphs."""

    fallback: str | None = None
    refusals: tuple[Refusal, ...] = ()

    def __init__(
        self, backend: str, models: list[Any], bundle: Bundle, spec: EngineSpec, device: str
    ) -> None:
        self.backend = backend
        self.precision: Precision = spec.precision
        self._torch = need("torch", "gpu")
        self._models = models
        self._profiles = profiles(bundle, spec)
        self._inputs = [port.name for port in bundle.manifest.inputs]
        self._outputs = [port.name for port in bundle.manifest.outputs]
        self._device = device
        self._stream = self._torch.cuda.Stream() if device == "cuda" else None
        self._recordings: dict[int, _Recording | None] = {}
        """Per profile; None for one that cannot be recorded and runs as it is."""

    def run(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        try:
            shapes = {name: inputs[name].shape for name in self._inputs}
        except KeyError as error:
            raise EngineError(f"{self.backend}: input {error} is missing; expected {self._inputs}") from None
        index = fitting(shapes, self._profiles)
        if index is None:
            raise EngineError(f"{self.backend}: no profile of this engine takes the shapes {shapes}")
        arrays = [np.ascontiguousarray(inputs[name]) for name in self._inputs]
        try:
            with self._torch.no_grad():
                recording = self._recording(index, arrays)
                if recording is not None:
                    results = recording.run(arrays)
                else:
                    tensors = [self._torch.from_numpy(array).to(self._device) for array in arrays]
                    results = [tensor.cpu().numpy().copy() for tensor in self._models[index](*tensors)]
        except RuntimeError as error:
            raise EngineError(f"{self.backend}: {_first_line(error)}") from None
        return dict(zip(self._outputs, results, strict=True))

    def _recording(self, index: int, arrays: list[NDArray[Any]]) -> _Recording | None:
        if self._device != "cuda" or not is_static(self._profiles[index]):
            return None
        if index not in self._recordings:
            self._recordings[index] = None
            try:
                self._recordings[index] = _Recording(self._torch, self._models[index], arrays, self._stream)
            except RuntimeError as error:
                log.warning("%s runs without a CUDA graph, only slower: %s", self.backend, _first_line(error))
        return self._recordings[index]


class _Recording:
    """One static profile as a CUDA graph between pinned buffers; nothing is allocated afterwards."""

    def __init__(
        self,
        torch: Any,
        model: Any,
        arrays: list[NDArray[Any]],
        stream: Any,
    ) -> None:
        self._stream = stream
        self._host = [torch.from_numpy(array.copy()).pin_memory() for array in arrays]
        self._device = [tensor.cuda() for tensor in self._host]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):  # allocations and lazy loading are over before recording
                model(*self._device)
        stream.synchronize()
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, stream=stream):
            self._results = model(*self._device)
        self._out = [torch.empty_like(tensor, device="cpu").pin_memory() for tensor in self._results]
        self._torch = torch

    def run(self, arrays: list[NDArray[Any]]) -> list[NDArray[Any]]:
        with self._torch.cuda.stream(self._stream):
            for host, device, array in zip(self._host, self._device, arrays, strict=True):
                host.copy_(self._torch.from_numpy(array))
                device.copy_(host, non_blocking=True)
            self._graph.replay()
            for out, result in zip(self._out, self._results, strict=True):
                out.copy_(result, non_blocking=True)
        self._stream.synchronize()
        return [out.numpy().copy() for out in self._out]


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
