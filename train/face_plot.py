"""The face bundle's figures as one picture."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ecmf.errors import need
from ecmf.labels import EKMAN


def plot(metrics: Mapping[str, Any], out: Path) -> None:
    """Confusion of the seven labels, accuracy against face height, and robustness, into a PNG.

    ``metrics``: what ``train.evaluate_face.evaluate`` returns.
    """
    matplotlib: Any = need("matplotlib", "train")
    matplotlib.use("Agg")
    pyplot: Any = need("matplotlib.pyplot", "train")
    figure, (left, middle, right) = pyplot.subplots(1, 3, figsize=(17, 5), width_ratios=(1.1, 1, 1.2))
    seven = metrics["ferplus_test_7"]
    table = np.array(seven["confusion"], float)
    share = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    left.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for row, column in np.ndindex(*share.shape):
        shade = "white" if share[row, column] > 0.5 else "black"
        left.text(column, row, f"{share[row, column]:.2f}", ha="center", va="center", fontsize=8, color=shade)
    left.set_xticks(range(len(EKMAN)), EKMAN, rotation=40, ha="right")
    left.set_yticks(range(len(EKMAN)), EKMAN)
    left.set_title(f"FER+ test, n {seven['n']}: accuracy {seven['accuracy']:.3f}, UAR {seven['uar']:.3f}")
    left.set_xlabel("answer")
    left.set_ylabel("majority of ten people")
    heights = metrics["face_height_px"]
    middle.plot([int(h) for h in heights], [r["muxspace_happy_or_neutral"] for r in heights.values()], "o-")
    middle.set_xscale("log", base=2)
    middle.set_xticks([int(h) for h in heights], list(heights))
    middle.set_ylim(0.5, 1)
    middle.grid(alpha=0.3)
    middle.set_xlabel("forehead to chin, pixels")
    middle.set_title("muxspace, unseen people: happiness against neutral")
    rows = metrics["robustness"]
    place = np.arange(len(rows))
    right.barh(place - 0.2, [r["ferplus_accuracy"] for r in rows.values()], 0.38, label="FER+, 8 outputs")
    right.barh(
        place + 0.2, [r["muxspace_happy_or_neutral"] for r in rows.values()], 0.38, label="muxspace, 2 labels"
    )
    right.set_yticks(place, list(rows), fontsize=8)
    right.invert_yaxis()
    right.set_xlim(0, 1)
    right.grid(axis="x", alpha=0.3)
    right.legend(loc="lower left", fontsize=8)
    right.set_title("changed before landmarks and alignment")
    figure.tight_layout()
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=110)
    pyplot.close(figure)
