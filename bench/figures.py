"""From received estimates to figures. Pure: what was received goes in, numbers come out."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bench.live import Usage
from realtime.message import Estimate, Health

Received = tuple[int, Estimate]
"""Monotonic time of reception by the subscriber, and the estimate."""

BLOCKS = 8
"""Stretches of equal length whose spread tells how sure a figure is."""
BUSY_CORES = 0.25
"""More than this of other work, and times are not to be believed; the subscriber needs some of it."""
REST = "rest (queues, message)"
"""Publication minus capture that no stage accounts for."""
RECEIVE = "publish to receive"
LAST_STEPS = "fusion + smoothing + publish"
RECEIVED = "fusion + smoothing + publish to receive"
PUBLISH = "publish"
"""Encoding and handing to the socket of the estimate before; not part of the total, which ends with the stamp."""


@dataclass
class Run:
    """What was seen of one run, warm-up excluded."""

    received: list[Received] = field(default_factory=list)
    usage: list[Usage] = field(default_factory=list)
    """About once a second; the first one at the beginning, the last one at the end of the measurement."""
    health: list[Health] = field(default_factory=list)
    """The first one is the last before the measurement, so that drops during the warm-up can be told apart."""
    cold_start_s: float = 0.0
    """Start of the process to the first label."""
    gaps: int = 0
    """Messages that were published and not received."""

    @property
    def wall_s(self) -> float:
        return (self.usage[-1].t_ns - self.usage[0].t_ns) * 1e-9


def figures_of(run: Run) -> dict[str, Any]:
    """Percentiles in milliseconds per trigger and stage, ages per modality, drops by cause, and the cost."""
    wall_s = run.wall_s
    end_to_end, stages = end_to_end_ms(run.received), stages_ms(run.received)
    ages: dict[str, list[float]] = defaultdict(list)
    present: Counter[str] = Counter()
    for _, estimate in run.received:
        for name, state in estimate.modalities.items():
            if state.present and state.age_ms is not None:
                present[name] += 1
                ages[name].append(state.age_ms)
    last = run.received[-1][1]
    workers = worker_rates(run.health)
    return {
        "seconds": round(wall_s, 2),
        "estimates": len(run.received),
        "rate_hz": round(len(run.received) / wall_s, 2),
        "labels": dict(Counter(estimate.label or "none" for _, estimate in run.received).most_common()),
        "capture_to_subscriber_ms": {
            name: percentiles(values, wall_s) for name, values in sorted(end_to_end.items())
        },
        "stage_ms": {name: percentiles(values, wall_s) for name, values in sorted(stages.items())},
        "age_at_publish_ms": {name: percentiles(values, wall_s) for name, values in ages.items()},
        "present": {name: round(count / len(run.received), 3) for name, count in present.items()},
        "worker_hz": workers,
        "drops": drops(run.health),
        "gaps": run.gaps,
        "cores": round(cores(run.usage), 3),
        "other_cores": other_cores(run.usage),
        "timer_cores": timer_cores(stages, workers),
        "rss_mb": round(max(usage.rss_mb for usage in run.usage), 1),
        "cold_start_s": round(run.cold_start_s, 2),
        "model": last.model,
        "engine": {name: f"{use.backend} {use.precision}" for name, use in last.engine.items()},
        "fallbacks": {
            name: use.fallback
            for message in run.health[-1:]
            for name, use in message.engine.items()
            if use.fallback
        },
        "blocks": blocks(run),
        "waterfall": waterfall(run.received),
        "series_ms": series(run.received),
    }


def end_to_end_ms(received: Sequence[Received]) -> dict[str, list[float]]:
    """Capture to subscriber per trigger."""
    spent: dict[str, list[float]] = defaultdict(list)
    for received_ns, estimate in received:
        spent[estimate.trigger].append((received_ns - estimate.t_capture_ns) * 1e-6)
    return spent


def stages_ms(received: Sequence[Received]) -> dict[str, list[float]]:
    """Per trigger and stage, as the messages tell it, and what lies between and behind the stages."""
    spent: dict[str, list[float]] = defaultdict(list)
    for received_ns, estimate in received:
        wire = (received_ns - estimate.t_publish_ns) * 1e-6
        spent[RECEIVE].append(wire)
        told = dict(estimate.latency_ms or {})
        publish = told.pop(PUBLISH, None)
        if publish is not None:
            spent[PUBLISH].append(publish)
        for name, value in told.items():
            spent[f"{estimate.trigger}: {name}"].append(value)
        if "total" in told:
            known = sum(value for name, value in told.items() if name != "total")
            spent[f"{estimate.trigger}: {REST}"].append(max(0.0, told["total"] - known))
        if "fusion" in told and "smoothing" in told:
            spent[RECEIVED].append(told["fusion"] + told["smoothing"] + wire)
            if publish is not None:
                spent[LAST_STEPS].append(told["fusion"] + told["smoothing"] + publish)
    return spent


def waterfall(received: Sequence[Received], trigger: str = "face") -> list[tuple[str, float]]:
    """Stages and milliseconds, in order, of the estimate whose latency is the median; empty without ``trigger``."""
    rows = [row for row in received if row[1].trigger == trigger and row[1].latency_ms]
    if not rows:
        return []
    received_ns, estimate = sorted(rows, key=lambda row: row[0] - row[1].t_capture_ns)[len(rows) // 2]
    told = dict(estimate.latency_ms or {})
    total = told.pop("total")
    told.pop(PUBLISH, None)
    steps = list(told.items())
    # Queues lie between the branch and the fusion, so the rest is drawn there.
    at = next((i for i, (name, _) in enumerate(steps) if name == "fusion"), len(steps))
    steps.insert(at, (REST, max(0.0, total - sum(told.values()))))
    steps.append((RECEIVE, (received_ns - estimate.t_publish_ns) * 1e-6))
    return [(name, round(spent, 3)) for name, spent in steps]


def series(received: Sequence[Received], most: int = 2000) -> dict[str, list[tuple[float, float]]]:
    """Per trigger: seconds since the beginning and capture to subscriber, thinned out to ``most`` points."""
    points: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for received_ns, estimate in received:
        at_s = (received_ns - received[0][0]) * 1e-9
        points[estimate.trigger].append(
            (round(at_s, 3), round((received_ns - estimate.t_capture_ns) * 1e-6, 2))
        )
    return {name: row[:: -(-len(row) // most)] for name, row in points.items()}


def blocks(run: Run) -> dict[str, list[float]]:
    """The chief figures of BLOCKS equal stretches of the run, for whoever compares two runs."""
    begin_ns, length_ns = run.usage[0].t_ns, (run.usage[-1].t_ns - run.usage[0].t_ns) / BLOCKS
    found: dict[str, list[float]] = defaultdict(list)
    for number in range(BLOCKS):
        low, high = begin_ns + number * length_ns, begin_ns + (number + 1) * length_ns
        part = [row for row in run.received if low <= row[0] < high]
        for trigger, values in end_to_end_ms(part).items():
            found[f"capture to subscriber, {trigger}, p50 ms"].append(float(np.percentile(values, 50)))
            found[f"capture to subscriber, {trigger}, p95 ms"].append(float(np.percentile(values, 95)))
        for name, values in stages_ms(part).items():
            found[f"{name}, p50 ms"].append(float(np.percentile(values, 50)))
        usage = [each for each in run.usage if low <= each.t_ns <= high]
        if len(usage) > 1:
            found["cores"].append(cores(usage))
    return {name: [round(value, 4) for value in values] for name, values in found.items()}


def cores(usage: Sequence[Usage]) -> float:
    """Processor seconds a second between the first and the last reading."""
    return (usage[-1].cpu_s - usage[0].cpu_s) / max(1e-9, (usage[-1].t_ns - usage[0].t_ns) * 1e-9)


def other_cores(usage: Sequence[Usage]) -> float:
    """Cores that everything else on the machine used meanwhile, the subscriber included."""
    seconds = (usage[-1].t_ns - usage[0].t_ns) * 1e-9
    others = (usage[-1].machine_s - usage[0].machine_s) - (usage[-1].cpu_s - usage[0].cpu_s)
    return round(max(0.0, others) / max(1e-9, seconds), 3)


def caution(other: float) -> str | None:
    """What is said when the machine was not quiet."""
    if other <= BUSY_CORES:
        return None
    return f"other work on the machine took {other:.2f} cores meanwhile: do not believe these times"


def worker_rates(health: Sequence[Health]) -> dict[str, float]:
    """Mean rate of each worker in turns a second."""
    rates: dict[str, list[float]] = defaultdict(list)
    for message in health:
        for name, state in message.workers.items():
            rates[name].append(state.rate_hz)
    return {name: round(float(np.mean(values)), 2) for name, values in rates.items()}


def drops(health: Sequence[Health]) -> dict[str, int]:
    """Samples dropped between the first and the last message, by worker and cause."""
    if not health:
        return {}
    before, after = health[0].workers, health[-1].workers
    counts = {
        f"{worker}: {cause}": count - (before[worker].drops.get(cause, 0) if worker in before else 0)
        for worker, state in after.items()
        for cause, count in state.drops.items()
    }
    return {name: count for name, count in counts.items() if count}


def timer_cores(stages: dict[str, list[float]], workers: dict[str, float]) -> float:
    """Cores spent on reading the clock for the marks: two readings a stage and turn, at this machine's price."""
    began = time.perf_counter()
    for _ in range(100_000):
        time.perf_counter()
    each_s = (time.perf_counter() - began) / 100_000
    turns = {"face": "face", "scene": "scene", "voice": "speech", "text": "text"}
    marks = Counter(name.partition(":")[0] for name in stages if ":" in name)
    return round(sum(2 * marks[t] * workers.get(w, 0.0) * each_s for t, w in turns.items()), 6)


