"""One network taught by all members: augmented copies of the training pictures, and what the members say of them.

Hinton et al. 2015; teacher and student see the same augmented picture (Beyer et al. 2022).
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ecmf.errors import need
from train.atomic import whole
from train.face_augment import Augmentation, augment, calmer, move
from train.face_examples import Examples, Recipe, Student, digest, join, label_weights
from train.face_members import Members
from train.face_training import Batches, Member, ahead, train
from train.progress import shown

Answer = Callable[[NDArray[np.float32], NDArray[np.float32]], NDArray[np.float32]]
"""(grey levels float32[b, 1, s, s], blendshapes float32[b, 52]) -> logits float32[b, 8]."""


@dataclass(frozen=True)
class View:
    """The training pictures, augmented once, with the members' answers."""

    face: NDArray[np.uint8]
    """uint8[n, s, s]"""
    blendshapes: NDArray[np.float32]
    """float32[n, 52]; all zero: withheld."""
    logits: NDArray[np.float32]
    """float32[n, 8]: the members' log-odds, as the label weights of their training moved them."""


def teacher(members: Members, size: int, threads: int = 1) -> Answer:
    """The members in OpenVINO, in bfloat16 where the processor has it: labels need no more."""
    openvino = need("openvino", "live")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", torch.jit.TracerWarning)  # the crop's size is fixed
        model = openvino.convert_model(
            members.eval(), example_input=(torch.zeros(2, 1, size, size), torch.zeros(2, 52))
        )
    model.reshape({model.inputs[0]: [-1, 1, size, size], model.inputs[1]: [-1, 52]})
    options = {"INFERENCE_PRECISION_HINT": "bf16", "INFERENCE_NUM_THREADS": threads}
    request = openvino.compile_model(model, "CPU", options).create_infer_request()

    def answer(face: NDArray[np.float32], blendshapes: NDArray[np.float32]) -> NDArray[np.float32]:
        out: NDArray[np.float32] = request.infer([face, blendshapes])[1]
        return out.copy()

    return answer


def view(examples: Examples, answer: Answer, recipe: Recipe, student: Student, index: int) -> View:
    """Augmented copy ``index``; the same for the same seed. From ``student.views`` on the calmer ones."""
    rng = np.random.default_rng([recipe.seed, 1, index])
    torch_rng = torch.Generator().manual_seed(recipe.seed * 100_003 + 50_000 + index)
    calm = index >= student.views
    how = calmer(recipe.augmentation, student.calm) if calm else recipe.augmentation
    crops, size = examples.crops, recipe.size
    out = View(
        np.empty((len(crops), size, size), np.uint8),
        np.empty((len(crops), 52), np.float32),
        np.empty((len(crops), examples.target.shape[1]), np.float32),
    )

    def made() -> Iterator[tuple[slice, torch.Tensor, torch.Tensor]]:
        for start in range(0, len(crops), recipe.batch):
            rows = slice(start, min(start + recipe.batch, len(crops)))
            face, shapes = augment(crops.face[rows], crops.blendshapes[rows], size, how, rng, torch_rng)
            yield rows, face.clamp(0, 255).round(), shapes

    count = student.views + student.calm_views
    with shown(f"members' answers {index + 1}/{count}", len(crops)) as advance:
        for rows, face, shapes in ahead(made()):
            out.face[rows] = face[:, 0].to(torch.uint8).numpy()
            out.blendshapes[rows] = shapes.numpy()
            out.logits[rows] = answer(face.numpy(), shapes.numpy())
            advance(rows.stop, "")
    return out


def targets(
    logits: NDArray[np.float32], votes: NDArray[np.float32], balance: NDArray[np.float32], share: float
) -> NDArray[np.float32]:
    """float32[n, 8]: ``share`` of the members' probabilities, freed of the label weights, and the rest of the votes."""
    odds = logits - np.log(balance)
    odds = np.exp(odds - odds.max(axis=1, keepdims=True))
    answers = odds / odds.sum(axis=1, keepdims=True)
    return (share * answers + (1 - share) * votes).astype(np.float32)


def index_at(student: Student, epoch: int) -> int:
    """Number of the copy that an epoch uses."""
    if epoch < student.calm_from or not student.calm_views:
        return epoch % student.views
    return student.views + (epoch - student.calm_from) % student.calm_views


def teach(
    recipe: Recipe,
    members: Members,
    examples: Mapping[str, Examples],
    start: Member,
    folder: Path,
    log: Callable[[str], None],
    *,
    threads: int = 1,
    stop_after: int | None = None,
) -> Member:
    """Train the recipe's student or go on with it in ``folder``; returns the averaged weights.

    ``start``: the member whose weights are its first ones. ``folder`` keeps, for these very teachers, the checkpoint
    and the augmented copies with their answers.
    """
    student = recipe.student
    assert student is not None
    parts = join([examples["train"], examples["mux_train"]])
    balance = label_weights(parts, recipe.label_balance)
    folder = folder / _mark(recipe, student, members, parts)
    answer: list[Answer] = []
    strength = recipe.augmentation
    nudge = Augmentation(
        rotation_deg=student.nudge * strength.rotation_deg,
        scale=student.nudge * strength.scale,
        shift=student.nudge * strength.shift,
    )

    def stored(index: int) -> View:
        path = folder / f"view-{index}.npz"
        if not path.is_file():
            if not answer:
                answer.append(teacher(members, recipe.size, threads))
            seen = view(parts, answer[0], recipe, student, index)
            with whole(path) as file:
                np.savez(file, face=seen.face, blendshapes=seen.blendshapes, logits=seen.logits)
        with np.load(path) as content:
            return View(content["face"], content["blendshapes"], content["logits"])

    def source(epoch: int) -> Batches:
        seen = stored(index_at(student, epoch))
        target = targets(seen.logits, parts.target, balance, student.teacher)
        return _batches(seen, target, parts.weight, recipe, student, nudge, epoch)

    return train(
        recipe,
        student,
        examples,
        folder,
        log,
        threads=threads,
        stop_after=stop_after,
        start=start,
        source=source,
    )


def _batches(
    seen: View,
    target: NDArray[np.float32],
    weight: NDArray[np.float32],
    recipe: Recipe,
    student: Student,
    nudge: Augmentation,
    epoch: int,
) -> Batches:
    rng = np.random.default_rng([recipe.seed, 2, epoch])
    order = rng.permutation(len(target))
    for first in range(0, len(order) - recipe.batch + 1, recipe.batch):
        rows = order[first : first + recipe.batch]
        face, shapes = move(seen.face[rows], seen.blendshapes[rows], student.inner_at(epoch), nudge, rng)
        yield face, torch.from_numpy(shapes), torch.from_numpy(target[rows]), torch.from_numpy(weight[rows])


def _mark(recipe: Recipe, student: Student, members: Members, examples: Examples) -> str:
    """The teachers and what their answers depend on, in 12 letters."""
    settings: Any = (recipe.seed, recipe.size, recipe.batch, recipe.augmentation, student.calm, student.views)
    mark = hashlib.sha256(repr((settings, digest(examples))).encode())
    for name, value in members.state_dict().items():
        mark.update(name.encode() + np.ascontiguousarray(value.numpy()).tobytes())
    return mark.hexdigest()[:12]
