"""What got better or worse between two runs, and whether the difference is more than noise.

Two JSON files of the same benchmark: the noise is the spread between equal stretches of each run, which says nothing
about what differs from one run to the next. With --commits both are checked out and run in turn, several times, and
the noise is the spread between the runs; prefer that.
"""

from __future__ import annotations

import argparse
import math
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from bench import results
from bench.console import console
from bench.figures import LAST_STEPS, caution, figures_of
from bench.latency import WARM_UP_S, measure
from bench.results import Record
from ecmf.errors import EcmfError, UsageError, need

Samples = Mapping[str, Sequence[float]]
"""Figure -> its values; less is better in all of them."""
Verdict = Literal["better", "worse", "no difference", "unknown"]

T95 = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23, 2.20, 2.18, 2.16, 2.14)
"""Student's t, two-sided 95 %, for 1 to 14 degrees of freedom; 2 beyond."""


START_S = 3.0
"""About as long does a start with warm caches take."""
CHIEF = (
    "capture to subscriber, face, p50 ms",
    "capture to subscriber, face, p95 ms",
    "capture to subscriber, voice, p95 ms",
    f"{LAST_STEPS}, p50 ms",
    "cores",
    "rss_mb",
    "cold_start_s",
)
"""What there are targets for: shown in any case; of the rest only what differs."""


@dataclass(frozen=True)
class Change:
    """One figure in both runs."""

    name: str
    before: float
    after: float
    noise: float | None
    """Half the 95 % interval of the difference (Welch 1947); None where there is one value only."""

    @property
    def verdict(self) -> Verdict:
        if self.noise is None:
            return "unknown"
        if abs(self.after - self.before) <= self.noise:
            return "no difference"
        return "worse" if self.after > self.before else "better"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("files", type=Path, nargs="*", metavar="JSON", help="two files that --json wrote")
    parser.add_argument("--commits", nargs=2, metavar=("A", "B"), help="run the latency of both in turn")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each commit (3)")
    parser.add_argument("--seconds", type=float, default=15.0, help="of each run, warm-up excluded (15)")
    parser.add_argument("--source", default="demo", help="demo, or a file (demo)")
    parser.add_argument("--all", action="store_true", help="show every figure, not only the chief ones")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write the comparison to OUT")
    parser.add_argument(
        "--live", nargs=argparse.REMAINDER, default=[], help="what follows goes to ecmf-live (with --commits)"
    )
    options = parser.parse_args()
    try:
        if bool(options.commits) == bool(options.files) or len(options.files) not in (0, 2):
            raise UsageError("give two JSON files, or --commits A B")
        if options.commits:
            if options.rounds < 2:
                raise UsageError("--rounds is 2 at least, or nothing could be said about noise")
            before, after = alternate(options)
            names = tuple(options.commits)
        else:
            first, second = (results.load(path) for path in options.files)
            for line in cautions(first, second):
                tell(line)
            before, after = samples(first), samples(second)
            names = tuple(path.name for path in options.files)
        changes = compare(before, after)
        show(changes, names, everything=options.all)
        if options.json:
            rows = [
                {
                    "figure": c.name,
                    "before": c.before,
                    "after": c.after,
                    "noise": c.noise,
                    "verdict": c.verdict,
                }
                for c in changes
            ]
            how = {"of": list(names), "rounds": options.rounds if options.commits else None}
            results.save(options.json, results.record("compare", how, {"rows": rows}))
    except EcmfError as error:
        print(f"compare: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def tell(line: str) -> None:
    """How it goes, beside the table."""
    print(f"compare: {line}", file=sys.stderr, flush=True)


def samples(record: Record) -> dict[str, list[float]]:
    """The figures of a record: of its blocks where it has any, else single values of times and costs."""
    if "blocks" in record:
        found = {name: list(values) for name, values in record["blocks"].items() if values}
        single = {name: [float(record[name])] for name in ("rss_mb", "cold_start_s") if name in record}
        return found | single
    measured = {key: value for key, value in record.items() if key not in ("machine", "options", "limits")}
    return {name: [value] for name, value in _leaves(measured) if name.rpartition(" ")[2] in _LESS_IS_BETTER}


_LESS_IS_BETTER = frozenset(
    ("p50", "p95", "p99", "p50_ms", "p95_ms", "ms_p50", "ms_p95", "cores", "cores_per_stream", "rss_mb", "unseen",
     "cold_start_s", "rtf", "core_s_per_minute", "core_s_per_media_s")
)  # fmt: skip


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, float]]:
    """Numbers in nested dictionaries and lists, under the names that lead there."""
    if isinstance(value, dict):
        for key, each in value.items():
            yield from _leaves(each, f"{path} {key}".strip())
    elif isinstance(value, list):
        for number, each in enumerate(value):
            name = next((str(each[k]) for k in _NAMES if k in each), None) if isinstance(each, dict) else None
            yield from _leaves(each, f"{path} {name or number}")
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield path, float(value)


_NAMES = ("name", "streams", "model", "what")


def compare(before: Samples, after: Samples) -> list[Change]:
    """Every figure that both have."""
    return [
        Change(
            name,
            float(np.mean(before[name])),
            float(np.mean(after[name])),
            noise(before[name], after[name]),
        )
        for name in before
        if name in after
    ]


