"""The face bundle's model card, written from its measured figures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ecmf.labels import EKMAN, FERPLUS
from train.face_examples import Student

_HEAD = """# Face expression network

{what} {parameters:.2f} million parameters, stored in half and used in single precision. {sides} The live system folds
contempt into disgust. It reads what a face *shows*, in one instant; it does not know what a person feels.

## How it was trained
On soft vote labels, with augmentation that imitates webcams (small, blurred, dark, noisy, covered faces), by
`python -m train.fit --recipe face`; the recipe lies beside this card as `recipe.toml`. {origin}{note}
Temperature ({temperature:.3f}) and prior correction were chosen on FER+ valid, where accuracy is {chosen}.
The test pictures served for the figures below and for no choice.

| data | used for | licence |
|---|---|---|
| EfficientNet-lite0 trained on ImageNet | starting point | weights Apache-2.0 |
| FER+ train, {train} pictures | training | labels MIT (Microsoft); pictures FER2013, from the web, research use |
| FER+ valid, {valid} pictures | choosing | the same |
| muxspace/facial_expressions, {mux} photographs | training, weight {mux_weight} | Apache-2.0; from LFW and the web |

FER+ train leaves out "unknown", "not a face" and pictures whose pixels occur in valid or test. Nobody in muxspace is in
two of its splits; its labels are noisy.


The code is Apache-2.0. Whether weights trained on FER2013's pictures may be used commercially is for the user to judge.
"""

_PAIR = """Two networks over the aligned grey face ({size} x {size} pixels), each joined by 52 blendshapes: a small
residual network of plain 3 x 3 convolutions, and EfficientNet-lite0's first six stages. Out come both embeddings side
by side and the mean of the two networks' log-odds of eight expressions."""

_PAIR_ORIGIN = """The residual network started from nothing, the other from ImageNet weights, whose first three stages
stay as they are."""

_ONE = """One small residual network of plain 3 x 3 convolutions over the aligned grey face ({size} x {size} pixels),
joined by 52 blendshapes. Out come an embedding and the log-odds of eight expressions."""

_ONE_ORIGIN = """Two networks were trained first: a residual network of the same kind, from nothing, and
EfficientNet-lite0's first six stages, from ImageNet weights whose first three stages stay as they are. What the two
say together, of a face and its mirror image, taught the one network that is shipped ("{start}" gave its first
weights): for {epochs} epochs, on {views} augmented copies of the training pictures and {calm_views} less augmented ones
that the two had judged, its target was {teacher:.0%} their answer and {votes:.0%} the people's votes."""

_MIRROR = "The graph looks at the face and its mirror image and gives the mean."
_ALONE = "The graph looks at the face once."

_USE = """
## Limits
- FER+'s annotators were ten crowd workers a picture; their view of an expression is the only truth here.
- Disgust, fear and contempt are rare in the data ({rare}); their recalls are uncertain.
- The pictures are posed or newsworthy faces from the web: subtle, mixed and masked expressions are under-represented,
  and no figures by age, sex or skin colour exist for these data.
- A covered mouth or a strong turn of the head lowers the accuracy (table above).

## Responsible use
Tell people that their expression is read and ask for their consent. The EU AI Act (Regulation (EU) 2024/1689)
prohibits emotion recognition at work and in education with narrow exceptions (Article 5(1)(f)) and requires that people
are informed (Article 50(3)).
"""


