"""PNG plots of what train.evaluate measured: confusion matrices, and weighted F1 by the cues that are present."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ecmf.errors import need


def draw(results: Mapping[str, Any], labels: Sequence[str], folder: Path) -> list[Path]:
    """A picture per confusion matrix in ``results`` and one of all weighted F1 values; returns what was written."""
    need("matplotlib", "train").use("Agg")
    written = []
    for name, found in _entries(results):
        matrix = np.asarray(found.get("confusion", ()))
        if matrix.ndim == 2 and matrix.shape[0] == matrix.shape[1] > 1:
            names = labels if len(labels) == len(matrix) else [str(n) for n in range(len(matrix))]
            written.append(_confusion(matrix, names, name, folder / f"confusion-{_plain(name)}.png"))
    scored = [(name, float(row["weighted_f1"])) for name, row in _entries(results) if "weighted_f1" in row]
    if scored:
        written.append(_bars(scored, folder / "weighted-f1.png"))
    return written


def _entries(results: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    for name, value in results.items():
        if isinstance(value, Mapping):
            here = f"{prefix}{name}"
            yield here, value
            yield from _entries(value, f"{here} ")


def _plain(name: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in name).strip("-")


def _confusion(matrix: Any, labels: Sequence[str], title: str, path: Path) -> Path:
    plot = need("matplotlib.pyplot", "train")
    share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    figure, axes = plot.subplots(figsize=(1.2 + 0.7 * len(labels), 1 + 0.65 * len(labels)))
    axes.imshow(share, vmin=0, vmax=1, cmap="Blues")
    for row, column in np.ndindex(*share.shape):
        axes.text(column, row, f"{share[row, column]:.2f}", ha="center", va="center",
                  color="white" if share[row, column] > 0.5 else "black", fontsize=8)  # fmt: skip
    axes.set(xlabel="estimated", ylabel="labelled", title=title)
    axes.set_xticks(range(len(labels)), labels, rotation=45, ha="right")
    axes.set_yticks(range(len(labels)), labels)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plot.close(figure)
    return path


def _bars(scored: Sequence[tuple[str, float]], path: Path) -> Path:
    plot = need("matplotlib.pyplot", "train")
    figure, axes = plot.subplots(figsize=(7, 1 + 0.28 * len(scored)))
    names, values = zip(*reversed(scored), strict=True)
    axes.barh(range(len(names)), values, color="tab:blue")
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.set(xlim=(0, 1), xlabel="weighted F1")
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plot.close(figure)
    return path
