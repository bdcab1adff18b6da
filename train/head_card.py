"""The fusion head's model card: what it is, what it learned from, what it reaches, and what it must not be used for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from train.evaluate_head import DRAWS

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from train.fit_default import Recipe


def card(
    recipe: Recipe,
    metrics: Mapping[str, Any],
    branches: Mapping[str, str],
    counts: Mapping[Any, int],
    priors: Mapping[str, NDArray[np.float64]],
    voices: tuple[Iterable[str], Iterable[str]],
) -> str:
    """Markdown; every figure comes from ``metrics``. ``voices``: speakers to fit on, and to measure on."""
    subsets = "\n".join(
        f"| {name} | {_row(row['ecmf'])} | {_interval(row['ecmf'])} | {_row(row['product'])} | "
        f"{row['best_member']['weighted_f1']:.3f} ({row['best_member']['modality']}) |"
        for name, row in metrics["subsets"].items()
    )
    conflict = "\n".join(
        f"| {share} | " + " | ".join(_row(row[name]) for name in CONFLICT_COLUMNS) + " |"
        for share, row in metrics["conflict"].items()
    )
    paired = "\n".join(
        f"| {name} | {_row(row)} | {_interval(row)} |"
        for name, row in metrics.items()
        if name.startswith("muxspace")
    )
    stated = "\n".join(
        f"| {name} | " + " | ".join(f"{p:.3f}" for p in probs) + " |" for name, probs in priors.items()
    )
    pairing = recipe.fit.pairing
    lone = " and ".join(f"the {name}'s" for name in recipe.fit.head.read_alone)
    reading = "; the head also reads embeddings" if recipe.fit.head.read else ""
    reading += f", {lone} even\nalone" if reading and lone else ""
    fitted, heard = (sorted(names) for names in voices)
    return f"""# Fusion head {recipe.version}

ECMF's fusion (arXiv 2508.05991): four cue tokens, self-attention with a residual from the projected originals, readable
weights. The attention decides how far each cue is believed to speak of the emotion at all; under that belief the
branches' calibrated opinions are multiplied: `p(y) ~ prior(y) * prod_m [s_m * l_m(y) + (1 - s_m) * o_m]`, where
`l_m(y)` is what cue m says of label y relative to not knowing, `s_m` how likely it is that the cue speaks, and `o_m`
how well the cue fits to somebody whose voice or words are merely off, mostly neutral. Cues that agree multiply fully;
one that clearly contradicts a more trusted one falls silent. A cue is doubted only as far as the others tell something,
and labels are also read from the tokens themselves only where there are several, or where the one is the
{" or the ".join(recipe.fit.head.read_alone) or "none"}: any other that is alone leaves exactly what its branch says.
As all cues fade (age, poor quality), the estimate keeps its label and loses some confidence. A cue's weight is its
share in what moved the estimate away from the prior: a cue that says nothing, is contradicted, old or poorly seen
weighs little.

Reads the branches {", ".join(branches.values())} and EfficientNet-lite0's scene embedding; it does not fit others.

## Trained on

Cues of people that no branch was trained on: {", ".join(f"{m} {n}" for m, n in counts.items())}.
Corpora and licences stand in `manifest.json`. **The pairs are synthetic**: a face, a voice and a line of text that
share a label but come from different people and corpora. The cues are then independent given the label, so the product
of calibrated experts is the best that can be made of the branches' opinions{reading}.
No figure below shows a cross-modal gain. In
{pairing.conflict:.0%} of the samples voice or text speak for another label than the most trusted cue present (face,
then voice, then text), {pairing.conflict_neutral:.0%} of them for neutral; the target is the most trusted cue's label.
In {pairing.noise:.0%} one cue of several is noise. The scene is drawn without regard to the label. One temperature for
each subset of face, voice and text, by cross-fitting over people.

## Prior

`--prior` takes a name, or a table of numbers. What the head was trained with (webcam: people in front of one are mostly
neutral, an assumption, not a measurement) is replaced by what is asked for.

| | neutral | happiness | sadness | anger | fear | disgust | surprise |
|---|---|---|---|---|---|---|---|
{stated}

No label (`low_confidence`) where the recent confidence exceeds the likeliest label's prior by no more than
{recipe.abstain_margin:.2f}: less can hardly be told from knowing nothing, given the calibration below.

## Measured

Other people than those it was fitted on (FER+ test, held-out speakers, MELD test); weighted F1 / UAR / accuracy /
expected calibration error, {DRAWS:,} synthetic pairs a row, drawn with the webcam prior. 95 %: of the weighted F1, over
redrawn people (the voices are few). Best member: weighted F1 of the head given only one of the cues, and which. Most
settings were chosen on folds of the fitting people; three (the share of conflict, reading a lone voice, no temperature
below 1) when figures of the people below had been seen, so expect a little less. `python -m train.evaluate --recipe
default --json` gives these figures again, with precision, recall and F1 of every label and the confusion matrices.

| present | ECMF | 95 % | product of experts | best member |
|---|---|---|---|---|
{subsets}

All four present, with a share of conflicting pairs. *Attainable* is the most that the branches' opinions allow to one
who knows that share; no head can be best at every share. Then the head given one cue of the same samples alone:

| conflicting | ECMF | product of experts | attainable | face | voice | text |
|---|---|---|---|---|---|---|
{conflict}

Really paired: muxspace, unseen people, each face with the frame it is in (noisy labels, unbalanced):

| | | 95 % |
|---|---|---|
{paired}

## Unknown

- How people before a real webcam, who do not act, are read: no such recordings were at hand. The figures above are of
  acted voices, web photographs and TV dialogue.
- Whether voice or words add anything to a face of the same person: only synthetic pairs were at hand.
- How errors differ by age, sex, skin colour, language and culture. The voices to fit on are {", ".join(fitted)}
  ({counts.get("voice", 0)} cues), those to measure on {", ".join(heard)}:
  women and men on both sides, but few. Text is English.
- Real rates of contradiction between face, voice and words, and the real prior of the labels.

**Valence and arousal are left out.** The sources at hand are MELD's sentiment (negative, neutral, positive: of lines of
TV dialogue, decided by the label in all but surprise) and RAVDESS's intensity (normal or strong: an instruction to the
actor): neither is a rating of what is seen or heard, neither exists for faces, and an output that restates the label
would only look like a measurement.

## Must not be used for

Decisions about people: hiring, policing, credit, insurance, diagnosis, lie detection, grading, monitoring at work or in
education (the latter two prohibited in the EU, AI Act, Article 5(1)(f)). Not commercially: the voice corpora's licences
forbid it. It estimates *expressed* emotion; what a person feels is another matter.
"""


CONFLICT_COLUMNS = ("ecmf", "product", "attainable", "face", "voice", "text")


def _interval(scores: Mapping[str, Any]) -> str:
    return "{:.3f} to {:.3f}".format(*scores["weighted_f1_95"])


def _row(scores: Mapping[str, float]) -> str:
    return " / ".join(f"{scores[key]:.3f}" for key in ("weighted_f1", "uar", "accuracy", "ece"))
