"""Plots of what the JSON files hold, as PNG."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.results import Record
from ecmf.errors import need


def latency(record: Record, path: Path) -> None:
    """Capture to subscriber over time, and the stages of the median face estimate."""
    pyplot = _pyplot()
    figure, (over_time, waterfall) = pyplot.subplots(2, 1, figsize=(10, 7), constrained_layout=True)
    for trigger in ("voice", "scene", "face"):
        points = record["series_ms"].get(trigger, [])
        if points:
            seconds, spent = zip(*points, strict=True)
            over_time.plot(seconds, spent, ".", markersize=3, label=trigger)
    over_time.set(
        xlabel="s", ylabel="ms, logarithmic", yscale="log", title="capture to subscriber, by trigger"
    )
    over_time.grid(True, which="both", alpha=0.3)
    if over_time.lines:
        over_time.legend(loc="upper right")
    begin = 0.0
    for name, spent in record["waterfall"]:
        waterfall.barh(name, spent, left=begin)
        waterfall.text(begin + spent, name, f" {spent:.2f}", va="center", fontsize=8)
        begin += spent
    waterfall.invert_yaxis()
    waterfall.set(xlabel="ms since capture", title="stages of the median face estimate")
    waterfall.margins(x=0.1)
    _save(figure, path)


def throughput(record: Record, path: Path) -> None:
    """Face latency, unseen frames and cost against the number of streams."""
    pyplot = _pyplot()
    figure, (late, lost, cost) = pyplot.subplots(1, 3, figsize=(12, 4), constrained_layout=True)
    rows, limits = record["rows"], record["limits"]
    streams = [row["streams"] for row in rows]
    for name in ("p50", "p95"):
        late.plot(streams, [row["face_ms"][name] for row in rows], "o-", label=f"face {name}")
    late.axhline(limits["face_p95_ms"], color="grey", linestyle="--")
    late.set(xlabel="cameras with sound", ylabel="ms", title="capture to subscriber")
    late.legend()
    lost.plot(streams, [100 * row["unseen"] for row in rows], "o-")
    lost.axhline(100 * limits["unseen"], color="grey", linestyle="--")
    lost.set(xlabel="cameras with sound", ylabel="%", title="frames that were never looked at")
    cost.plot(streams, [row["cores"] for row in rows], "o-", label="cores")
    cost.axhline(record["machine"]["cores"], color="grey", linestyle="--")
    cost.set(xlabel="cameras with sound", ylabel="cores", title="cost")
    memory = cost.twinx()
    memory.plot(streams, [row["rss_mb"] / 1024 for row in rows], "s:", color="tab:red", label="GiB resident")
    memory.set(ylabel="GiB resident", ylim=(0, None))
    for axis in (late, lost, cost):
        axis.set(xticks=streams, ylim=(0, None))
    _save(figure, path)


def accuracy(record: Record, path: Path) -> None:
    """Accuracy against time for one picture, found and read."""
    pyplot = _pyplot()
    figure, axis = pyplot.subplots(figsize=(9, 4), constrained_layout=True)
    for row in record["rows"]:
        if row.get("network") and row.get("frame"):
            axis.plot(row["frame"]["p50_ms"], row["network"]["accuracy"], "o", label=row["name"])
    axis.set(
        xscale="log",
        xlabel="ms from picture to label, one thread, logarithmic",
        ylabel="accuracy, FER+ test, 7 labels",
    )
    axis.grid(True, which="both", alpha=0.3)
    axis.margins(0.15)
    if axis.lines:
        axis.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8)
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
    memory.legend(loc="lower right")
    counts.plot(minutes, files, label="file descriptors")
    counts.plot(minutes, threads, label="threads")
    counts.set(ylim=(0, None))
    counts.legend(loc="lower right")
    for trigger in ("voice", "face"):
        rows = record["per_minute"].get(trigger, [])
        if rows:
            minute, p50, p99 = zip(*rows, strict=True)
            (line,) = late.plot([m + 0.5 for m in minute], p99, "o-", markersize=3, label=f"{trigger} p99")
            late.plot([m + 0.5 for m in minute], p50, ":", color=line.get_color(), label=f"{trigger} p50")
    late.set(xlabel="minutes", ylabel="ms", ylim=(0, None), title="capture to subscriber")
    late.legend(loc="upper right")
    _save(figure, path)


PLOTS: dict[str, Callable[[Record, Path], None]] = {
    "latency": latency,
    "throughput": throughput,
    "accuracy": accuracy,
    "soak": soak,
}
"""By the name of the benchmark."""


def _pyplot() -> Any:
    matplotlib = need("matplotlib", "train")
    matplotlib.use("Agg")
    return need("matplotlib.pyplot", "train")


def _save(figure: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, metadata={"Software": None})
    need("matplotlib.pyplot", "train").close(figure)
