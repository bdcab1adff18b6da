"""Hours of running, seen from outside: does the live pipeline grow, lose messages, slow down, or restart anything?

Runs `ecmf-live` on the looping demo (picture, sound and language model), subscribes to it from this process, and reads
memory, file descriptors and threads from the kernel every few seconds. The first minutes, in which caches and
allocators fill, are left out of the growth; the rest is judged from its first minute against its last.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bench import plots, results
from bench.figures import caution, other_cores
from bench.live import Started, Usage, endpoint, messages, started
from ecmf.errors import EcmfError, SourceError, UsageError, need
from realtime.message import Estimate, Health, Message

SAMPLE_S = 2.0
"""Between two readings of memory, descriptors and threads."""
SETTLING_S, EDGE_S, ENDS_S = 180.0, 60.0, 300.0
"""Left out at the beginning; stretch at both ends over which growth is told; stretches whose p99 are compared.
A run that is too short for them takes an eighth, a sixteenth and a sixth of its length."""
PROGRESS_S = 30.0
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


def main() -> int:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").splitlines()[0], epilog="What follows -- goes to ecmf-live."
    )
    parser.add_argument("--minutes", type=float, default=30.0, help="how long, from the first label on (30)")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write every figure to OUT")
    parser.add_argument("--plot", type=Path, metavar="OUT.png", help="draw memory and latency over time")
    parser.add_argument("live", nargs="*", help="further options of ecmf-live, after --")
    options = parser.parse_args()
    try:
        if options.minutes < 0.5:
            raise UsageError("--minutes is 0.5 at least")
        soak = run(options.minutes * 60, options.live)
        if len(soak.samples) < 10:
            raise SourceError(f"it ended too soon to judge: {soak.ended}")
        figures = judge(soak)
        record = results.record("soak", {"minutes": options.minutes, "live": options.live}, figures)
        show(figures)
        if options.json:
            results.save(options.json, record)
        if options.plot:
            plots.soak(record, options.plot)
    except EcmfError as error:
        print(f"soak: {error}", file=sys.stderr)
        return error.exit_code
    return 0 if all(row["met"] for row in figures["verdicts"]) else 1


def run(seconds: float, extra: Sequence[str]) -> Soak:
    """Watch ``ecmf-live`` for ``seconds`` from its first label on.

    Raises SourceError when it does not start; one that ends too soon is told in ``ended``.
    """
    arguments = ["--demo", "--loop", "--transcript", *extra]
    with endpoint() as address, started("realtime.cli", [*arguments, "--bind", address]) as live:
        soak = Soak()
        try:
            _follow(soak, live, address, seconds)
        except SourceError as error:
            if not soak.samples:
                raise
            soak.ended = str(error)
        return soak


def _follow(soak: Soak, live: Started, address: str, seconds: float) -> None:
    next_seq: dict[str, int] = {}
    begin_ns: int | None = None
    told_s = sampled_s = -PROGRESS_S
    for received_ns, message in messages(live, address):
        kind = type(message).__name__.lower()
        soak.gaps[kind] += message.seq - next_seq.get(kind, message.seq)
        next_seq[kind] = message.seq + 1
        soak.messages[kind] += 1
        soak.runs.add(message.run)
        if begin_ns is None:
            if not isinstance(message, Estimate) or message.label is None:
                continue
            begin_ns = received_ns
        now_s = (received_ns - begin_ns) * 1e-9
        _note(soak, message, now_s, received_ns)
        if now_s - sampled_s >= SAMPLE_S or now_s >= seconds:
            sampled_s = now_s
            soak.samples.append(Sample.of(live.process.pid, now_s))
            soak.usage.append(Usage.of(live.process.pid))
        if now_s - told_s >= PROGRESS_S:
            told_s = now_s
            print(_progress(soak, now_s, seconds), file=sys.stderr, flush=True)
        if now_s >= seconds:
            return


def _note(soak: Soak, message: Message, now_s: float, received_ns: int) -> None:
    if isinstance(message, Estimate):
        spent_ms = (received_ns - message.t_capture_ns) * 1e-6
        soak.latency[message.trigger].append((now_s, spent_ms))
    elif isinstance(message, Health):
        soak.restarts = {name: state.restarts for name, state in message.workers.items()}
        soak.degraded_s += message.load is not None and message.load.level > 0
        for note in message.notes:
            soak.notes[note] += 1


def _progress(soak: Soak, now_s: float, seconds: float) -> str:
    last = soak.samples[-1]
    return (
        f"{now_s / 60:5.1f} of {seconds / 60:g} min: {last.rss_mb:.1f} MB, {last.files} files, "
        f"{last.threads} threads, {soak.messages['estimate']} estimates, {sum(soak.gaps.values())} lost, "
        f"{sum(soak.restarts.values())} restarts"
    )


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


def show(figures: dict[str, Any]) -> None:
    """The verdicts, for people."""
    console = need("rich.console", "live").Console()
    view = need("rich.table", "live").Table(
        title=f"{figures['seconds'] / 60:.1f} minutes, the first {figures['settling_s'] / 60:.1f} left out of growth",
        title_justify="left",
    )
    for column in ("", "at most", "measured", ""):
        view.add_column(column, justify="left" if not column else "right")
    for row in figures["verdicts"]:
        measured = "nothing to judge" if row["measured"] is None else f"{row['measured']:.3g}"
        view.add_row(row["what"], f"{row['at_most']:g}", measured, "met" if row["met"] else "missed")
    console.print(view)
    for name, row in figures["growth"].items():
        console.print(f"{name}: {row['first']:g} at first, {row['last']:g} at last, {row['max']:g} at most")
    for name, row in figures["latency"].items():
        console.print(
            f"{name}: p99 {row['p99_first_ms']:g} ms in the first {figures['ends_s']:g} s, "
            f"{row['p99_last_ms']:g} ms in the last"
        )
    lines = [
        f"{sum(figures['messages'].values())} messages, {figures['cores']:.2f} cores, "
        f"something was reduced during {figures['degraded_s']} s",
        *(f"health said {count} times: {note}" for note, count in figures["notes"].items()),
        f"it ended early: {figures['ended']}" if figures["ended"] else None,
        caution(figures["other_cores"]),
    ]
    for line in lines:
        if line:
            console.print(line, soft_wrap=True, highlight=False)


if __name__ == "__main__":
    sys.exit(main())
