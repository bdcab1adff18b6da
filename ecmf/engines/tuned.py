"""Which CPU engine was measured to be fastest on this machine, per model, threads, precision and shapes."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from ecmf.bundle import Bundle
from ecmf.engines.base import EngineSpec, Precision
from ecmf.engines.cache import Record, cache_dir
from ecmf.engines.processor import processor
from ecmf.fetch import locked


@dataclass(frozen=True)
class Choice:
    backend: str
    precision: Precision
    ms: float
    """Of its least disturbed run on the golden inputs, at batch 1, when it was measured."""
    others: Mapping[str, str] = field(default_factory=dict)
    """Backends that it was chosen over -> why, in a few words."""
    slower: Sequence[str] | None = None
    """Those of them that could run and are slower, where the rest cannot; None: kept before they were told apart."""

    def is_slower(self, backend: str) -> bool:
        """Whether that one of ``others`` is out for its speed; so nearly all are of whom it was not kept."""
        return self.slower is None or backend in self.slower


def file() -> Path:
    """Where the choices are kept."""
    return cache_dir() / "engines" / "tuned.json"


@functools.cache
def fingerprint() -> dict[str, Any]:
    """What a measurement depends on; another value makes it void."""
    versions = {}
    for name in ("openvino", "onnxruntime"):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "none"
    return {"processor": processor(), "cores": os.cpu_count(), **versions}


def key(bundle: Bundle, spec: EngineSpec, precision: Precision | None) -> str:
    """Under which a choice is kept. ``precision``: what was asked for, None for any."""
    shapes = {name: list(shape) for name, shape in sorted(spec.shapes.items())}
    sizes = {name: list(values) for name, values in sorted(spec.sizes.items())}
    asked = json.dumps([shapes, sizes], separators=(",", ":"))
    return f"{bundle.manifest.name}/{bundle.sha256}/{spec.threads}/{precision or 'any'}/{asked}"


def choice(bundle: Bundle, spec: EngineSpec, precision: Precision | None = None) -> Choice | None:
    """The stored choice for a model; None where there is none or the machine has changed."""
    try:
        return Choice(**_read()["choices"][key(bundle, spec, precision)])
    except (KeyError, TypeError):
        return None


def is_chosen(record: Record) -> bool:
    """Whether a cached engine is the one that was found to be fastest here, for any precision or the one asked for."""
    spec = json.loads(record.spec)
    asked = [spec["shapes"], spec.get("sizes", {})]
    for name, found in _read().get("choices", {}).items():
        _, sha256, threads, _, shapes = name.split("/", 4)
        same = (sha256, int(threads), json.loads(shapes)) == (record.model_sha256, spec["threads"], asked)
        if same and (found["backend"], found["precision"]) == (record.backend, record.precision):
            return True
    return False


def store(choices: Mapping[str, Choice]) -> Path:
    """Add choices by ``key``, and give the file. Raises OSError."""
    path = file()
    with locked(path.with_name(f".{path.name}.lock")):
        record = _read() or {"machine": fingerprint(), "choices": {}}
        record["choices"] |= {name: asdict(value) for name, value in choices.items()}
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        temporary.write_text(json.dumps(record, indent=1) + "\n", "utf-8")
        temporary.replace(path)
    return path


def _read() -> dict[str, Any]:
    try:
        record: dict[str, Any] = json.loads(file().read_text("utf-8"))
        return record if record["machine"] == fingerprint() and "choices" in record else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}
