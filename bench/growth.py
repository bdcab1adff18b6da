"""What was seen in hours of running, and whether it grew, slowed down or lost anything. Pure but for reading /proc."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bench.figures import other_cores
from bench.live import Usage
from ecmf.errors import SourceError

SETTLING_S, EDGE_S, ENDS_S = 180.0, 60.0, 300.0
"""Left out at the beginning; stretch at both ends over which growth is told; stretches whose p99 are compared.
A run that is too short for them takes an eighth, a sixteenth and a sixth of its length."""
GROWTH, SLOWER = 0.01, 0.20
"""What the project allows: growth of memory, and of p99 latency, as shares."""
JUDGED = ("face", "voice")
"""Triggers whose latency is judged; the others come too seldom for a p99."""


@dataclass(frozen=True)
class Sample:
    """What the process holds at one moment."""

    t_s: float
    """Since the first label."""
    rss_mb: float
    own_mb: float
    """Of it, what is not a file mapped into memory."""
    files: int
    threads: int

    @classmethod
    def of(cls, pid: int, t_s: float) -> Sample:
        """Read now. Raises SourceError when the process is gone."""
        try:
            status = Path(f"/proc/{pid}/status").read_text("ascii")
            told = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
            files = len(list(Path(f"/proc/{pid}/fd").iterdir()))
            return cls(
                t_s,
                int(told["VmRSS"].split()[0]) / 1024,
                int(told["RssAnon"].split()[0]) / 1024,
                files,
                int(told["Threads"]),
            )
        except (OSError, KeyError):
            raise SourceError("ecmf-live ended before the soak did") from None


@dataclass
class Soak:
    """What was seen, from the first label on."""

    samples: list[Sample] = field(default_factory=list)
    usage: list[Usage] = field(default_factory=list)
    latency: dict[str, list[tuple[float, float]]] = field(default_factory=lambda: defaultdict(list))
    """Per trigger: seconds since the first label, and milliseconds from capture to here."""
    messages: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    gaps: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    """Sequence numbers that never came, per kind of message."""
    runs: set[str] = field(default_factory=set)
    restarts: dict[str, int] = field(default_factory=dict)
    degraded_s: int = 0
    """Health messages, one a second, that told of something reduced."""
    notes: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    """What health said, and how often."""
    ended: str | None = None
    """Why it ended before its time."""


def judge(soak: Soak) -> dict[str, Any]:
    """Figures and verdicts. Pure."""
    length_s = soak.samples[-1].t_s
    settling_s, edge_s = min(SETTLING_S, length_s / 8), min(EDGE_S, length_s / 16)
    ends_s = min(ENDS_S, length_s / 6)
    first = [s for s in soak.samples if settling_s <= s.t_s < settling_s + edge_s] or soak.samples[:1]
    last = [s for s in soak.samples if s.t_s >= length_s - edge_s]
    growth: dict[str, dict[str, float]] = {}
    for name in ("rss_mb", "own_mb", "files", "threads"):
        before, after = (float(np.median([getattr(s, name) for s in part])) for part in (first, last))
        growth[name] = {
            "first": round(before, 2),
            "last": round(after, 2),
            "share": round(after / before - 1, 5),
            "max": round(float(max(getattr(s, name) for s in soak.samples)), 2),
        }
    latency: dict[str, dict[str, float]] = {}
    for trigger in JUDGED:
        values = soak.latency.get(trigger, [])
        early = [ms for at, ms in values if at < ends_s]
        late = [ms for at, ms in values if at >= length_s - ends_s]
        if not early or not late:
            continue
        p99 = [float(np.percentile(part, 99)) for part in (early, late)]
        latency[trigger] = {
            "n_first": len(early),
            "n_last": len(late),
            "p99_first_ms": round(p99[0], 2),
            "p99_last_ms": round(p99[1], 2),
            "share": round(p99[1] / p99[0] - 1, 4),
            "p50_first_ms": round(float(np.percentile(early, 50)), 2),
            "p50_last_ms": round(float(np.percentile(late, 50)), 2),
        }
    figures = {
        "seconds": round(length_s, 1),
        "settling_s": round(settling_s, 1),
        "edge_s": round(edge_s, 1),
        "ends_s": round(ends_s, 1),
        "messages": dict(soak.messages),
        "gaps": dict(soak.gaps),
        "runs": len(soak.runs),
        "growth": growth,
        "latency": latency,
        "per_minute": _per_minute(soak),
        "restarts": soak.restarts,
        "degraded_s": soak.degraded_s,
        "notes": dict(soak.notes),
        "cores": round(
            (soak.usage[-1].cpu_s - soak.usage[0].cpu_s)
            / max(1e-9, (soak.usage[-1].t_ns - soak.usage[0].t_ns) * 1e-9),
            3,
        ),
        "other_cores": other_cores(soak.usage),
        "ended": soak.ended,
        "samples": [
            [round(s.t_s, 1), round(s.rss_mb, 2), round(s.own_mb, 2), s.files, s.threads]
            for s in soak.samples
        ],
    }
    return {**figures, "verdicts": _verdicts(figures)}


def _verdicts(figures: dict[str, Any]) -> list[dict[str, Any]]:
    growth, latency = figures["growth"], figures["latency"]
    rows: list[tuple[str, float, float | None]] = [
        ("resident memory, growth in %", 100 * GROWTH, 100 * growth["rss_mb"]["share"]),
        ("file descriptors, growth", 0, growth["files"]["last"] - growth["files"]["first"]),
        ("threads, growth", 0, growth["threads"]["last"] - growth["threads"]["first"]),
        ("messages lost (gaps in seq)", 0, float(sum(figures["gaps"].values()))),
        ("restarts of workers", 0, float(sum(figures["restarts"].values()))),
        ("runs of the process beyond the first", 0, figures["runs"] - 1.0),
    ]
    for trigger in JUDGED:
        share = latency[trigger]["share"] if trigger in latency else None
        rows.append(
            (f"p99 latency of {trigger}, growth in %", 100 * SLOWER, None if share is None else 100 * share)
        )
    judged = [
        {"what": what, "at_most": limit, "measured": found, "met": found is not None and found <= limit}
        for what, limit, found in rows
    ]
    whole = {"what": "ran to its end", "at_most": 0, "measured": 0.0, "met": figures["ended"] is None}
    return [*judged, whole]


def _per_minute(soak: Soak) -> dict[str, list[tuple[int, float, float]]]:
    """Per trigger and minute: p50 and p99 in milliseconds."""
    found: dict[str, list[tuple[int, float, float]]] = {}
    for trigger, values in soak.latency.items():
        minutes: dict[int, list[float]] = defaultdict(list)
        for at_s, spent in values:
            minutes[int(at_s // 60)].append(spent)
        found[trigger] = [
            (minute, *(round(float(np.percentile(part, q)), 2) for q in (50, 99)))  # type: ignore[misc]
            for minute, part in sorted(minutes.items())
        ]
    return found
