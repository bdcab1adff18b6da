"""How soon the label follows a face that changes: python bench/response.py

Runs the demo's two face videos, and the first with its reading, through the branches and the shipped head as annotation
does, compares ways of smoothing on them and on steps of known height, and draws the step responses.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecmf.errors import EcmfError, need
from ecmf.labels import EKMAN
from ecmf.smoothing import Smoother, SmoothingOptions

Probs = NDArray[np.float64]
Track = list[tuple[float, Probs]]
"""Time in seconds and fused probabilities, float64[labels]."""
RATE = 15.0
STEPS = ((0.95, 0.95), (0.6, 0.6), (0.95, 0.6), (0.5, 0.45))
"""Confidence before and after a step."""


@dataclass
class Mean:
    """A plain exponential mean, its best label, and a margin that a new one must lead by."""

    tau_s: float
    margin: float
    label: int = -1
    t_s: float = 0.0
    mean: Probs | None = None

    def __call__(self, probs: Probs, t_s: float) -> int:
        step = 1 - np.exp(-(t_s - self.t_s) / self.tau_s)
        self.mean = probs if self.mean is None else self.mean + step * (probs - self.mean)
        self.t_s, best = t_s, int(self.mean.argmax())
        if self.label < 0 or self.mean[best] - self.mean[self.label] >= self.margin:
            self.label = best
        return self.label


def filtered(options: SmoothingOptions) -> Callable[[Probs, float], int]:
    """``ecmf.smoothing`` by label number."""
    smoother = Smoother(EKMAN, options)
    return lambda probs, t_s: EKMAN.index(smoother.update(probs, round(t_s * 1e9))[1])


def ways() -> Mapping[str, Callable[[], Callable[[Probs, float], int]]]:
    """What is compared, by name."""
    return {
        "mean 0.25 s, margin 0.1": lambda: Mean(0.25, 0.1),
        "mean 0.5 s, margin 0.1": lambda: Mean(0.5, 0.1),
        "mean 0.7 s, margin 0.1": lambda: Mean(0.7, 0.1),
        "filter 0.25 s, margin 0.3": lambda: filtered(SmoothingOptions(0.25, 0.3)),
        "filter 0.25 s, margin 0.7": lambda: filtered(SmoothingOptions(0.25, 0.7)),
        "filter 0.4 s, margin 0.7": lambda: filtered(SmoothingOptions(0.4, 0.7)),
    }


def lag_s(way: Callable[[Probs, float], int], before: float, after: float) -> float | None:
    """From a step to the new label; None when it does not come within 5 s."""
    for frame in range(round(8 * RATE)):
        stepped = frame >= 3 * RATE
        probs = np.full(len(EKMAN), (1 - (after if stepped else before)) / (len(EKMAN) - 1))
        probs[1 if stepped else 2] = after if stepped else before
        if way(probs, frame / RATE) == 1 and stepped:
            return round((frame + 1) / RATE - 3, 3)
    return None


def changes(way: Callable[[Probs, float], int], track: Track) -> list[tuple[float, str]]:
    """When the label became what, the first included."""
    found: list[tuple[float, str]] = []
    for t_s, probs in track:
        label = EKMAN[way(probs, t_s)]
        if not found or found[-1][1] != label:
            found.append((round(t_s, 2), label))
    return found


def annotate(arguments: Sequence[str]) -> list[Mapping[str, Any]]:
    """The estimates that ``ecmf-live --fast --json`` gives, as often as live."""
    import subprocess

    command = [
        sys.executable,
        "-m",
        "realtime.cli",
        *arguments,
        "--fast",
        "--json",
        "--rate",
        "15",
        "--llm",
        "off",
    ]
    done = subprocess.run(
        [*command, "--bind", "tcp://127.0.0.1:*"], capture_output=True, text=True, check=False
    )
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"it ended with {done.returncode} and said nothing"]
        raise EcmfError(f"{' '.join(command)}: {said[-1]}")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return [line for line in lines if line["type"] == "emotion" and line["raw"] is not None]


def track_of(estimates: Sequence[Mapping[str, Any]]) -> Track:
    return [(e["t_media_s"], np.array([e["raw"][label] for label in EKMAN])) for e in estimates]


def draw(estimates: Mapping[str, Sequence[Mapping[str, Any]]], path: Path) -> None:
    """Raw and smoothed probabilities and the label over media time, a panel a clip."""
    need("matplotlib", "train").use("Agg")
    plot = need("matplotlib.pyplot", "train")
    figure, panels = plot.subplots(len(estimates), 1, figsize=(10, 3 * len(estimates)), squeeze=False)
    colours = dict(zip(EKMAN, plot.get_cmap("tab10").colors, strict=False))
    for axes, (name, found) in zip(panels[:, 0], estimates.items(), strict=True):
        times = [e["t_media_s"] for e in found]
        shown = [label for label in EKMAN if max(e["raw"][label] for e in found) > 0.3]
        for label in shown:
            axes.plot(times, [e["raw"][label] for e in found], color=colours[label], alpha=0.35, lw=1)
            axes.plot(times, [e["smoothed"][label] for e in found], color=colours[label], lw=2, label=label)
        for begin, end, one in zip(times, [*times[1:], times[-1]], found, strict=True):
            axes.axvspan(begin, end, 1.0, 1.06, color=colours[one["label"]], clip_on=False, lw=0)
        axes.set(ylim=(0, 1), xlim=(0, times[-1]), ylabel="probability")
        axes.set_title(f"{name} (bar: label)", pad=18)
        axes.legend(loc="center right", fontsize=8)
    panels[-1, 0].set_xlabel("media time, s; thin: raw, thick: smoothed")
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plot.close(figure)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python bench/response.py", description=__doc__)
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("runs/response"),
        metavar="DIR",
        help="response.png and response.json (default: runs/response)",
    )
    asked = parser.parse_args(arguments)
    try:
        from ecmf.weights import fetch

        clips = {
            "face that changes, with reading": annotate(["--demo"]),
            "face that changes": annotate(["--source", str(fetch("demo-face"))]),
            "smile": annotate(["--source", str(fetch("demo-smile"))]),
        }
    except EcmfError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    table: dict[str, Any] = {
        name: {
            "lag_s": {f"{a} to {b}": lag_s(make(), a, b) for a, b in STEPS},
            "labels": {clip: changes(make(), track_of(found)) for clip, found in clips.items()},
        }
        for name, make in ways().items()
    }
    asked.out.mkdir(parents=True, exist_ok=True)
    draw(clips, asked.out / "response.png")
    (asked.out / "response.json").write_text(json.dumps(table, indent=1) + "\n", "utf-8")
    for name, row in table.items():
        print(f"{name}: lags {', '.join(f'{step}: {lag} s' for step, lag in row['lag_s'].items())}")
        for clip, labels in row["labels"].items():
            print(f"  {clip}: {len(labels) - 1} changes: {', '.join(f'{t} {label}' for t, label in labels)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
