"""The fusion head's model card: what it is, what it learned from, what it reaches, and what it must not be used for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from train.fit_default import Recipe


def card(
    recipe: Recipe, metrics: Mapping[str, Any], branches: Mapping[str, str], counts: Mapping[Any, int]
) -> str:
    """Markdown; every figure comes from ``metrics``."""
    rows = "\n".join(
        f"| {name} | {_row(row['ecmf'])} | {_row(row['product'])} |"
        for name, row in metrics["subsets"].items()
    )
    conflict = "\n".join(f"| {name} | {_row(row)} |" for name, row in metrics["conflict"].items())
    paired = "\n".join(f"| {name} | {_row(row)} |" for name, row in metrics["paired_muxspace"].items())
    pairing = recipe.fit.pairing
    return f"""# Fusion head {recipe.version}

ECMF's fusion (arXiv 2508.05991): four cue tokens, self-attention with a residual from the projected originals,
readable weights that gate the tokens and the branches' own calibrated opinions.

Reads the branches {", ".join(branches.values())} and EfficientNet-lite0's scene embedding; it does not fit others.

## Trained on

Cues of people that no branch was trained on: {", ".join(f"{m} {n}" for m, n in counts.items())}.
Corpora and licences stand in `manifest.json`. **The pairs are synthetic**: a face, a voice and a line of text that
share a label but come from different people and corpora. The cues are then independent given the label, so the product
of calibrated experts is the best any head can do, and no figure below shows a cross-modal gain. In
{pairing.conflict:.0%} of the samples voice or text speak for another label than the most trusted cue present (face,
then voice, then text), {pairing.conflict_neutral:.0%} of them for neutral; the target is the most trusted cue's label.
In {pairing.noise:.0%} one cue of several is noise. The scene is drawn without regard to the label.

Assumed prior of the labels: {", ".join(f"{p:g}" for p in recipe.prior)} (neutral, happiness, sadness, anger, fear,
disgust, surprise): people in front of a webcam are mostly neutral.

## Measured

Other people than those it was fitted on (FER+ test, held-out speakers, MELD test); weighted F1 / UAR / accuracy /
expected calibration error, 4,000 synthetic pairs a row, drawn with the prior above.

| present | ECMF | product of experts |
|---|---|---|
{rows}

With the stated share of conflicts, all four present; each member alone on the same samples:

| | |
|---|---|
{conflict}

Really paired: muxspace, unseen people, each face with the frame it is in (noisy labels, unbalanced):

| | |
|---|---|
{paired}

## Limits

It estimates expressed emotion on acted voices, web photographs and TV dialogue; on a real person in front of a real
webcam its accuracy is unknown. It must not be used for decisions about people, and the voice corpora's licences allow
no commercial use.
"""


def _row(scores: Mapping[str, float]) -> str:
    return " / ".join(f"{scores[key]:.3f}" for key in ("weighted_f1", "uar", "accuracy", "ece"))
