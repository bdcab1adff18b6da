"""Gathers what the benchmarks wrote into one page: `python bench/report.py` reads bench/results/*.json.

A file is known by the benchmark it names, else by its own name. Tables of benchmarks that this page does not know
are written as they are.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench import plots, results
from bench.accuracy import TASKS, numbers
from bench.figures import caution
from bench.results import Record
from ecmf.errors import DataError, EcmfError

HERE = Path(__file__).parent
ORDER = ("latency", "annotation", "throughput", "accuracy", "transcription", "enrichment", "engines", "soak")
"""Sections in this order, others behind them."""
TITLES = {
    "latency": "Latency of the live pipeline",
    "annotation": "Annotation, as fast as it goes",
    "throughput": "Cameras with sound on one machine",
    "accuracy": "The face branch beside other packages",
    "transcription": "Words",
    "enrichment": "What a language model adds to the text",
    "engines": "Engines",
    "soak": "Running on and on",
}
HEAD = """# Measured

Written by `python bench/report.py` from the files in `{folder}`; every number comes from there. How each was measured
stands above it, and at the head of its script in `bench/`. An empty cell was not measured.
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?", default=HERE / "results")
    parser.add_argument("--out", type=Path, default=HERE / "REPORT.md", help="(bench/REPORT.md)")
    options = parser.parse_args()
    try:
        records = gather(options.folder)
        figures = options.out.parent / "plots"
        drawn = {name: draw(record, figures / f"{name}.png") for name, record in records.items()}
        page = render(
            records, {name: f"plots/{name}.png" for name, done in drawn.items() if done}, options.folder
        )
        options.out.write_text(page, "utf-8")
    except EcmfError as error:
        print(f"report: {error}", file=sys.stderr)
        return error.exit_code
    print(f"{options.out}: {', '.join(records)}")
    return 0


def gather(folder: Path) -> dict[str, Record]:
    """File name without its ending -> record, in the order of the page. Raises DataError when there is none."""
    records = {path.stem: results.load(path) for path in sorted(folder.glob("*.json"))}
    if not records:
        raise DataError(
            f"{folder} holds no JSON file; run a benchmark with --json {folder}/latency.json first"
        )

    def place(name: str) -> tuple[int, str]:
        kind = records[name]["benchmark"]
        return (ORDER.index(kind) if kind in ORDER else len(ORDER), name)

    return {name: records[name] for name in sorted(records, key=place)}


def draw(record: Record, path: Path) -> bool:
    """Plot ``record`` where its benchmark has a plot."""
    plot = plots.PLOTS.get(record["benchmark"])
    if plot is not None:
        plot(record, path)
    return plot is not None


def busy(record: Record) -> list[str]:
    """A warning where the machine was not quiet."""
    rows = [record, *(row for row in record.get("rows", []) if isinstance(row, dict))]
    warning = caution(max(float(row.get("other_cores", 0.0)) for row in rows))
    return [f"**{warning[0].upper()}{warning[1:]}.**", ""] if warning else []


def render(records: Mapping[str, Record], pictures: Mapping[str, str], folder: Path) -> str:
    """The page as Markdown. ``pictures``: plots by name, relative to the page."""
    shown = folder.relative_to(HERE.parent) if folder.is_relative_to(HERE.parent) else Path(folder.name)
    lines = [HEAD.format(folder=shown)]
    for name, record in records.items():
        kind = record["benchmark"]
        title = TITLES.get(kind, kind)
        lines += [f"## {title}" if name == kind else f"## {title}: {name}", "", circumstances(record), ""]
        lines += busy(record)
        lines += SECTIONS.get(kind, anything)(record)
        if name in pictures:
            lines += [f"![{title}]({pictures[name]})", ""]
    return "\n".join(lines).rstrip() + "\n"


def circumstances(record: Record) -> str:
    """Machine, versions, commit and options, in a sentence."""
    machine = record.get("machine", {})
    told = [
        f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gib']} GiB" if machine else "",
        f"Python {machine['python']}" if machine else "",
        *(f"{name} {version}" for name, version in record.get("versions", {}).items() if name != "commit"),
        f"commit {record.get('commit') or record.get('versions', {}).get('commit', 'unknown')}",
        record.get("date", ""),
    ]
    options = ", ".join(
        f"{k} {_plain(v)}" for k, v in record.get("options", {}).items() if v not in (None, [])
    )
    return "; ".join(part for part in told if part) + (f". Options: {options}." if options else ".")


