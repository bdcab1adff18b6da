"""The sections of bench/REPORT.md, as Markdown: one function for each benchmark, and one for any other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from bench.accuracy import TASKS, numbers
from bench.results import Record


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
        yield f"- From picture to label, times as fast as {name}: {plain(times)}."
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
    yield f"{record['seconds'] / 60:.1f} minutes, {settled}; {plain(sum(record['messages'].values()))} messages."
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
    yield f"- {plain(record['cores'])} cores; something was done less often during {record['degraded_s']} s."
    for note, count in record["notes"].items():
        yield f"- Health said for {count} s: {note}."
    yield ""


def anything(record: Record) -> Iterator[str]:
    """Every list of objects as a table, every plain value as a line."""
    known = {"benchmark", "machine", "versions", "commit", "date", "options"}
    told = {key: value for key, value in record.items() if key not in known}
    tables = {
        key: value
        for key, value in told.items()
        if isinstance(value, list) and value and all(isinstance(each, dict) for each in value)
    }
    for key, value in told.items():
        if key not in tables and (not isinstance(value, dict | list) or value):
            yield f"- {key.replace('_', ' ')}: {plain(value)}"
    yield ""
    for rows in tables.values():
        columns = list(dict.fromkeys(name for each in rows for name in each))
        yield from table(
            [name.replace("_", " ") for name in columns],
            [[each.get(name) for name in columns] for each in rows],
        )


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
        yield "| " + " | ".join(plain(value).replace("|", "\\|") for value in row) + " |"
    yield ""


def plain(value: Any) -> str:
    """A value in a cell: empty for nothing, four digits of a number."""
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:.4g}" if abs(value) < 1000 else f"{value:.0f}"
        case dict():
            return ", ".join(f"{key} {plain(each)}" for key, each in value.items())
        case list() | tuple():
            return ", ".join(plain(each) for each in value)
    return str(value)
