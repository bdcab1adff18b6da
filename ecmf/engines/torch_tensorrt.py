"""torch-tensorrt: torch exports the graph, TensorRT compiles what it can of it, torch runs the rest."""

from __future__ import annotations

import inspect
import io
import tempfile
import zipfile
from pathlib import Path
from typing import Any

from ecmf.bundle import Bundle
from ecmf.engines import cuda, torch_graph
from ecmf.engines.aoti import TorchEngine
from ecmf.engines.base import EngineSpec, Unsuitable
from ecmf.engines.profiles import is_static, profiles
from ecmf.errors import EngineError, need


class TorchTensorRtBackend:
    name = "torch-tensorrt"
    revision = 1

    def probe(self) -> tuple[bool, str]:
        found, reason = cuda.find()
        if found is None:
            return False, reason
        try:
            trt, torch = need("torch_tensorrt", "gpu"), need("torch", "gpu")
            if trt.__version__.split(".")[:2] != torch.__version__.split(".")[:2]:
                return False, f"torch-tensorrt {trt.__version__} does not fit torch {torch.__version__}"
            if not torch.cuda.is_available():
                return False, f"torch {torch.__version__} does not see the GPU"
        except Exception as error:  # importing it raises a plain Exception without a driver
            return False, str(error).splitlines()[0] if str(error) else type(error).__name__
        return True, ""

    def identity(self) -> str:
        found, _ = cuda.find()
        device = f"{found.name} {found.target}" if found else "no device"
        return f"torch-tensorrt {need('torch_tensorrt', 'gpu').__version__} on {device}"

    def build(self, bundle: Bundle, spec: EngineSpec, target: Path) -> None:
        if spec.target:
            raise Unsuitable(f"torch-tensorrt builds on the GPU that runs the engine, not for {spec.target}")
        if spec.precision == "int8":
            raise Unsuitable("torch-tensorrt is not given int8 graphs here; use tensorrt")
        torch, trt = need("torch", "gpu"), need("torch_tensorrt", "gpu")
        with tempfile.TemporaryDirectory() as scratch, zipfile.ZipFile(target, "w") as archive:
            for index, profile in enumerate(profiles(bundle, spec)):
                if not is_static(profile):
                    raise Unsuitable(
                        f"torch-tensorrt is built for fixed shapes here; {bundle.id} has free ones"
                    )
                part = Path(scratch) / f"{index}.ep"
                try:
                    exported, examples = torch_graph.program(bundle, spec, profile, "cuda")
                    compiled = trt.dynamo.compile(
                        exported, arg_inputs=examples, disable_tf32=True, **_typing(trt)
                    )
                    trt.save(compiled, str(part), arg_inputs=examples)
                except (RuntimeError, ValueError, torch._dynamo.exc.TorchDynamoException) as error:
                    raise EngineError(f"torch-tensorrt cannot build {bundle.id}: {error}") from None
                archive.write(part, part.name)

    def load(self, path: Path, bundle: Bundle, spec: EngineSpec) -> TorchEngine:
        trt = need("torch_tensorrt", "gpu")
        models = []
        try:
            with zipfile.ZipFile(path) as archive:
                for index in range(len(archive.namelist())):
                    models.append(trt.load(io.BytesIO(archive.read(f"{index}.ep"))).module())
        except (zipfile.BadZipFile, KeyError, RuntimeError, OSError, ValueError) as error:
            raise EngineError(f"torch-tensorrt cannot load the engine of {bundle.id}: {error}") from None
        return TorchEngine(self.name, models, bundle, spec, "cuda")


def _typing(trt: Any) -> dict[str, bool]:
    """That the graph's own number types hold, for versions in which this is a choice; later ones know nothing else."""
    known = inspect.signature(trt.dynamo.compile).parameters
    return {"use_explicit_typing": True} if "use_explicit_typing" in known else {}