def noise(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Half the 95 % interval of the difference of two means, variances unequal (Welch 1947); None with one value."""
    if len(first) < 2 or len(second) < 2:
        return None
    a, b = (float(np.var(each, ddof=1)) / len(each) for each in (first, second))
    if a + b == 0:
        return 0.0
    share = a / (a + b)
    freedom = 1 / (share**2 / (len(first) - 1) + (1 - share) ** 2 / (len(second) - 1))
    t = T95[min(int(freedom), len(T95)) - 1] if freedom < len(T95) + 1 else 2.0
    return t * math.sqrt(a + b)


def cautions(first: Record, second: Record) -> list[str]:
    """What makes the two hard to compare. Raises UsageError for different benchmarks."""
    if first["benchmark"] != second["benchmark"]:
        raise UsageError(
            f"{first['benchmark']} and {second['benchmark']} are two benchmarks; give two runs of one"
        )
    differ = []
    for name in ("machine", "options", "engine", "model"):
        one, other = first.get(name), second.get(name)
        if isinstance(one, dict) and isinstance(other, dict):
            parts = [(f"{name} {key}", one.get(key), other.get(key)) for key in one.keys() | other.keys()]
        else:
            parts = [(name, one, other)]
        differ += [f"{what} differs: {a} and {b}" for what, a, b in sorted(parts, key=str) if a != b]
    busy = caution(max(float(record.get("other_cores", 0.0)) for record in (first, second)))
    return [*differ, busy] if busy else differ


def alternate(options: argparse.Namespace) -> tuple[Samples, Samples]:
    """Latency of both commits, in turn, the order swapped every round. Raises UsageError for an unknown commit."""
    found: list[dict[str, list[float]]] = [defaultdict(list), defaultdict(list)]
    runs = 2 * options.rounds
    minutes = math.ceil(runs * (options.seconds + WARM_UP_S + START_S) / 60)
    tell(f"{runs} runs of {options.seconds:g} s, about {minutes} min")
    other = 0.0
    with worktree(options.commits[0]) as first, worktree(options.commits[1]) as second:
        for number in range(options.rounds):
            order = (0, 1) if number % 2 == 0 else (1, 0)
            for which in order:
                tell(f"round {number + 1} of {options.rounds}, {options.commits[which]}")
                run = measure(options.source, options.seconds, options.live, (first, second)[which])
                figures = figures_of(run)
                other = max(other, figures["other_cores"])
                for name, value in chief(figures).items():
                    found[which][name].append(value)
    busy = caution(other)
    if busy:
        tell(busy)
    return found[0], found[1]


def chief(figures: Mapping[str, Any]) -> dict[str, float]:
    """The figures of one run that are compared."""
    values: dict[str, float] = {}
    for trigger, row in figures["capture_to_subscriber_ms"].items():
        values |= {f"capture to subscriber, {trigger}, {p} ms": row[p] for p in ("p50", "p95")}
    for stage, row in figures["stage_ms"].items():
        values[f"{stage}, p50 ms"] = row["p50"]
    return values | {name: float(figures[name]) for name in ("cores", "rss_mb", "cold_start_s")}


@contextmanager
def worktree(commit: str) -> Iterator[Path]:
    """``commit`` checked out beside the repository, removed afterwards. Raises UsageError when there is none."""
    here = Path(__file__).parent
    with tempfile.TemporaryDirectory(prefix="ecmf-compare-") as folder:
        path = Path(folder) / "tree"
        made = subprocess.run(
            ["git", "worktree", "add", "--quiet", "--detach", str(path), commit],
            cwd=here,
            capture_output=True,
            text=True,
            check=False,
        )
        if made.returncode != 0:
            raise UsageError(f"--commits {commit} cannot be checked out: {made.stderr.strip()}")
        try:
            yield path
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", str(path)], cwd=here, check=False)


def show(changes: Sequence[Change], names: Sequence[str], *, everything: bool) -> None:
    """The verdict in a sentence, and the table for people: what differs, then what there are targets for."""
    told = [change for change in changes if change.noise is not None]
    differing = [change for change in told if change.verdict != "no difference"]
    rest = [change for change in changes if change not in differing]
    shown = differing + [change for change in rest if change.name in CHIEF or everything]
    if not told or not shown:  # single values, of which nothing can be said but what they are
        shown = list(changes)
    screen = console()
    view = need("rich.table", "live").Table(box=need("rich.box", "live").SIMPLE_HEAD)
    for column in ("", *names, "change", "noise", ""):
        view.add_column(column, justify="right" if column else "left", no_wrap=bool(column))
    for change in shown:
        difference = change.after - change.before
        share = f" ({difference / change.before:+.0%})" if change.before else ""
        spread = "" if change.noise is None else f"± {change.noise:.3g}"
        numbers = (f"{change.before:.4g}", f"{change.after:.4g}", f"{difference:+.3g}{share}", spread)
        view.add_row(change.name, *numbers, change.verdict)
    screen.print(view)
    count = {verdict: sum(change.verdict == verdict for change in told) for verdict in ("better", "worse")}
    lines = [
        f"Of {len(told)} figures with a noise estimate, {names[1]} is better in {count['better']} and worse in "
        f"{count['worse']} by more than noise; about {0.05 * len(told):.0f} would be by chance alone."
    ]
    if len(shown) < len(changes):
        lines.append(f"{len(changes) - len(shown)} further figures show no difference; --all prints them.")
    for line in lines:
        screen.print(line, soft_wrap=True, highlight=False)


if __name__ == "__main__":
    sys.exit(main())
