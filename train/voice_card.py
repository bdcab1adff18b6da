"""The voice bundle's README.md, from its measures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ecmf.labels import EKMAN
from ecmf.prosody import FEATURES
from train.voice_recipe import Recipe

_TEXT = """# Voice: emotion from how it is said

{members} small networks that vote, on layers {layers} of Whisper {encoder}'s encoder (the one that transcribes) and
{prosody} prosody features. Seven labels: {labels}. It reads the last 3.2 s, weighs only what a voice activity detector
calls speech, and says nothing when less than 0.4 s of that is there. While a session runs it learns how the speaker
sounds at rest and takes that off (by its own opinion of what is neutral, never by a label); a first sentence is judged
without.

## Data and licence
- RAVDESS speech (Livingstone & Russo 2018), CC BY-NC-SA 4.0: acted North American English, two sentences; calm counts
  as neutral.
- EMO-DB (Burkhardt et al. 2005), four of its classes, research use: acted German.
{prompts}- Never heard in training: {held_out}.

**What follows for you:** the weights are under CC BY-NC-SA 4.0 as RAVDESS is. Use them to research, to teach, to try
things out; name the source; pass changed weights on under the same licence. Do not use them in a product or a service
that is sold or earns money. For that, train on recordings that you have the rights to: `python -m train.fit --recipe
voice` reads the corpora in their owners' layout, `python -m train.fit --data` clips of your own. The code is not
affected.

## Measured on the held-out speakers
{clips} clips of RAVDESS, four speakers, each clip judged alone:

| | UAR (95 %) | accuracy | calibration error | women | men |
|---|---|---|---|---|---|
{totals}

In a session a speaker's clips follow each other in random order, and each is judged with what was learnt from those
before it. With so few speakers the interval over clips understates what another speaker may bring.{german}

Ordinary speech{ordinary}: the two demo readings, judged twice a second ({judged} times), are called neutral in
{neutral:.0%} with a mean confidence of {confidence:.2f}; as sessions in {neutral_session:.0%}.

| label | recall | in sessions |
|---|---|---|
{recalls}

| instead of the whole clip | UAR | of whole |
|---|---|---|
{windows}

| condition | UAR | change |
|---|---|---|
{conditions}

Temperature fitted on six of RAVDESS's nineteen training speakers by a network that had not heard them (clean, cut and
distorted clips, alone and in sessions): calibration error {fold_ece:.3f}. The six folds' calibration errors below use
this temperature, fitted on speakers who are among those folds', so they may be a little low. The layers, the use of
sessions and the dropout were chosen on folds of the training speakers.

## The recipe on speakers it never heard
Trained anew, on RAVDESS alone. Six folds of its 23 actors, none in two of them, {fold_clips} clips; and EMO-DB's four
classes, {cross_clips} clips of ten speakers in a language that it never heard:

| | UAR (95 %) | accuracy | calibration error | women | men |
|---|---|---|---|---|---|
{protocols}

| instead of the whole clip, six folds | UAR | of whole |
|---|---|---|
{fold_windows}

These speakers are many, so these figures say more about a new one than the four held out above. The recipe's choices
were made on folds of nineteen of the actors.

## What helped, and what did not
UAR alone (and mean negative log-likelihood) of two networks on three folds of the nineteen training actors; two such
figures differ by about 0.01 by chance. 128 wide 0.747 (0.685), 256 wide 0.762 (0.660), 512 wide 0.757 (0.652), 384 wide
with larger embeddings and more short cuts 0.757 (0.634); eight of the narrow ones 0.755 (0.667). Nine distorted copies
instead of three bring nothing there (0.751, where three had 0.745), but to voices of another corpus: four networks 256
wide went from 0.687 to 0.721 on EMO-DB, narrow ones had 0.712 and 0.723. The width and the copies were chosen with
these figures of EMO-DB in sight, so its result above is a little too good.

Without gain: answers of networks that heard whole clips as targets for cut ones 0.732; all 384 directions instead of
192 0.758 (0.667). Training on through the encoder itself: its third block on pooled states 0.750 (0.685) where the same
reader without it had 0.731 to 0.755; on the hardest fold its second and third at 25 states a second 0.746 (0.704), at
50 with twice the rate 0.722 (0.804), without them 0.739 (0.732). Whisper base's layers 2 and 3 instead of tiny.en's,
256 and 512 wide: 0.752 (0.681, 0.675), so a larger encoder of its kind is not what is missing. With one narrow network
at dropout 0.3, which had 0.743: one distorted copy 0.732; noise on the states 0.742; pairs of clips mixed 0.737; a
convolution over time 0.744; two clips of one speaker and label joined 0.727; the speaker unlearnt by reversed gradients
0.741; each clip's own mean taken off 0.693; dropout 0.45 0.722. A convolutional network of 140,000 weights on log-mel
spectrograms, from scratch, had 0.520 on the first fold, where this one had 0.756, and their mean 0.738 to 0.758.

