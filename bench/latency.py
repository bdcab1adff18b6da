"""Latency of the live pipeline, as a subscriber in another process sees it.

Runs `ecmf-live` itself, subscribes to its stream, and reads its processor time and memory from the kernel. Both ends
use the machine's one monotonic clock, so capture to subscriber is a plain difference.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bench.machine import describe, versions
from ecmf.errors import EcmfError, SourceError, need
from realtime.message import Estimate, Health, Message, decode

WARM_UP_S = 3.0
"""After the first estimate; left out of every figure but the cold start."""
START_S = 120.0
"""Longest wait for the first estimate: engines may have to be built."""


@dataclass
class Run:
    """What was received of one run."""

    received: list[tuple[int, Estimate]] = field(default_factory=list)
    """Monotonic time of reception and estimate, warm-up excluded."""
    health: Health | None = None
    cold_start_s: float = 0.0
    cpu_s: float = 0.0
    wall_s: float = 0.0
    rss_mb: float = 0.0
    gaps: int = 0


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--seconds", type=float, default=60.0, help="how long to measure, warm-up excluded (60)"
    )
    parser.add_argument("--source", default="demo", help="demo, or a file (demo)")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write every figure to OUT")
    parser.add_argument(
        "--plot", type=Path, metavar="OUT.png", help="draw latency over time and one estimate's stages"
    )
    parser.add_argument("live", nargs="*", help="further options of ecmf-live, after --")
    options = parser.parse_args()
    try:
        run = measure(options.source, options.seconds, options.live)
    except EcmfError as error:
        print(f"latency: {error}", file=sys.stderr)
        return error.exit_code
    figures = figures_of(run)
    show(figures)
    if options.json:
        record = {
            "benchmark": "latency",
            "machine": describe(),
            "versions": versions(),
            "options": {"seconds": options.seconds, "source": options.source, "live": options.live},
            "warm_up_s": WARM_UP_S,
            **figures,
        }
        options.json.write_text(json.dumps(record, indent=1) + "\n", "utf-8")
    if options.plot:
        plot(run, options.plot)
    return 0


def measure(source: str, seconds: float, extra: list[str]) -> Run:
    """One run of ``ecmf-live`` for ``seconds`` after the warm-up. Raises SourceError when it does not start."""
    what = ["--demo"] if source == "demo" else ["--source", source]
    endpoint = f"ipc:///tmp/ecmf-latency-{os.getpid()}"
    length = ["--loop", "--duration", str(seconds + WARM_UP_S + 60)]
    command = [sys.executable, "-m", "realtime.cli", *what, *length, "--bind", endpoint, "--json", *extra]
    started = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        return _follow(process, endpoint, started, seconds)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()


def _follow(process: subprocess.Popen[str], endpoint: str, started: float, seconds: float) -> Run:
    run = Run()
    last_seq: dict[str, int] = {}
    measured_from: float | None = None
    cpu_before = 0.0
    for message in _messages(process, endpoint):
        received_ns = time.monotonic_ns()
        now = received_ns * 1e-9
        kind = type(message).__name__
        if kind in last_seq and message.seq != last_seq[kind] + 1:
            run.gaps += 1
        last_seq[kind] = message.seq
        if isinstance(message, Health):
            run.health = message
            continue
        if not isinstance(message, Estimate):
            continue
        if not run.cold_start_s and message.label is not None:
            run.cold_start_s = now - started
        if not run.cold_start_s:
            continue
        if measured_from is None:
            if now - started - run.cold_start_s < WARM_UP_S:
                continue
            measured_from, cpu_before = now, _cpu_s(process.pid)
        run.received.append((received_ns, message))
        run.rss_mb = max(run.rss_mb, _rss_mb(process.pid)) if len(run.received) % 15 == 0 else run.rss_mb
        if now - measured_from >= seconds:
            run.wall_s = now - measured_from
            run.cpu_s = _cpu_s(process.pid) - cpu_before
            return run
    raise SourceError("ecmf-live ended before the measurement did")


def _messages(process: subprocess.Popen[str], endpoint: str) -> Iterator[Message]:
    zmq: Any = need("zmq", "live")
    socket = zmq.Context.instance().socket(zmq.SUB)
    socket.setsockopt(zmq.SUBSCRIBE, b"")
    socket.connect(endpoint)
    deadline = time.monotonic() + START_S
    try:
        while True:
            if socket.poll(500):
                yield decode(socket.recv_multipart()[1])
                deadline = time.monotonic() + 10.0
            elif process.poll() is not None:
                said = (process.stderr.read() if process.stderr else "").strip().splitlines()
                raise SourceError(said[-1] if said else f"ecmf-live ended with code {process.returncode}")
            elif time.monotonic() > deadline:
                raise SourceError("ecmf-live publishes nothing; run it by itself to see why")
    finally:
        socket.close(linger=0)


def figures_of(run: Run) -> dict[str, Any]:
    """Percentiles in milliseconds per trigger and stage, ages per modality, and the process's cost."""
    end_to_end: dict[str, list[float]] = defaultdict(list)
    stages: dict[str, list[float]] = defaultdict(list)
    ages: dict[str, list[float]] = defaultdict(list)
    present: Counter[str] = Counter()
    for received_ns, estimate in run.received:
        end_to_end[estimate.trigger].append((received_ns - estimate.t_capture_ns) * 1e-6)
        stages["publish to receive"].append((received_ns - estimate.t_publish_ns) * 1e-6)
        for name, spent in (estimate.latency_ms or {}).items():
            stages[f"{estimate.trigger}: {name}"].append(spent)
        for name, state in estimate.modalities.items():
            if state.present and state.age_ms is not None:
                present[name] += 1
                ages[name].append(state.age_ms)
    drops = {}
    if run.health is not None:
        drops = {f"{w}: {c}": n for w, state in run.health.workers.items() for c, n in state.drops.items()}
    last = run.received[-1][1]
    return {
        "estimates": len(run.received),
        "rate_hz": round(len(run.received) / run.wall_s, 2),
        "capture_to_subscriber_ms": {name: _percentiles(v) for name, v in sorted(end_to_end.items())},
        "stage_ms": {name: _percentiles(v) for name, v in sorted(stages.items())},
        "age_at_publish_ms": {name: _percentiles(v) for name, v in ages.items()},
        "present": {name: round(count / len(run.received), 3) for name, count in present.items()},
        "drops": drops,
        "gaps": run.gaps,
        "cores": round(run.cpu_s / run.wall_s, 3),
        "rss_mb": round(run.rss_mb, 1),
        "cold_start_s": round(run.cold_start_s, 2),
        "model": last.model,
        "engine": {name: f"{use.backend} {use.precision}" for name, use in last.engine.items()},
    }


