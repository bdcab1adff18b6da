"""Hours of running, seen from outside: does the live pipeline grow, lose messages, slow down, or restart anything?

Runs `ecmf-live` on the looping demo (picture, sound and language model), subscribes to it from this process, and reads
memory, file descriptors and threads from the kernel every few seconds. The first minutes, in which caches and
allocators fill, are left out of the growth; the rest is judged from its first minute against its last.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench import plots, results
from bench.console import console
from bench.figures import caution
from bench.growth import Sample, Soak, judge
from bench.live import Started, Usage, endpoint, messages, started
from ecmf.errors import EcmfError, SourceError, UsageError, need
from realtime.message import Estimate, Health, Message

SAMPLE_S = 2.0
"""Between two readings of memory, descriptors and threads."""
PROGRESS_S = 30.0


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
        if options.minutes < 0.4:
            raise UsageError("--minutes is 0.4 at least: twelve looks")
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


def show(figures: dict[str, Any]) -> None:
    """The verdicts, for people."""
    screen = console()
    view = need("rich.table", "live").Table(
        title=f"{figures['seconds'] / 60:.1f} minutes, the first {figures['settling_s'] / 60:.1f} left out of growth",
        title_justify="left",
    )
    for column in ("", "at most", "measured", ""):
        view.add_column(column, justify="left" if not column else "right")
    for row in figures["verdicts"]:
        measured = "nothing to judge" if row["measured"] is None else f"{row['measured']:.3g}"
        view.add_row(row["what"], f"{row['at_most']:g}", measured, "met" if row["met"] else "missed")
    screen.print(view)
    for name, row in figures["growth"].items():
        screen.print(f"{name}: {row['first']:g} at first, {row['last']:g} at last, {row['max']:g} at most")
    for name, row in figures["latency"].items():
        screen.print(
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
            screen.print(line, soft_wrap=True, highlight=False)


if __name__ == "__main__":
    sys.exit(main())
