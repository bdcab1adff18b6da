"""Fit the face network: pictures -> crops -> its members, one after the other -> their student, where the recipe has
one -> calibration -> the bundle.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from ecmf.bundle import Bundle
from ecmf.weights import fetch
from train import face_crops
from train.face_examples import STUDENT, Examples, Recipe, join, label_weights, load, recipe_from
from train.face_members import Members, weighted
from train.face_student import teach
from train.face_training import Member, accuracy, log_to, pooling, predict, train
from train.options import read_toml

VERSION = "1.2.0"
GOLDEN = ("demo-smile", 45)
"""Weight and frame number of the golden face."""


def main(recipe: Path, out: Path, *, data: Path, cache: Path, work: Path, threads: int = 1) -> Bundle:
    """Fit, calibrate, measure and export the face bundle into ``out``.

    ``work`` keeps checkpoints and logs, a folder for each member and for the student: the same call after a
    kill goes on with the last whole epoch. Raises UsageError for a wrong recipe, DataError for wrong data.
    """
    values = recipe_from(read_toml(recipe))
    torch.set_num_threads(threads)
    examples = load(values, data, cache, face_crops.Cropper, _counter())
    nets: dict[str, Member] = {}
    for name, plan in values.members.items():
        nets[name] = train(
            values, plan, examples, work / name, log_to(work / name / "log.txt"), threads=threads
        )
    student = None
    if values.student is not None:
        folder = work / STUDENT
        student = teach(
            values,
            _together(nets, values),
            examples,
            nets[values.student.start],
            folder,
            log_to(folder / "log.txt"),
            threads=threads,
        )
    return finish(
        nets,
        values,
        recipe.read_text("utf-8"),
        examples,
        out,
        data=data,
        cache=cache,
        work=work,
        student=student,
    )


def _together(nets: Mapping[str, Member], recipe: Recipe) -> Members:
    return Members(list(nets.values()), [recipe.members[name].share for name in nets]).eval()


def finish(
    nets: Mapping[str, Member],
    recipe: Recipe,
    recipe_text: str,
    examples: Mapping[str, Examples],
    out: Path,
    *,
    data: Path,
    cache: Path,
    work: Path,
    student: Member | None = None,
    version: str = VERSION,
    note: str = "",
) -> Bundle:
    """Calibrate on FER+ valid, export into ``work``, measure that bundle, then write ``out`` with card and figures.

    ``student``: what the members of ``nets`` taught, shipped in their place. ``note``: a sentence for the
    card, where this training was not the recipe's alone.
    """
    from train import calibrate_face, export_face, face_card
    from train.evaluate_face import evaluate

    valid, cropper = examples["valid"], face_crops.Cropper()
    balance = label_weights(join([examples["train"], examples["mux_train"]]), recipe.label_balance)
    answers = {name: predict(net, valid.crops, pooling(net), mirror=True) for name, net in nets.items()}
    together = weighted(list(answers.values()), [recipe.members[name].share for name in nets])
    calibration = calibrate_face.fit(together, valid.majority, balance)
    right = {name: accuracy(answer, valid.majority) for name, answer in answers.items()}
    right["together"] = accuracy(together + calibration.bias, valid.majority)
    members = _together(nets, recipe)
    if student is not None:
        mirror = recipe.student is not None and recipe.student.mirror
        answer = predict(student, valid.crops, pooling(student), mirror=mirror)
        calibration = calibrate_face.fit(answer, valid.majority, balance)
        right["the student"] = accuracy(answer + calibration.bias, valid.majority)
        members = Members([student], [1.0], mirror=mirror).eval()
    weight, frame = GOLDEN
    golden = export_face.golden_face(fetch(weight), weight, frame, recipe.size, cropper)

    def write(folder: Path, metrics: Mapping[str, Any], card: str) -> Bundle:
        return export_face.export(
            members,
            folder,
            size=recipe.size,
            calibration=calibration,
            golden=golden,
            version=version,
            metrics=metrics,
            recipe=recipe_text,
            card=card,
        )

    unmeasured = write(work / "bundle", {}, "Not measured yet.\n")
    metrics = evaluate(unmeasured.folder, data, cache=cache, cropper=cropper)
    metrics.pop("bundle")
    card = face_card.write(
        metrics,
        size=recipe.size,
        student=None if student is None else recipe.student,
        mirror=members.mirror,
        parameters=sum(p.numel() for p in members.parameters()),
        temperature=calibration.temperature,
        counts={"train": len(examples["train"]), "valid": len(valid), "mux": len(examples["mux_train"])},
        mux_weight=recipe.muxspace_weight,
        valid=right,
        note=note,
    )
    return write(out, metrics, card)


def _counter() -> Callable[[int, int], None]:
    """Says every thousand pictures how far the extraction of crops is."""
    start = time.monotonic()

    def tell(done: int, total: int) -> None:
        if done % 1000 == 0 or done == total:
            left = (time.monotonic() - start) * (total - done) / done
            print(f"faces cut out: {done} of {total}, {left:.0f} s left", file=sys.stderr, flush=True)

    return tell