def percentiles(values: Sequence[float], wall_s: float) -> dict[str, float]:
    """Count, p50, p95, p99, maximum, and how many a second."""
    p50, p95, p99 = np.percentile(values, [50, 95, 99])
    return {
        "n": len(values),
        "p50": round(float(p50), 2),
        "p95": round(float(p95), 2),
        "p99": round(float(p99), 2),
        "max": round(float(max(values)), 2),
        "hz": round(len(values) / wall_s, 2),
    }


def targets(figures: dict[str, Any]) -> list[dict[str, Any]]:
    """What the project wants on two cores, beside what was measured; ``met`` is None where nothing was measured."""
    end, stage = figures["capture_to_subscriber_ms"], figures["stage_ms"]
    memory = 1200.0 if "enrichment" in figures["engine"] else 800.0
    wanted: list[tuple[str, float, float | None]] = [
        ("face, capture to subscriber, p50 ms", 20.0, end.get("face", {}).get("p50")),
        ("face, capture to subscriber, p95 ms", 33.0, end.get("face", {}).get("p95")),
        # Of estimates that a voice triggered: in others the last cue grows old while nobody speaks.
        ("newest sound when a voice estimate is published, p95 ms", 350.0,
         stage.get("voice: total", {}).get("p95")),
        ("fusion + smoothing + publish, p50 ms", 0.7, stage.get(LAST_STEPS, {}).get("p50")),
        ("cores", 1.3, figures["cores"]),
        ("cold start, s", 4.0, figures["cold_start_s"]),
        (f"resident memory with{'' if memory == 1200 else 'out'} the language model, MB", memory,
         figures["rss_mb"]),
    ]  # fmt: skip
    return [
        {"what": what, "at_most": limit, "measured": value, "met": None if value is None else value <= limit}
        for what, limit, value in wanted
    ]