def latency(record: Record) -> Iterator[str]:
    """Targets, percentiles per trigger and stage, ages, drops and cost."""
    yield f"Warm-up of {record['warm_up_s']:g} s left out; a subscriber in another process reads the clock."
    yield ""
    verdict = {True: "met", False: "**missed**", None: "not measured"}
    yield from table(
        ("target on two cores", "at most", "measured", ""),
        [(t["what"], t["at_most"], t["measured"], verdict[t["met"]]) for t in record["targets"]],
    )
    columns = ("n", "hz", "p50", "p95", "p99", "max")
    for title, key in (
        ("capture to subscriber, ms, by trigger", "capture_to_subscriber_ms"),
        ("stage, ms", "stage_ms"),
        ("age at publication, pauses included, ms", "age_at_publish_ms"),
    ):
        rows = [(name, *(row[c] for c in columns)) for name, row in record[key].items()]
        yield from table((title, "n", "a second", *columns[2:]), rows)
    drops = ", ".join(f"{cause} {count}" for cause, count in record["drops"].items()) or "nothing"
    starts = ", ".join(f"{s:g}" for s in record["cold_starts_s"])
    engines = ", ".join(f"{name} {use}" for name, use in record["engine"].items())
    yield f"- {record['estimates']} estimates, {record['rate_hz']:g} a second; dropped: {drops}."
    share = record["timer_cores"] / max(record["cores"], 1e-9)
    yield (
        f"- {record['cores']:g} cores; reading clocks for the marks takes {share:.3%} of that (readings a second, at "
        "the price of one on this machine)."
    )
    yield f"- {record['rss_mb']:g} MB resident; process start to first label: {starts} s."
    yield f"- Model {record['model']}; engines: {engines}."
    yield ""


def annotation(record: Record) -> Iterator[str]:
    """Speed of an unpaced run."""
    yield (
        f"{record['media_s']:g} s of media in {record['wall_s']:g} s: {record['media_s_per_s']:g} s a second, "
        f"{record['core_s_per_media_s']:g} core seconds each; {record['rss_mb']:g} MB resident."
    )
    yield ""


def throughput(record: Record) -> Iterator[str]:
    """The curve, and what it says."""
    limits = record["limits"]
    rows = [
        (
            row["streams"],
            *(row["face_ms"][p] for p in ("p50", "p95", "p99")),
            row["face_p95_ms_worst_stream"],
            None if row["voice_ms"] is None else row["voice_ms"]["p95"],
            f"{row['unseen']:.1%}",
            row["cores"],
            row["cores_per_stream"],
            row["rss_mb"],
            "yes" if row["carried"] else "no",
        )
        for row in record["rows"]
    ]
    yield from table(
        ("cameras", "face p50, ms", "p95", "p99", "worst stream's p95", "voice p95", "frames unseen", "cores",
         "a stream", "MB", "carried"), rows,
    )  # fmt: skip
    yield (
        f"Carried: {record['streams_carried']} on {record['machine']['cores']} cores, "
        f"{record['streams_per_core']:g} a core, while face p95 is at most {limits['face_p95_ms']:g} ms and "
        f"at most {limits['unseen']:.0%} of the frames stay unseen."
    )
    if record.get("rss_mb_per_further_stream") is not None:
        yield f"A further camera takes {record['rss_mb_per_further_stream']:g} MB."
    yield ""


def accuracy(record: Record) -> Iterator[str]:
    """A table a task, and how many times as fast."""
    for task in TASKS:
        rows = [
            (row["name"], *numbers(row[task]))
            if row.get(task) is not None
            else (row["name"], row.get("reason"), *[None] * 5)
            for row in record["rows"]
            if row.get(task) is not None or "reason" in row
        ]
        yield from table(
            (
                f"{task}, n = {record['n'][task]}",
                "accuracy [95 %]",
                "UAR [95 %]",
                "found",
                "p50 ms",
                "p95 ms",
                "core ms",
            ),
            rows,
        )
    for name, times in record["times_faster"].items():
        yield f"- From picture to label, times as fast as {name}: {_plain(times)}."
    yield ""


