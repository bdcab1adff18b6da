"""How many cameras with sound one machine carries: N pipelines in one process, watched by a subscriber in another.

N doubles until the 95th percentile of capture to subscriber for faces passes a limit, or too many frames are never
looked at; the row that fails stands in the table, too. Every N runs in a fresh process.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench import plots, results
from bench.console import console
from bench.figures import Received, caution, cores, drops, end_to_end_ms, other_cores, percentiles
from bench.latency import WARM_UP_S
from bench.live import Started, Usage, endpoint, messages, started
from ecmf.errors import EcmfError, SourceError, UsageError, need
from realtime.message import Estimate, Health

FACE_P95_MS = 100.0
UNSEEN = 0.01
"""Share of the frames that no face worker took."""


@dataclass
class Watched:
    """What was seen of N streams, warm-up excluded."""

    begin_ns: int = 0
    end_ns: int = 0
    received: dict[str, list[Received]] = field(default_factory=lambda: defaultdict(list))
    usage: list[Usage] = field(default_factory=list)
    health: dict[str, list[Health]] = field(default_factory=lambda: defaultdict(list))
    taken: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Per stream: ``fps`` and ``taken``, the capture times of the frames that its face worker took."""
    start_s: float = 0.0
    """Start of the process to the last stream's first label."""


