"""What train.evaluate measured, as tables for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

MEASURES = {
    "weighted_f1": "weighted F1",
    "uar": "UAR",
    "balanced_accuracy": "balanced accuracy",
    "accuracy": "accuracy",
    "ece": "calibration error",
}
"""Key in the results -> heading. Any of them makes a row."""


def entries(results: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every mapping within the results, with the names that lead to it."""
    for name, value in results.items():
        if isinstance(value, Mapping):
            here = f"{prefix}{name}"
            yield here, value
            yield from entries(value, f"{here} ")


def tables(results: Mapping[str, Any], labels: Sequence[str]) -> str:
    """Markdown: a line for each thing measured, with 95 % intervals in brackets where there are some; then, of the last
    one that has them, precision, recall and F1 of each label and the confusion matrix (rows are the truth)."""
    found = [(name, row) for name, row in entries({"all": results} if _measured(results) else results)]
    rows = [(name, row) for name, row in found if _measured(row)]
    used = [key for key in MEASURES if any(key in row for _, row in rows)]
    parts = [
        _grid(
            ["measured", "n", *(MEASURES[key] for key in used)],
            [[name, str(row.get("n", "")), *(_cell(row, key) for key in used)] for name, row in rows],
        )
    ]
    judged = [(name, row) for name, row in found if isinstance(row.get("per_class"), Mapping)]
    if judged:
        name, row = judged[-1]
        keys = ("n", "precision", "recall", "f1")
        lines = [
            [label, *(_number(figures.get(key)) for key in keys)]
            for label, figures in row["per_class"].items()
        ]
        parts.append(_grid([name, *keys], lines))
    mixed = [(name, row["confusion"]) for name, row in found if len(row.get("confusion", ())) == len(labels)]
    if mixed:
        name, matrix = mixed[-1]
        lines = [[label, *map(str, row)] for label, row in zip(labels, matrix, strict=True)]
        parts.append(_grid([f"{name}: labelled, estimated", *labels], lines))
    return "\n\n".join(parts)


def _measured(row: Mapping[str, Any]) -> bool:
    return any(isinstance(row.get(key), int | float) for key in MEASURES)


def _cell(row: Mapping[str, Any], key: str) -> str:
    spread = row.get(f"{key}_95", row.get(f"{key}_interval"))
    between = f" ({spread[0]:.3f} to {spread[1]:.3f})" if isinstance(spread, list | tuple) else ""
    return _number(row.get(key)) + between


def _number(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3f}"
    return "" if value is None else str(value)


def _grid(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as their widest cell, so that it reads in a terminal, too."""
    wide = [max(len(row[n]) for row in (head, *rows)) for n in range(len(head))]
    lines = [[cell.ljust(width) for cell, width in zip(row, wide, strict=True)] for row in (head, *rows)]
    lines.insert(1, ["-" * width for width in wide])
    return "\n".join(f"| {' | '.join(row)} |" for row in lines)