def write(
    metrics: Mapping[str, Any],
    *,
    size: int,
    student: Student | None,
    mirror: bool,
    parameters: int,
    temperature: float,
    counts: Mapping[str, int],
    mux_weight: float,
    valid: Mapping[str, float],
    note: str = "",
) -> str:
    """The card's Markdown. ``metrics``: what ``train.evaluate_face.evaluate`` returns; ``counts``: pictures by use.

    ``student``: how the shipped network was taught; None: the members themselves are shipped. ``mirror``: whether the
    graph looks at the mirror image too. ``valid``: accuracy on FER+ valid of each member, of all ("together") and of
    the student; ``note``: a sentence on this training.
    """
    eight, seven, mux = metrics["ferplus_test_8"], metrics["ferplus_test_7"], metrics["muxspace_test"]
    part = metrics["ferplus_test_8_by_alignment"]
    rest = part["fixed crop"]
    alignment = (
        f"Where landmarks aligned the crop it is {part['landmarks']['accuracy']:.3f} (n {part['landmarks']['n']}), "
        f"where none were found and the crop is the fixed one {rest['accuracy']:.3f} (n {rest['n']})."
    )
    lines = [
        _HEAD.format(
            what=(_ONE if student else _PAIR).format(size=size),
            sides=_MIRROR if mirror else _ALONE,
            origin=_ONE_ORIGIN.format(**vars(student), votes=1 - student.teacher)
            if student
            else _PAIR_ORIGIN,
            parameters=parameters / 1e6,
            temperature=temperature,
            mux_weight=mux_weight,
            chosen=", ".join(f"{value:.3f} ({name})" for name, value in valid.items()),
            note=f" {note}" if note else "",
            **counts,
        ),
        "## Measured",
        "FER+ test: one clear majority among the eight emotions; pictures whose pixels also occur in train or valid "
        "are left out. Intervals are 95 % (Wilson; bootstrap over pictures for "
        "UAR and balanced accuracy).",
        "",
        "| measure | value | interval | n |",
        "|---|---|---|---|",
        _row("FER+ test, 8 outputs, accuracy", eight["accuracy"], eight["accuracy_95"], eight["n"]),
        _row("FER+ test, 7 labels, accuracy", seven["accuracy"], seven["accuracy_95"], seven["n"]),
        _row("FER+ test, 7 labels, UAR", seven["uar"], seven["uar_95"], seven["n"]),
        _row("expected calibration error, 8 outputs, 15 bins", eight["ece"], None, eight["n"]),
        _row("expected calibration error, 7 labels", seven["ece"], None, seven["n"]),
        _row(
            "muxspace, unseen people, happiness against neutral, balanced accuracy",
            mux["balanced_accuracy"],
            mux["balanced_accuracy_95"],
            mux["n"],
        ),
        "",
        f"With the leaked twins the 8-output accuracy would read "
        f"{metrics['ferplus_test_8_with_leaked_twins']['accuracy']:.3f} "
        f"(n {metrics['ferplus_test_8_with_leaked_twins']['n']}). " + alignment,
        "",
        "Seven labels, rows the majority vote, columns the answer:",
        "",
        "| | " + " | ".join(EKMAN) + " | recall |",
        "|---" * (len(EKMAN) + 2) + "|",
        *(
            f"| {label} | " + " | ".join(str(v) for v in row) + f" | {seven['recall'][label]:.2f} |"
            for label, row in zip(EKMAN, seven["confusion"], strict=True)
        ),
        "",
        "Robustness: a fixed sample of each corpus, changed before landmarks and alignment (FER+: 8-output accuracy; "
        "muxspace: happiness against neutral; FER+ is grey and takes on the colour of coloured light).",
        "",
        "| change | FER+ | landmarks found | muxspace | landmarks found |",
        "|---|---|---|---|---|",
        *(
            f"| {name} | {r['ferplus_accuracy']:.3f} | {r['ferplus_landmarks_found']:.2f} "
            f"| {r['muxspace_happy_or_neutral']:.3f} | {r['muxspace_landmarks_found']:.2f} |"
            for name, r in metrics["robustness"].items()
        ),
        "",
        "Heads turned or tilted away from the camera by so many degrees, as found (no warping; from the landmarks):",
        "",
        "| turn | FER+, 8 outputs | n | muxspace, happiness against neutral | n |",
        "|---|---|---|---|---|",
        *(
            f"| {name} | {r['ferplus_accuracy']:.3f} | {r['ferplus_n']} "
            f"| {r['muxspace_happy_or_neutral']:.3f} | {r['muxspace_n']} |"
            for name, r in metrics["head_turn_degrees"].items()
        ),
        "",
        "| height of the face (muxspace), pixels | " + " | ".join(metrics["face_height_px"]) + " |",
        "|---" * (len(metrics["face_height_px"]) + 1) + "|",
        "| happiness against neutral | "
        + " | ".join(f"{r['muxspace_happy_or_neutral']:.3f}" for r in metrics["face_height_px"].values())
        + " |",
        _USE.format(
            rare=", ".join(f"{eight['count'][k]} {k}" for k in FERPLUS if eight["count"][k] < 100)
            + " in the test set"
        ),
    ]
    return "\n".join(lines)


def _row(name: str, value: float, interval: tuple[float, float] | None, count: int) -> str:
    between = f"{interval[0]:.3f} to {interval[1]:.3f}" if interval else ""
    return f"| {name} | {value:.3f} | {between} | {count} |"
