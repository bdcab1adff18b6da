"""What a run amounted to: collected while it runs, printed when it ends."""

from __future__ import annotations

import os
import resource
import time
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ecmf.cue import MODALITIES
from realtime.message import Estimate

KEPT = 50_000
"""Latencies kept per trigger for the percentiles: about an hour at full rate, then the oldest go."""


@dataclass(frozen=True)
class Percentiles:
    """Milliseconds over the kept samples."""

    count: int
    p50: float
    p95: float
    p99: float
    max: float


@dataclass(frozen=True)
class Summary:
    """Figures of one run; latencies are null when annotating, where time is media time."""

    seconds: float
    """Wall time from the first estimate to the last."""
    estimates: int
    labels: Mapping[str, int]
    """How often each label was published; 'none' counts those without one."""
    present: Mapping[str, float]
    """Share of estimates in which each modality was present."""
    latency_ms: Mapping[str, Percentiles]
    """Publication minus capture, per trigger."""
    drops: Mapping[str, int]
    """Samples dropped, by worker and cause."""
    cores: float
    """CPU seconds per wall second since the start of the pipeline, all threads."""
    peak_rss_mb: float
    cold_start_s: float | None
    """Process start to first label."""
    engines: Mapping[str, str]
    notes: tuple[str, ...] = ()

    @property
    def rate_hz(self) -> float:
        return (self.estimates - 1) / self.seconds if self.seconds > 0 and self.estimates > 1 else 0.0


class Recent:
    """The last KEPT numbers, in memory that is reserved once: what runs for hours must not grow."""

    def __init__(self) -> None:
        self._values = np.zeros(KEPT, np.float32)
        self._count = 0

    def append(self, value: float) -> None:
        self._values[self._count % KEPT] = value
        self._count += 1

    def values(self) -> NDArray[np.float32]:
        """float32[n], in no particular order."""
        return self._values[: min(self._count, KEPT)]


@dataclass
class Tally:
    """Counts published estimates; one thread writes."""

    latencies: dict[str, Recent] = field(default_factory=lambda: defaultdict(Recent))
    labels: Counter[str] = field(default_factory=Counter)
    present: Counter[str] = field(default_factory=Counter)
    estimates: int = 0
    first_ns: int | None = None
    last_ns: int = 0
    first_label_s: float | None = None
    _wall_start: float = field(default_factory=time.perf_counter)
    _cpu_start: float = field(default_factory=time.process_time)

    def count(self, estimate: Estimate) -> None:
        """Take one published estimate."""
        self.estimates += 1
        self.labels[estimate.label or "none"] += 1
        for name, state in estimate.modalities.items():
            self.present[name] += state.present
        if self.first_ns is None:
            self.first_ns = estimate.t_publish_ns
        self.last_ns = estimate.t_publish_ns
        if estimate.label is not None and self.first_label_s is None:
            self.first_label_s = _process_age_s()
        if estimate.latency_ms is not None:
            self.latencies[estimate.trigger].append(estimate.latency_ms["total"])

    def summary(
        self, drops: Mapping[str, int], engines: Mapping[str, str], notes: tuple[str, ...] = ()
    ) -> Summary:
        wall = time.perf_counter() - self._wall_start
        total = max(1, self.estimates)
        return Summary(
            seconds=(self.last_ns - (self.first_ns or 0)) * 1e-9 if self.estimates else 0.0,
            estimates=self.estimates,
            labels=dict(self.labels.most_common()),
            present={m: self.present[m] / total for m in MODALITIES},
            latency_ms={name: percentiles(kept.values()) for name, kept in self.latencies.items()},
            drops={name: count for name, count in drops.items() if count},
            cores=(time.process_time() - self._cpu_start) / wall if wall > 0 else 0.0,
            peak_rss_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
            cold_start_s=self.first_label_s,
            engines=engines,
            notes=notes,
        )


def percentiles(array: NDArray[np.float32]) -> Percentiles:
    """p50, p95, p99 and maximum of milliseconds, float32[n] with at least one."""
    p50, p95, p99 = np.percentile(array, [50, 95, 99])
    return Percentiles(len(array), float(p50), float(p95), float(p99), float(array.max()))


def _process_age_s() -> float:
    """Seconds since this process was started, from the kernel's own record."""
    fields = Path("/proc/self/stat").read_text("ascii").rpartition(")")[2].split()
    started = int(fields[19]) / os.sysconf("SC_CLK_TCK")
    return float(Path("/proc/uptime").read_text("ascii").split()[0]) - started
