"""The voice bundle's README.md, from its measures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ecmf.labels import EKMAN
from ecmf.prosody import FEATURES
from train.voice_training import Recipe

_TEXT = """# Voice: emotion from how it is said

A small network on layers 2 to 4 of Whisper {encoder}'s encoder (the one that transcribes) and {prosody} prosody
features. Seven labels: {labels}. It reads the last 3.2 s, weighs only what a voice activity detector calls speech, and
says nothing when less than 0.4 s of that is there.

## Data and licence
- RAVDESS speech (Livingstone & Russo 2018), CC BY-NC-SA 4.0: acted North American English, two sentences; calm counts
  as neutral. **Non-commercial**: so are these weights. For commercial use train on your own recordings.
- EMO-DB (Burkhardt et al. 2005), four of its classes, research use: acted German.
{prompts}- Never heard in training: {held_out}.

## Measured on the held-out speakers
RAVDESS, {clips} clips: UAR {uar:.3f} (95 % {low:.3f} to {high:.3f}), accuracy {accuracy:.3f}, expected calibration
error {ece:.3f}; women {women:.3f}, men {men:.3f}. EMO-DB, {german_clips} clips, four classes: UAR {german:.3f}.
With so few speakers the interval over clips understates what another speaker may bring.

Ordinary speech{ordinary}: the two demo readings, judged twice a second ({judged} times), are called neutral in
{neutral:.0%} with a mean confidence of {confidence:.2f}.

| label | recall |
|---|---|
{recalls}

| instead of the whole clip | UAR | of whole |
|---|---|---|
{windows}

| condition | UAR |
|---|---|
{conditions}

Temperature fitted out of fold on the training speakers (clean, cut and distorted clips): calibration error
{fold_ece:.3f}.

## Limits
Actors show emotions more strongly than people at a desk. Two languages, 33 adult speakers, read sentences: other
languages, ages, accents and speaking styles are unmeasured, and a person's ordinary voice may look like an emotion. Do
not decide anything about a person by it. Emotion recognition at work and in education is prohibited in the EU with
narrow exceptions, and people must be told (AI Act, Articles 5 and 50).
"""

_PROMPTS = """- Asterisk's spoken prompts (CC BY-SA 3.0; Russian CC BY 3.0), professional voices in several languages,
  as neutral: actors' neutral alone is unlike how people ordinarily speak.
"""


def card(measured: Mapping[str, Any], recipe: Recipe) -> str:
    """Markdown. ``measured``: calibration and the held-out table of train.evaluate_voice."""
    table = measured["held_out"]
    english = table["ravdess"]
    ordinary = table.get("ordinary_speech")
    return _TEXT.format(
        encoder=recipe.encoder,
        prosody=len(FEATURES),
        labels=", ".join(EKMAN),
        held_out=", ".join(recipe.held_out),
        clips=english["clips"],
        uar=english["uar"],
        low=english["uar_interval"][0],
        high=english["uar_interval"][1],
        accuracy=english["accuracy"],
        ece=english["calibration_error"],
        women=english["uar_by_sex"]["F"],
        men=english["uar_by_sex"]["M"],
        german_clips=table["emodb"]["clips"],
        german=table["emodb"]["uar"],
        recalls="\n".join(f"| {label} | {value:.3f} |" for label, value in english["recall"].items()),
        windows="\n".join(
            f"| {seconds} s | {row['uar']:.3f} | {row['of_whole']:.3f} |"
            for seconds, row in table["windows"].items()
        ),
        conditions="\n".join(f"| {name} | {value:.3f} |" for name, value in table["conditions"].items()),
        prompts=_PROMPTS if ordinary else "",
        ordinary=f" (prompts of a voice never heard: {ordinary['neutral']:.0%} neutral)" if ordinary else "",
        judged=table["demo_reading"]["judged"],
        neutral=table["demo_reading"]["neutral"],
        confidence=table["demo_reading"]["confidence"],
        fold_ece=measured["calibration"]["calibration_error"],
    )
