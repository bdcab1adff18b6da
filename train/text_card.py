"""The text bundle's model card, written from its measured figures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ecmf.labels import EKMAN

_CARD = """# Text emotion network {version}

MiniLM-L6-H384 (22.7 million parameters, all-MiniLM-L6-v2 as published, Apache-2.0), fine-tuned to read one of seven
emotions from an utterance, with the lines before it as context; int8. It gives an embedding (mean hidden state over
the utterance) and logits. It reads what words *say*; it does not know what a person feels.

## How it was trained
`python -m train.fit_text` with the recipe beside this card: GoEmotions first, then MELD with a context drawn anew each
time (none, the speaker's own lines, everybody's), imitated recognition errors and missing punctuation. Word vectors
stay as published. The temperature ({temperature:.3f}) was fitted on MELD dev; the test split was used once, for the
figures below.

| data | used for | licence |
|---|---|---|
| GoEmotions train, 43,410 comments, Ekman grouping | training | Apache-2.0 (Google) |
| MELD train, 9,989 lines of TV dialogue | training | GPL-3 repository (Poria et al. 2019); TV dialogue |
| MELD dev, 1,109 lines | choosing, temperature | the same |

The code is Apache-2.0. Whether weights trained on MELD may be used commercially is for the user to judge.

## MELD test (2,610 lines)
Run as live, one utterance at a time through ONNX Runtime; 95 % intervals redraw dialogues. "own" is what a microphone
in front of one person hears; word errors are imitated (half substitutions, a quarter each deletions and insertions).

| context | weighted F1 | 95 % | accuracy | UAR | ECE |
|---|---|---|---|---|---|
{rows}

Recall with own lines: {recall}.

## Limits
- English only; scripted comedy and Reddit comments, not the speech of any one user.
- Fear and disgust are rare in the data and their recalls low.
- Emotional words that are only told (a novel read aloud) look emotional; irony is mostly missed.
- No figures by age, sex, dialect or culture exist for these data.

## Responsible use
Tell people that their words are read for emotion and ask for their consent. The EU AI Act (Regulation (EU) 2024/1689)
prohibits emotion recognition at work and in education with narrow exceptions (Article 5(1)(f)) and requires that people
are informed (Article 50(3)).
"""


def write(results: Mapping[str, Any], *, temperature: float, version: str) -> str:
    """The card's Markdown. ``results``: what ``train.evaluate_text.evaluate`` returns for the test split."""
    rows = "\n".join(
        f"| {name} | {r['weighted_f1']:.3f} | {r['weighted_f1_95'][0]:.3f} to {r['weighted_f1_95'][1]:.3f} "
        f"| {r['accuracy']:.3f} | {r['uar']:.3f} | {r['ece']:.3f} |"
        for name, r in results.items()
    )
    recall = ", ".join(f"{label} {results['own']['recall'][label]:.2f}" for label in EKMAN)
    return _CARD.format(version=version, temperature=temperature, rows=rows, recall=recall)