def main() -> int:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").splitlines()[0],
        epilog="What follows -- goes to every ecmf-live pipeline.",
    )
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 2, 4, 8, 16], metavar="N")
    parser.add_argument("--seconds", type=float, default=30.0, help="for each N, warm-up excluded (30)")
    parser.add_argument("--quick", action="store_true", help="8 seconds for each N, and 4 streams at most")
    parser.add_argument("--source", default="demo", help="demo, or a file (demo)")
    parser.add_argument("--all", action="store_true", help="go on after the first N that is too many")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write every figure to OUT")
    parser.add_argument("--plot", type=Path, metavar="OUT.png")
    parser.add_argument("live", nargs="*", help="further options of ecmf-live, after --")
    options = parser.parse_args()
    seconds = 8.0 if options.quick else options.seconds
    counts = [n for n in options.streams if n <= 4] if options.quick else options.streams
    try:
        if seconds < 1 or min(counts, default=0) < 1:
            raise UsageError("--seconds and --streams are 1 at least")
        rows: list[dict[str, Any]] = []
        for count in sorted(set(counts)):
            rows.append(row_of(watch(count, options.source, seconds, options.live)))
            print(line(rows[-1]), file=sys.stderr, flush=True)
            if not rows[-1]["carried"] and not options.all:
                break
        how = {"seconds": seconds, "source": options.source, "live": options.live, "warm_up_s": WARM_UP_S}
        record = results.record("throughput", how, {})
        record |= verdict(rows, int(record["machine"]["cores"]))
        show(record)
        if options.json:
            results.save(options.json, record)
        if options.plot:
            plots.throughput(record, options.plot)
    except EcmfError as error:
        print(f"throughput: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def watch(count: int, source: str, seconds: float, extra: Sequence[str]) -> Watched:
    """Run ``count`` streams for ``seconds`` after all of them have given a label. Raises SourceError."""
    what = ["--demo"] if source == "demo" else ["--source", source]
    with endpoint() as address:
        live = [*what, "--loop", "--bind", address, *extra]
        with started(
            "bench.streams", ["--streams", str(count), "--", *live], stdout=subprocess.PIPE
        ) as child:
            watched = _follow(child, address, count, seconds)
            child.process.terminate()
            assert child.process.stdout is not None
            told = child.process.stdout.read()  # before the wait: more than a pipe holds
            if child.process.wait(30) != 0 or not told:
                raise SourceError(child.last_words())
    watched.taken = json.loads(told)
    return watched


def _follow(child: Started, address: str, count: int, seconds: float) -> Watched:
    watched = Watched()
    labelled: set[str] = set()
    ready_ns = 0
    for received_ns, message in messages(child, address):
        if isinstance(message, Health):
            kept = watched.health[message.source]
            watched.health[message.source] = [*kept, message] if watched.begin_ns else [message]
        if isinstance(message, Estimate) and message.label is not None and message.source not in labelled:
            labelled.add(message.source)
            ready_ns = received_ns
        if len(labelled) < count or received_ns - ready_ns < WARM_UP_S * 1e9:
            if received_ns * 1e-9 - child.began > 120 + 30 * count:
                raise SourceError(f"only {len(labelled)} of {count} streams gave a label in time")
            continue
        if not watched.begin_ns:
            watched.begin_ns = received_ns
            watched.start_s = ready_ns * 1e-9 - child.began
        if isinstance(message, Estimate):
            watched.received[message.source].append((received_ns, message))
        over = received_ns - watched.begin_ns >= seconds * 1e9
        if over or not watched.usage or received_ns - watched.usage[-1].t_ns >= 1e9:
            watched.usage.append(Usage.of(child.process.pid))
        if over:
            watched.end_ns = received_ns
            return watched
    raise SourceError("the streams ended before the measurement did")


def unseen(taken: Sequence[int], fps: float, begin_ns: int, end_ns: int) -> float:
    """Share of a camera's frames between two moments that are not among ``taken`` (capture times, in order)."""
    expected = fps * (end_ns - begin_ns) * 1e-9
    seen = sum(begin_ns <= t < end_ns for t in taken)
    # One frame more or less lies at the edges.
    return max(0.0, 1 - (seen + 1) / expected) if expected > 1 else 0.0


def row_of(watched: Watched) -> dict[str, Any]:
    """One line of the curve. Latencies are over all streams; the worst stream's p95 stands beside them."""
    seconds = (watched.end_ns - watched.begin_ns) * 1e-9
    everything = [row for rows in watched.received.values() for row in rows]
    by_trigger = end_to_end_ms(everything)
    if "face" not in by_trigger:
        raise SourceError("no face was seen; throughput is measured on a source that shows one")
    worst = max(
        percentiles(spent["face"], seconds)["p95"]
        for rows in watched.received.values()
        if "face" in (spent := end_to_end_ms(rows))
    )
    shares = [
        unseen(told["taken"], told["fps"], watched.begin_ns, watched.end_ns)
        for told in watched.taken.values()
    ]
    lost: dict[str, int] = defaultdict(int)
    for health in watched.health.values():
        for cause, number in drops(health).items():
            lost[cause] += number
    streams, used = len(watched.taken), cores(watched.usage)
    face = percentiles(by_trigger["face"], seconds)
    return {
        "streams": streams,
        "seconds": round(seconds, 2),
        "face_ms": face,
        "face_p95_ms_worst_stream": worst,
        "voice_ms": percentiles(by_trigger["voice"], seconds) if "voice" in by_trigger else None,
        "text_ms": percentiles(by_trigger["text"], seconds) if "text" in by_trigger else None,
        "estimates_hz": round(len(everything) / seconds, 2),
        "fps": next(iter(watched.taken.values()))["fps"],
        "unseen": round(sum(shares) / len(shares), 4),
        "unseen_worst_stream": round(max(shares), 4),
        "drops": dict(lost),
        "cores": round(used, 3),
        "other_cores": other_cores(watched.usage),
        "cores_per_stream": round(used / streams, 3),
        "rss_mb": round(max(each.rss_mb for each in watched.usage), 1),
        "start_s": round(watched.start_s, 2),
        "carried": face["p95"] <= FACE_P95_MS and sum(shares) / len(shares) <= UNSEEN,
    }


def verdict(rows: list[dict[str, Any]], machine_cores: int) -> dict[str, Any]:
    """The curve and what it says."""
    most = max((row["streams"] for row in rows if row["carried"]), default=0)
    more = [row["rss_mb"] for row in rows]
    counts = [row["streams"] for row in rows]
    return {
        "limits": {"face_p95_ms": FACE_P95_MS, "unseen": UNSEEN},
        "rows": rows,
        "streams_carried": most,
        "streams_per_core": round(most / machine_cores, 2),
        "rss_mb_per_further_stream": (
            round((more[-1] - more[0]) / (counts[-1] - counts[0]), 1) if len(rows) > 1 else None
        ),
    }


def line(row: Mapping[str, Any]) -> str:
    """A row in a few words, said while the next one is measured."""
    return (
        f"{row['streams']} streams: face p95 {row['face_ms']['p95']:.1f} ms, {row['unseen']:.1%} of the frames "
        f"unseen, {row['cores']:.2f} cores"
    )


def show(record: Mapping[str, Any]) -> None:
    """The table for people."""
    screen, table = console(), need("rich.table", "live")
    view = table.Table(title="cameras with sound in one process", title_justify="left")
    for column in ("N", "face p50 / p95 / p99 ms", "worst p95", "voice p50 / p95 ms", "unseen", "cores",
                   "a stream", "MB", ""):  # fmt: skip
        view.add_column(column, justify="right")
    for row in record["rows"]:
        face, voice = row["face_ms"], row["voice_ms"]
        view.add_row(
            str(row["streams"]),
            f"{face['p50']:.1f} / {face['p95']:.1f} / {face['p99']:.1f}",
            f"{row['face_p95_ms_worst_stream']:.1f}",
            "" if voice is None else f"{voice['p50']:.0f} / {voice['p95']:.0f}",
            f"{row['unseen']:.1%}",
            f"{row['cores']:.2f}",
            f"{row['cores_per_stream']:.2f}",
            f"{row['rss_mb']:.0f}",
            "carried" if row["carried"] else "too many",
        )
    screen.print(view)
    screen.print(
        f"carried: {record['streams_carried']} on {record['machine']['cores']} cores, that is "
        f"{record['streams_per_core']} a core (face p95 at most {FACE_P95_MS:g} ms, at most {UNSEEN:.0%} unseen)",
        soft_wrap=True,
        highlight=False,
    )
    warning = caution(max(row["other_cores"] for row in record["rows"]))
    if warning:
        screen.print(warning, soft_wrap=True, highlight=False)


if __name__ == "__main__":
    sys.exit(main())
