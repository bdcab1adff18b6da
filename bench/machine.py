"""What a benchmark ran on: the same few facts in every JSON file."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path

PACKAGES = (
    "numpy",
    "openvino",
    "onnxruntime",
    "ctranslate2",
    "faster-whisper",
    "llama-cpp-python",
    "pyzmq",
    "torch",
)


def describe() -> dict[str, str | int | float]:
    """Processor, cores this process may use, memory and system; nothing that names the machine or its user."""
    model = "unknown"
    for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "processor": model,
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(memory, 1),
        "system": platform.system(),
        "python": platform.python_version(),
    }


def versions() -> dict[str, str]:
    """Versions of the packages that compute, and the commit where there is one."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    )
    if commit.returncode == 0:
        found["commit"] = commit.stdout.strip()
    return found