What is missed is quiet: half of the sad clips are called so, most others neutral or fearful, and calm counts as neutral
here. Nineteen voices saying two sentences are what limits this most.

## Limits
Actors show emotions more strongly than people at a desk. Two languages, 33 adult speakers, read sentences: other
languages, ages, accents and speaking styles are unmeasured, and a person's ordinary voice may look like an emotion.
Someone who is angry from the first word on is at first compared with everybody, and is in part taken for someone whose
voice is like that; so are two people who share one microphone. Do not decide anything about a person by it. Emotion
recognition at work and in education is prohibited in the EU with narrow exceptions, and people must be told (AI Act,
Articles 5 and 50).
"""

_PROMPTS = """- Asterisk's spoken prompts (CC BY-SA 3.0; Russian CC BY 3.0), professional voices in several languages,
  as neutral: actors' neutral alone is unlike how people ordinarily speak.
"""

_GERMAN = " EMO-DB,\n{clips} clips of two speakers, four classes: UAR {uar:.3f}."


def card(measured: Mapping[str, Any], recipe: Recipe) -> str:
    """Markdown. ``measured``: calibration, and train.evaluate_voice's tables of the held-out speakers and the refit."""
    table, refit = measured["held_out"], measured["refit"]
    alone, sessions = table["ravdess"], table["ravdess_in_sessions"]
    ordinary = table.get("ordinary_speech")
    return _TEXT.format(
        members=recipe.members,
        layers=" and ".join(str(layer) for layer in recipe.layers),
        encoder=recipe.encoder,
        prosody=len(FEATURES),
        labels=", ".join(EKMAN),
        held_out=", ".join(recipe.held_out),
        clips=alone["clips"],
        totals="\n".join(_total(name, row) for name, row in (("alone", alone), ("in sessions", sessions))),
        german=_GERMAN.format(**table["emodb"]) if "emodb" in table else "",
        recalls="\n".join(
            f"| {label} | {value:.3f} | {sessions['recall'][label]:.3f} |"
            for label, value in alone["recall"].items()
        ),
        windows=_windows(table["windows"]),
        conditions="\n".join(
            f"| {name} | {value:.3f} | {value - alone['uar']:+.3f} |"
            for name, value in table["conditions"].items()
        ),
        fold_windows=_windows(refit["ravdess_six_folds_windows"]),
        fold_clips=refit["ravdess_six_folds"]["clips"],
        cross_clips=refit["ravdess_to_emodb"]["clips"],
        protocols="\n".join(
            _total(title, refit[name])
            for name, title in (
                ("ravdess_six_folds", "RAVDESS, alone"),
                ("ravdess_six_folds_in_sessions", "RAVDESS, in sessions"),
                ("ravdess_to_emodb", "EMO-DB, alone"),
                ("ravdess_to_emodb_in_sessions", "EMO-DB, in sessions"),
            )
        ),
        prompts=_PROMPTS if ordinary else "",
        ordinary=f" (prompts of a voice never heard: {ordinary['neutral']:.0%} neutral)" if ordinary else "",
        judged=table["demo_reading"]["judged"],
        neutral=table["demo_reading"]["neutral"],
        neutral_session=table["demo_reading_in_sessions"]["neutral"],
        confidence=table["demo_reading"]["confidence"],
        fold_ece=measured["calibration"]["calibration_error"],
    )


def _windows(table: Mapping[str, Mapping[str, float]]) -> str:
    return "\n".join(
        f"| {seconds} s | {row['uar']:.3f} | {row['of_whole']:.3f} |" for seconds, row in table.items()
    )


def _total(name: str, row: Mapping[str, Any]) -> str:
    low, high = row["uar_interval"]
    women, men = (f"{row['uar_by_sex'][sex]:.3f}" if "uar_by_sex" in row else "" for sex in "FM")
    return (
        f"| {name} | {row['uar']:.3f} ({low:.3f} to {high:.3f}) | {row['accuracy']:.3f} "
        f"| {row['calibration_error']:.3f} | {women} | {men} |"
    )
