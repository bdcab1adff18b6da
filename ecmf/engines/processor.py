"""The processor that CPU engines are built for and measured on."""

from __future__ import annotations

import functools
from pathlib import Path


@functools.cache
def processor() -> str:
    """Its model name, such as "AMD EPYC 9R14"; "unknown" where the system does not tell."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return "unknown"
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown"
    )