def engines(record: Record) -> Iterator[str]:
    """What runs, per model and backend, and how the chosen one compares."""
    columns = ("p50", "p95", "p99", "parity_error")
    yield from table(
        ("model", "engine", "p50, ms", "p95", "p99", "parity error", ""),
        [
            (row["model"], f"{row['backend']} {row['precision']}", *(row[c] for c in columns),
             "chosen" if row["chosen"] else None)
            for row in record["rows"]
            if row["p50"] is not None
        ],
    )  # fmt: skip
    yield from table(
        ("model", "chosen", "p50, ms", "times as fast as eager torch", "share of ONNX Runtime fp32", ""),
        [
            (v["model"], v["chosen"], v["chosen_p50_ms"], v["times_faster_than_eager_torch"],
             v["share_of_onnxruntime_fp32"], "" if v["met"] else "**missed**")
            for v in record["verdicts"]
        ],
    )  # fmt: skip
    reasons: dict[str, list[str]] = {}
    for row in record["rows"]:
        if row["p50"] is None and row["note"]:
            reasons.setdefault(row["note"].partition("; ")[0], []).append(
                f"{row['model']} {row['backend']} {row['precision']}"
            )
    for reason, names in reasons.items():
        told = ", ".join(names) if len(names) <= 4 else f"{len(names)} candidates, such as {names[0]}"
        yield f"- Not run: {told}: {reason}."
    yield ""


def soak(record: Record) -> Iterator[str]:
    """What was allowed over the whole run, and what came."""
    settled = f"the first {record['settling_s'] / 60:g} left out of growth"
    yield f"{record['seconds'] / 60:.1f} minutes, {settled}; {_plain(sum(record['messages'].values()))} messages."
    yield ""
    yield from table(
        ("", "at most", "measured", ""),
        [
            (v["what"], v["at_most"], v["measured"], "" if v["met"] else "**missed**")
            for v in record["verdicts"]
        ],
    )
    yield from table(
        ("", "at first", "at last", "most"),
        [(name, row["first"], row["last"], row["max"]) for name, row in record["growth"].items()],
    )
    yield from table(
        ("capture to subscriber", "p50 at first, ms", "at last", "p99 at first, ms", "at last"),
        [
            (name, row["p50_first_ms"], row["p50_last_ms"], row["p99_first_ms"], row["p99_last_ms"])
            for name, row in record["latency"].items()
        ],
    )
    yield f"- {_plain(record['cores'])} cores; something was done less often during {record['degraded_s']} s."
    for note, count in record["notes"].items():
        yield f"- Health said for {count} s: {note}."
    yield ""


def anything(record: Record) -> Iterator[str]:
    """Every list of objects as a table, every plain value as a line."""
    known = {"benchmark", "machine", "versions", "commit", "date", "options"}
    for key, value in record.items():
        if key in known:
            continue
        if isinstance(value, list) and value and all(isinstance(each, dict) for each in value):
            columns = list(dict.fromkeys(name for each in value for name in each))
            yield from table(columns, [[each.get(name) for name in columns] for each in value])
        elif not isinstance(value, dict | list) or value:
            yield f"- {key}: {_plain(value)}"
    yield ""


SECTIONS = {
    "latency": latency,
    "annotation": annotation,
    "throughput": throughput,
    "accuracy": accuracy,
    "engines": engines,
    "soak": soak,
}


def table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> Iterator[str]:
    """A Markdown table and an empty line; nothing without rows."""
    if not rows:
        return
    yield "| " + " | ".join(head) + " |"
    yield "|---" * len(head) + "|"
    for row in rows:
        assert len(row) == len(head), (head, row)
        yield "| " + " | ".join(_plain(value).replace("|", "\\|") for value in row) + " |"
    yield ""


def _plain(value: Any) -> str:
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:.4g}" if abs(value) < 1000 else f"{value:.0f}"
        case dict():
            return ", ".join(f"{key} {_plain(each)}" for key, each in value.items())
        case list() | tuple():
            return ", ".join(_plain(each) for each in value)
    return str(value)


if __name__ == "__main__":
    sys.exit(main())
