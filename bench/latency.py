"""Latency of the live pipeline, as a subscriber in another process sees it.

Runs `ecmf-live` itself, subscribes to its stream, and reads its processor time and memory from the kernel. Both ends
use the machine's one monotonic clock, so capture to subscriber is a plain difference. With --fast the file is not
paced like a device: then how many seconds of it are done in one is measured, and the marks inside mean nothing.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench import plots, results
from bench.console import console
from bench.figures import Run, caution, cores, figures_of, other_cores, targets
from bench.live import Started, Usage, endpoint, messages, started
from ecmf.errors import EcmfError, SourceError, UsageError, need
from realtime.message import Estimate, Health, decode

WARM_UP_S = 3.0
"""After the first label; left out of every figure but the cold start."""
USAGE_S = 1.0
"""Between two readings of processor time and memory."""


def main() -> int:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").splitlines()[0], epilog="What follows -- goes to ecmf-live."
    )
    parser.add_argument(
        "--seconds", type=float, default=60.0, help="how long to measure, warm-up excluded (60)"
    )
    parser.add_argument("--source", default="demo", help="demo, or a file (demo)")
    parser.add_argument(
        "--fast", action="store_true", help="unpaced: SECONDS of the file, as fast as it goes"
    )
    parser.add_argument(
        "--starts", type=int, default=1, metavar="N", help="measure the cold start this often (1)"
    )
    parser.add_argument("--json", type=Path, metavar="OUT", help="write every figure to OUT")
    parser.add_argument(
        "--plot", type=Path, metavar="OUT.png", help="draw latency over time and one estimate's stages"
    )
    parser.add_argument("live", nargs="*", help="further options of ecmf-live, after --")
    options = parser.parse_args()
    try:
        if options.seconds < 1 or options.starts < 1:
            raise UsageError("--seconds and --starts are 1 at least")
        if options.fast and options.plot:
            raise UsageError("--fast has no latencies to plot; leave one of --fast and --plot out")
        figures = fast(options) if options.fast else paced(options)
        how = {"seconds": options.seconds, "source": options.source, "live": options.live}
        record = results.record("annotation" if options.fast else "latency", how, figures)
        show_fast(figures) if options.fast else show(figures)
        if options.json:
            results.save(options.json, record)
        if options.plot:
            plots.latency(record, options.plot)
    except EcmfError as error:
        print(f"latency: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def paced(options: argparse.Namespace) -> dict[str, Any]:
    """Measure at the pace of a device; further starts are only waited for until their first label."""
    run = measure(options.source, options.seconds, options.live)
    figures = figures_of(run)
    again = [measure(options.source, 0.0, options.live).cold_start_s for _ in range(options.starts - 1)]
    figures["cold_starts_s"] = [round(seconds, 2) for seconds in (run.cold_start_s, *again)]
    figures["cold_start_s"] = sorted(figures["cold_starts_s"])[len(figures["cold_starts_s"]) // 2]
    return {"warm_up_s": WARM_UP_S, **figures, "targets": targets(figures)}


def measure(source: str, seconds: float, extra: Sequence[str], checkout: Path | None = None) -> Run:
    """One run of ``ecmf-live`` for ``seconds`` after the warm-up; 0: to its first label and no further.

    ``checkout``: run the code found there in place of the installed one.
    Raises SourceError when it does not start or ends too soon.
    """
    length = ["--loop", "--duration", f"{seconds + WARM_UP_S + 60:g}"]
    with (
        endpoint() as address,
        started(
            "realtime.cli", [*_what(source), *length, "--bind", address, "--json", *extra], cwd=checkout
        ) as live,
    ):
        return _follow(live, address, seconds)


def _what(source: str) -> list[str]:
    return ["--demo"] if source == "demo" else ["--source", source]


def _follow(live: Started, address: str, seconds: float) -> Run:
    run = Run()
    next_seq: dict[str, int] = {}
    begin_ns: int | None = None
    for received_ns, message in messages(live, address):
        kind = type(message).__name__
        if begin_ns is not None:
            run.gaps += message.seq - next_seq.get(kind, message.seq)
        next_seq[kind] = message.seq + 1
        if isinstance(message, Health):
            run.health = [*run.health, message] if begin_ns is not None else [message]
            continue
        if not isinstance(message, Estimate):
            continue
        if not run.cold_start_s:
            if message.label is None:
                continue
            run.cold_start_s = received_ns * 1e-9 - live.began
            if not seconds:
                return run
        if received_ns * 1e-9 - live.began - run.cold_start_s < WARM_UP_S:
            continue
        if begin_ns is None:
            begin_ns = received_ns
        run.received.append((received_ns, message))
        over = received_ns - begin_ns >= seconds * 1e9
        if over or not run.usage or received_ns - run.usage[-1].t_ns >= USAGE_S * 1e9:
            run.usage.append(Usage.of(live.process.pid))
        if over:
            return run
    raise SourceError("ecmf-live ended before the measurement did")


def fast(options: argparse.Namespace) -> dict[str, Any]:
    """Annotate ``seconds`` of media time and read how long that takes. Raises SourceError when it fails."""
    arguments = [*_what(options.source), "--fast", "--loop", "--duration", f"{options.seconds:g}", "--json"]
    with (
        endpoint() as address,
        started(
            "realtime.cli", [*arguments, "--bind", address, *options.live], stdout=subprocess.PIPE
        ) as live,
    ):
        assert live.process.stdout is not None
        usage: list[Usage] = []
        estimates = 0
        first: Estimate | None = None
        last: Estimate | None = None
        for line in live.process.stdout:
            message = decode(line)
            if not isinstance(message, Estimate):
                continue
            estimates += 1
            first, last = first or message, message
            if not usage or time.monotonic_ns() - usage[-1].t_ns >= USAGE_S * 1e9:
                usage.append(Usage.of(live.process.pid))
        if live.process.wait(30) != 0 or first is None or last is None:
            raise SourceError(live.last_words())
        if len(usage) < 2:
            raise SourceError(f"{options.seconds:g} s are done too soon to measure; more --seconds")
        media_s = (last.t_capture_ns - first.t_capture_ns) * 1e-9
        wall_s = (time.monotonic_ns() - usage[0].t_ns) * 1e-9
    return {
        "estimates": estimates,
        "media_s": round(media_s, 2),
        "wall_s": round(wall_s, 2),
        "media_s_per_s": round(media_s / wall_s, 2),
        "cores": round(cores(usage), 3),
        "other_cores": other_cores(usage),
        "core_s_per_media_s": round(cores(usage) * wall_s / media_s, 3),
        "rss_mb": round(max(each.rss_mb for each in usage), 1),
        "cold_start_s": round(usage[0].t_ns * 1e-9 - live.began, 2),
        "model": last.model,
        "engine": {name: f"{use.backend} {use.precision}" for name, use in last.engine.items()},
    }


def show(figures: dict[str, Any]) -> None:
    """The table for people."""
    screen, table = console(), need("rich.table", "live")
    for title, key in (
        ("capture to subscriber, ms", "capture_to_subscriber_ms"),
        ("stages, ms", "stage_ms"),
        ("age of each modality at publication, pauses included, ms", "age_at_publish_ms"),
    ):
        view = table.Table(title=title, title_justify="left")
        view.add_column("")
        for column in ("n", "a second", "p50", "p95", "p99", "max"):
            view.add_column(column, justify="right")
        for name, row in figures[key].items():
            numbers = (f"{row[c]:.2f}" for c in ("hz", "p50", "p95", "p99", "max"))
            view.add_row(name, str(row["n"]), *numbers)
        screen.print(view)
    view = table.Table(title="targets on two cores", title_justify="left")
    for column in ("", "at most", "measured", ""):
        view.add_column(column, justify="left" if not column else "right")
    for row in figures["targets"]:
        verdict = {True: "met", False: "missed", None: "not measured"}[row["met"]]
        measured = "" if row["measured"] is None else f"{row['measured']:g}"
        view.add_row(row["what"], f"{row['at_most']:g}", measured, verdict)
    screen.print(view)
    workers = ", ".join(f"{name} {rate:g}" for name, rate in figures["worker_hz"].items())
    dropped = ", ".join(f"{cause} {count}" for cause, count in figures["drops"].items())
    for line in (
        f"{figures['estimates']} estimates in {figures['seconds']} s, warm-up of {WARM_UP_S:g} s left out; "
        f"{figures['rate_hz']} a second",
        f"turns a second: {workers}",
        f"dropped: {dropped or 'nothing'}; lost on the way to the subscriber: {figures['gaps']}",
        f"{figures['cores']} cores, of which reading clocks for the marks "
        f"{figures['timer_cores'] / max(figures['cores'], 1e-9):.3%}; "
        f"{figures['rss_mb']} MB resident",
        "process start to first label: " + ", ".join(f"{s} s" for s in figures["cold_starts_s"]),
        "engines: " + ", ".join(f"{name} {use}" for name, use in figures["engine"].items()),
        caution(figures["other_cores"]),
    ):
        if line:
            screen.print(line, soft_wrap=True, highlight=False)


def show_fast(figures: dict[str, Any]) -> None:
    """The same for an unpaced run."""
    print(
        f"{figures['media_s']} s annotated in {figures['wall_s']} s: {figures['media_s_per_s']} s a second; "
        f"{figures['core_s_per_media_s']} core seconds per second; {figures['rss_mb']} MB resident; "
        f"{figures['estimates']} estimates, the first {figures['cold_start_s']} s after the start"
    )


if __name__ == "__main__":
    sys.exit(main())
