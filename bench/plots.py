"""Plots of what the JSON files hold, as PNG."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.results import Record
from ecmf.errors import need

FACE_MS = (20, 33)
"""What a face may take from capture to subscriber, p50 and p95."""
LEAST_MS = 0.01
"""Stages that take less are left out of the picture."""


def latency(record: Record, path: Path) -> None:
    """Capture to subscriber over time, and the stages of the median face estimate."""
    pyplot = _pyplot()
    figure, (over_time, waterfall) = pyplot.subplots(2, 1, figsize=(10, 7.5), constrained_layout=True)
    for trigger, colour in (("voice", "tab:blue"), ("scene", "tab:orange"), ("face", "tab:green")):
        points = record["series_ms"].get(trigger, [])
        if points:
            seconds, spent = zip(*points, strict=True)
            over_time.plot(seconds, spent, ".", markersize=4, color=colour, label=trigger)
    for share, limit in zip(("p50", "p95"), FACE_MS, strict=True):
        over_time.axhline(limit, color="tab:green", linestyle="--", linewidth=1)
        at = {"transform": over_time.get_yaxis_transform(), "fontsize": 8, "color": "tab:green"}
        over_time.text(1.005, limit, f"face {share}\nat most {limit}", va="center", **at)
    over_time.set(xlabel="seconds", ylabel="ms (logarithmic)", yscale="log")
    over_time.set_title("capture to subscriber, by trigger", loc="left")
    _plain_ticks(over_time.yaxis)
    over_time.grid(True, which="both", alpha=0.3)
    over_time.margins(x=0.01)
    if over_time.get_legend_handles_labels()[0]:
        over_time.legend(loc="lower right", ncols=3, bbox_to_anchor=(1.0, 1.0), frameon=False, markerscale=2)
    steps = [(name, spent) for name, spent in record["waterfall"] if spent >= LEAST_MS]
    begin = 0.0
    for name, spent in steps:
        waterfall.barh(name, spent, left=begin, color="tab:green")
        waterfall.text(begin + spent, name, f" {spent:.2f} ms", va="center", fontsize=9)
        begin += spent
    waterfall.invert_yaxis()
    waterfall.grid(True, axis="x", alpha=0.3)
    total = sum(spent for _, spent in record["waterfall"])
    waterfall.set(xlabel="ms since capture", title=f"where the {total:.1f} ms of the median face estimate go")
    waterfall.margins(x=0.12)
    _save(figure, path)


def throughput(record: Record, path: Path) -> None:
    """Face latency, unseen frames and cost against the number of streams."""
    pyplot = _pyplot()
    figure, (late, lost, cost) = pyplot.subplots(1, 3, figsize=(13, 4), constrained_layout=True)
    rows, limits = record["rows"], record["limits"]
    streams = [row["streams"] for row in rows]
    for name in ("p50", "p95"):
        late.plot(streams, [row["face_ms"][name] for row in rows], "o-", label=name)
    late.axhline(limits["face_p95_ms"], color="grey", linestyle="--", label="p95 allowed")
    late.set(ylabel="ms", title="face: capture to subscriber")
    lost.plot(streams, [100 * row["unseen"] for row in rows], "o-", label="measured")
    lost.axhline(100 * limits["unseen"], color="grey", linestyle="--", label="allowed")
    lost.set(ylabel="%", title="frames that were never looked at")
    (used,) = cost.plot(streams, [row["cores"] for row in rows], "o-", label="cores used")
    there = cost.axhline(record["machine"]["cores"], color="grey", linestyle="--", label="cores there are")
    cost.set(ylabel="cores", title="cost")
    memory = cost.twinx()
    (resident,) = memory.plot(
        streams, [row["rss_mb"] / 1024 for row in rows], "s:", color="tab:red", label="memory (right)"
    )
    memory.set(ylabel="GiB resident", ylim=(0, None))
    for axis in (late, lost, cost):
        axis.set(xlabel="cameras with sound", xticks=streams, ylim=(0, None))
        axis.grid(True, alpha=0.3)
    late.legend(loc="upper left")
    lost.legend(loc="upper left")
    cost.legend(handles=[used, there, resident], loc="lower right")
    _save(figure, path)


def accuracy(record: Record, path: Path) -> None:
    """Accuracy against time for one picture, found and read."""
    pyplot = _pyplot()
    figure, axis = pyplot.subplots(figsize=(9, 4.5), constrained_layout=True)
    rows = [row for row in record["rows"] if row.get("network") and row.get("frame")]
    for row in rows:
        at = (row["frame"]["p50_ms"], row["network"]["accuracy"])
        axis.plot(*at, "o", markersize=9)
        axis.annotate(row["name"], at, xytext=(0, 10), textcoords="offset points", ha="center", fontsize=9)
    axis.set(
        xscale="log",
        xlabel="ms from picture to label, finding the face included, one thread (logarithmic; left is better)",
        ylabel="accuracy, FER+ test, 7 labels",
        title="the face branch beside other packages",
    )
    _plain_ticks(axis.xaxis)
    axis.grid(True, which="both", alpha=0.3)
    axis.margins(0.2)
    _save(figure, path)


def soak(record: Record, path: Path) -> None:
    """Memory, descriptors and threads, and latency by the minute."""
    pyplot = _pyplot()
    figure, (memory, counts, late) = pyplot.subplots(
        3, 1, figsize=(10, 8), constrained_layout=True, sharex=True
    )
    at_s, rss, own, files, threads = zip(*record["samples"], strict=True)
    minutes = [each / 60 for each in at_s]
    memory.plot(minutes, rss, label="resident")
    memory.plot(minutes, own, label="of it, not mapped from files")
    memory.axvline(record["settling_s"] / 60, color="grey", linestyle="--")
    memory.set(ylabel="MB", ylim=(0, None), title="memory")
    memory.legend(loc="lower right", ncols=2)
    counts.plot(minutes, files, label="file descriptors")
    counts.plot(minutes, threads, label="threads")
    counts.set(ylabel="count", ylim=(0, None), title="descriptors and threads")
    counts.legend(loc="lower right", ncols=2)
    for trigger in ("voice", "face"):
        # The last minute is seldom whole.
        rows = [row for row in record["per_minute"].get(trigger, []) if row[0] + 1 <= minutes[-1]]
        if rows:
            minute, p50, p99 = zip(*rows, strict=True)
            (line,) = late.plot([m + 0.5 for m in minute], p99, "o-", markersize=3, label=f"{trigger} p99")
            late.plot([m + 0.5 for m in minute], p50, ":", color=line.get_color(), label=f"{trigger} p50")
    late.set(xlabel="minutes", ylabel="ms", ylim=(0, None))
    late.set_title("capture to subscriber", loc="left")
    late.legend(loc="lower right", ncols=4, bbox_to_anchor=(1.0, 1.0), frameon=False)
    for axis in (memory, counts, late):
        axis.grid(True, alpha=0.3)
        axis.margins(x=0.01)
    _save(figure, path)


PLOTS: dict[str, Callable[[Record, Path], None]] = {
    "latency": latency,
    "throughput": throughput,
    "accuracy": accuracy,
    "soak": soak,
}
"""By the name of the benchmark."""


def _plain_ticks(axis: Any) -> None:
    """10, 20, 50, 100 ... on a logarithmic axis in place of powers of ten."""
    ticker = need("matplotlib.ticker", "train")
    axis.set_major_locator(ticker.LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(ticker.NullFormatter())


def _pyplot() -> Any:
    matplotlib = need("matplotlib", "train")
    matplotlib.use("Agg")
    return need("matplotlib.pyplot", "train")


def _save(figure: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, metadata={"Software": None})
    need("matplotlib.pyplot", "train").close(figure)
