"""What `ecmf-models engines tune` found to be fastest on this machine, per model and thread count."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from ecmf.bundle import Bundle
from ecmf.engines.base import Precision
from ecmf.engines.cache import cache_dir


@dataclass(frozen=True)
class Choice:
    backend: str
    precision: Precision
    p50_ms: float
    """Median at batch 1 when it was measured."""


def file() -> Path:
    """Where the choices are kept."""
    return cache_dir() / "engines" / "tuned.json"


@functools.cache
def fingerprint() -> dict[str, Any]:
    """What a measurement depends on; another value makes it void."""
    model = "unknown"
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
        model = next(
            (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), model
        )
    except OSError:
        pass
    versions = {}
    for name in ("openvino", "onnxruntime"):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "none"
    return {"processor": model, "cores": os.cpu_count(), **versions}


def choice(bundle: Bundle, threads: int) -> Choice | None:
    """The stored choice for a model; None where there is none or the machine has changed."""
    found = _read().get("choices", {}).get(_key(bundle, threads))
    try:
        return Choice(**found) if found else None
    except TypeError:
        return None


def store(choices: Mapping[tuple[str, int], Choice]) -> Path:
    """Add choices, by (sha256 of the graph, threads), and give the file. Raises OSError."""
    record = _read() or {"machine": fingerprint(), "choices": {}}
    record["choices"] |= {f"{sha}/{threads}": asdict(value) for (sha, threads), value in choices.items()}
    path = file()
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(record, indent=1) + "\n", "utf-8")
    temporary.replace(path)
    return path


def _read() -> dict[str, Any]:
    try:
        record: dict[str, Any] = json.loads(file().read_text("utf-8"))
        return record if record["machine"] == fingerprint() else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _key(bundle: Bundle, threads: int) -> str:
    return f"{bundle.sha256}/{threads}"