def _percentiles(values: list[float]) -> dict[str, float]:
    p50, p95, p99 = np.percentile(values, [50, 95, 99])
    return {
        "n": len(values),
        "p50": round(float(p50), 2),
        "p95": round(float(p95), 2),
        "p99": round(float(p99), 2),
        "max": round(max(values), 2),
    }


def show(figures: dict[str, Any]) -> None:
    """The table for people."""
    console, table = need("rich.console", "live").Console(), need("rich.table", "live")
    for title, key in (
        ("capture to subscriber, ms", "capture_to_subscriber_ms"),
        ("stages, ms", "stage_ms"),
        ("age of each modality at publication, ms", "age_at_publish_ms"),
    ):
        view = table.Table(title=title, title_justify="left")
        view.add_column("")
        for column in ("n", "p50", "p95", "p99", "max"):
            view.add_column(column, justify="right")
        for name, row in figures[key].items():
            view.add_row(name, str(row["n"]), *(f"{row[c]:.2f}" for c in ("p50", "p95", "p99", "max")))
        console.print(view)
    console.print(
        f"{figures['estimates']} estimates, {figures['rate_hz']} a second; {figures['cores']} cores; "
        f"{figures['rss_mb']} MB resident; first label {figures['cold_start_s']} s after the start; "
        f"gaps {figures['gaps']}; drops {figures['drops'] or 'none'}",
        soft_wrap=True,
    )


def plot(run: Run, path: Path) -> None:
    """Latency over time per trigger, and the stages of the median face estimate, as PNG."""
    matplotlib = need("matplotlib", "train")
    matplotlib.use("Agg")
    pyplot = need("matplotlib.pyplot", "train")
    figure, (over_time, waterfall) = pyplot.subplots(2, 1, figsize=(10, 7), constrained_layout=True)
    first_ns = run.received[0][0]
    for trigger in sorted({estimate.trigger for _, estimate in run.received} - {"text"}):
        rows = [(t, e) for t, e in run.received if e.trigger == trigger]
        over_time.plot(
            [(t - first_ns) * 1e-9 for t, _ in rows],
            [(t - e.t_capture_ns) * 1e-6 for t, e in rows],
            ".",
            markersize=3,
            label=trigger,
        )
    over_time.set(xlabel="s", ylabel="capture to subscriber, ms", title="latency over time")
    over_time.legend()
    faces = [(t, e) for t, e in run.received if e.trigger == "face" and e.latency_ms]
    if faces:
        received_ns, median = sorted(faces, key=lambda row: row[0] - row[1].t_capture_ns)[len(faces) // 2]
        begin = 0.0
        stages = {k: v for k, v in (median.latency_ms or {}).items() if k != "total"}
        stages["publish to receive"] = (received_ns - median.t_publish_ns) * 1e-6
        for name, spent in stages.items():
            waterfall.barh(name, spent, left=begin)
            begin += spent
        waterfall.invert_yaxis()
        waterfall.set(xlabel="ms since capture", title="stages of the median face estimate")
    figure.savefig(path, dpi=110)


def _cpu_s(pid: int) -> float:
    """User and system seconds of a process, all threads."""
    fields = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _rss_mb(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text("ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


if __name__ == "__main__":
    sys.exit(main())
