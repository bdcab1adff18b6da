"""The first page of bench/REPORT.md: what there are targets for, beside what was measured, in a table."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from bench.report_sections import plain, table
from bench.results import Record

PEER = "fer"
"""The package that the target for speed names."""
TIMES_AS_FAST = 5.0


@dataclass(frozen=True)
class Row:
    """One figure of the summary."""

    what: str
    measured: Any
    wanted: str = ""
    met: bool | None = None
    """None: there is no target, or nothing was measured."""


def summary(records: Mapping[str, Record], titles: Mapping[str, str]) -> Iterator[str]:
    """A table over all records; ``titles``: heading of each record's section, by its name."""
    rows = [(name, row) for name, record in records.items() for row in _rows(record)]
    if not rows:
        return
    yield "## At a glance"
    yield ""
    aims = [row for _, row in rows if row.met is not None]
    missed = [row.what for row in aims if not row.met]
    yield (
        f"{len(aims) - len(missed)} of {len(aims)} targets are met"
        + (f"; missed: {'; '.join(missed)}." if missed else ".")
    )
    yield ""
    verdict = {True: "met", False: "**missed**", None: ""}
    yield from table(
        ("", "wanted", "measured", "", ""),
        [
            (
                row.what,
                row.wanted,
                row.measured,
                verdict[row.met],
                f"[details](#{anchor(titles[name])})",
            )
            for name, row in rows
        ],
    )


def anchor(heading: str) -> str:
    """How a heading is linked to within a page (GitHub's way)."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def _rows(record: Record) -> Iterator[Row]:
    reader = _READERS.get(record["benchmark"])
    if reader is not None:
        yield from reader(record)


def _latency(record: Record) -> Iterator[Row]:
    without = "" if "enrichment" in record["engine"] else " (without the language model)"
    for target in record["targets"]:
        what = target["what"] + ("" if "language model" in target["what"] else without)
        yield Row(what, target["measured"], f"≤ {plain(target['at_most'])}", target["met"])


def _throughput(record: Record) -> Iterator[Row]:
    limit = plain(record["limits"]["face_p95_ms"])
    yield Row(
        f"cameras with sound that this machine carries (face p95 ≤ {limit} ms)", record["streams_carried"]
    )


def _accuracy(record: Record) -> Iterator[Row]:
    for name, times in record["times_faster"].items():
        fastest = times.get("followed")
        if fastest is None:
            continue
        aimed = name.partition(" ")[0] == PEER
        yield Row(
            f"from picture to label, times as fast as {name}",
            fastest,
            f"≥ {TIMES_AS_FAST:g}" if aimed else "",
            fastest >= TIMES_AS_FAST if aimed else None,
        )
    own = next((row for row in record["rows"] if row["name"].startswith("ecmf") and row.get("network")), None)
    if own is not None:
        yield Row("face, FER+ test, 7 labels, accuracy", own["network"]["accuracy"])


def _live_words(record: Record) -> Iterator[Row]:
    for what, key in (
        ("words: end of a word until it is committed, p50 / p95 ms", "committed_ms"),
        ("language model: end of an utterance until its cues, p50 / p95 ms", "cues_after_end_ms"),
    ):
        spent = record.get(key)
        if spent:
            yield Row(what, f"{spent['p50']:.0f} / {spent['p95']:.0f}")


def _engines(record: Record) -> Iterator[Row]:
    met = sum(bool(verdict["met"]) for verdict in record["verdicts"])
    total = len(record["verdicts"])
    yield Row("models whose engine is as fast as wanted", f"{met} of {total}", "all", met == total)


def _soak(record: Record) -> Iterator[Row]:
    met = sum(bool(verdict["met"]) for verdict in record["verdicts"])
    total = len(record["verdicts"])
    what = f"{record['seconds'] / 60:.0f} minutes on end: memory, latency, gaps, restarts within bounds"
    yield Row(what, f"{met} of {total}", "all", met == total)


_READERS: Mapping[str, Callable[[Record], Iterator[Row]]] = {
    "latency": _latency,
    "throughput": _throughput,
    "accuracy": _accuracy,
    "live_words": _live_words,
    "engines": _engines,
    "soak": _soak,
}
