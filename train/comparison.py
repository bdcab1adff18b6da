"""What a comparison found, for people: tables of means with intervals, and by how far one method is ahead."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ecmf.cue import MODALITIES
from train.pairing import TRUST
from train.scores import summary

Results = Mapping[str, Mapping[str, Mapping[str, Any]]]
"""condition -> method -> ``summary`` of its scores."""


def gains(
    results: Results, of: str, over: Sequence[str], *, each: bool = False
) -> dict[str, dict[str, dict[str, Any]]]:
    """How far ``of`` is ahead of each of ``over``, seed by seed, by how many of face, voice and text are missing:
    {missing: {method: summary of the differences}}. Pairing by seed leaves out what the draws have in common.

    each: for every condition by itself instead.
    """
    found: dict[str, dict[str, dict[str, Any]]] = {}
    subsets = [c for c in results if set(c.split("+")) <= set(MODALITIES)]
    groups = {
        f"{missing} missing": [
            c for c in subsets if len(set(TRUST) & set(c.split("+"))) == len(TRUST) - missing
        ]
        for missing in range(len(TRUST))
    }
    for name, chosen in ({c: [c] for c in results} if each else groups).items():
        for other in over:
            rows = [(results[c][of]["values"], results[c][other]["values"]) for c in chosen]
            differences = np.mean([np.subtract(ours, theirs) for ours, theirs in rows], axis=0)
            found.setdefault(name, {})[other] = summary(differences.tolist())
    return found


def table(results: Results, names: Sequence[str], corner: str = "cues") -> str:
    """A line per condition, in percent, mean and interval."""

    def cell(row: Mapping[str, Mapping[str, Any]], name: str) -> str:
        if name not in row:
            return ""
        found = row[name]
        interval = "" if found["ci95"] is None else f" ± {100 * found['ci95']:.1f}"
        return f"{100 * found['mean']:.1f}{interval}"

    lines = [f"| {corner} | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    lines += [
        f"| {condition} | " + " | ".join(cell(row, name) for name in names) + " |"
        for condition, row in results.items()
    ]
    return "\n".join(lines)
