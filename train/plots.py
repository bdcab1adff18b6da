"""PNG plots of what train.evaluate measured: confusion matrices, and weighted F1 by the cues that are present."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ecmf.errors import need
from train.result_table import entries


def draw(results: Mapping[str, Any], labels: Sequence[str], folder: Path) -> list[Path]:
    """A picture per confusion matrix in ``results`` and one of all weighted F1 values; returns what was written."""
    need("matplotlib", "train").use("Agg")
    written = []
    for name, found in entries(results):
        matrix = np.asarray(found.get("confusion", ()))
        if matrix.ndim == 2 and matrix.shape[0] == matrix.shape[1] > 1:
            names = labels if len(labels) == len(matrix) else [str(n) for n in range(len(matrix))]
            written.append(_confusion(matrix, names, name, folder / f"confusion-{_plain(name)}.png"))
    scored = [(name, row) for name, row in entries(results) if "weighted_f1" in row]
    if scored:
        written.append(_bars(scored, folder / "weighted-f1.png"))
    return written


def _plain(name: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in name).strip("-")


def _confusion(matrix: Any, labels: Sequence[str], title: str, path: Path) -> Path:
    plot = need("matplotlib.pyplot", "train")
    share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    size = (max(4.0, 1.2 + 0.7 * len(labels)), max(3.2, 1 + 0.65 * len(labels)))
    figure, axes = plot.subplots(figsize=size, layout="constrained")
    axes.imshow(share, vmin=0, vmax=1, cmap="Blues")
    for row, column in np.ndindex(*share.shape):
        axes.text(column, row, f"{share[row, column]:.2f}\n({matrix[row, column]})", ha="center", va="center",
                  color="white" if share[row, column] > 0.5 else "black", fontsize=8)  # fmt: skip
    axes.set(xlabel="estimated", ylabel="labelled")
    axes.set_title(textwrap.fill(title, 9 * round(size[0])), fontsize=10)
    axes.set_xticks(range(len(labels)), labels, rotation=45, ha="right")
    axes.set_yticks(range(len(labels)), labels)
    figure.savefig(path, dpi=120)
    plot.close(figure)
    return path


def _bars(scored: Sequence[tuple[str, Mapping[str, Any]]], path: Path) -> Path:
    """Bars with 95 % intervals, where there are some."""
    plot = need("matplotlib.pyplot", "train")
    figure, axes = plot.subplots(figsize=(7, 1 + 0.28 * len(scored)), layout="constrained")
    for place, (_, row) in enumerate(reversed(scored)):
        value = float(row["weighted_f1"])
        low, high = row.get("weighted_f1_95") or row.get("weighted_f1_interval") or (value, value)
        axes.barh(place, value, color="tab:blue")
        axes.plot([low, high], [place, place], color="black", linewidth=1.2)
        axes.text(1.01, place, f"{value:.3f}", va="center", fontsize=8)
    axes.set_yticks(range(len(scored)), [name for name, _ in reversed(scored)], fontsize=8)
    axes.set(xlim=(0, 1), ylim=(-0.6, len(scored) - 0.4), xlabel="weighted F1; lines: 95 % intervals")
    figure.savefig(path, dpi=120)
    plot.close(figure)
    return path
