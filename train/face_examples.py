"""What the face network is trained on: the recipe's settings, and crops with what people said of them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecmf.errors import UsageError
from ecmf.labels import FERPLUS
from train import corpora, face_crops
from train.datasets import ferplus, muxspace
from train.face_augment import Augmentation

KINDS = ("tuned", "residual")
SHAPE = ("kind", "channels", "blocks")
"""Keys of a member that its weights' shapes follow from."""
STUDENT = "student"
"""Its table in the recipe and its folder beside the members'; no member may have this name."""


@dataclass(frozen=True)
class Plan:
    """How one member of the network is built and trained; a table of the recipe."""

    kind: str
    """``tuned``: face_net.FaceNet, from ImageNet. ``residual``: face_residual.ResidualNet, from scratch."""
    inner: int = 80
    small_inner: int = 0
    """Side in the first ``small_until`` epochs, which then take less time; 0: ``inner``."""
    small_until: int = 0
    channels: tuple[int, ...] = ()
    blocks: tuple[int, ...] = ()
    dropout: float = 0.3
    epochs: int = 13
    cosine_epochs: int = 16
    settle_from: int = 10
    learning_rate: float = 1e-3
    warmup_epochs: float = 0.3
    weight_decay: float = 0.02
    ema: float = 0.998
    calm_from: int = 8
    calm: float = 0.5
    share: float = 0.5
    """Weight of its log-odds in the mean over the members."""

    def inner_at(self, epoch: int) -> int:
        return self.small_inner if self.small_inner and epoch < self.small_until else self.inner


@dataclass(frozen=True)
class Student(Plan):
    """How one network learns what the members say together; what is not given is as for the member ``start``."""

    start: str = ""
    """The member whose weights it starts from; a residual one."""
    views: int = 4
    """Augmented copies of the training pictures that the members judge, used in turn."""
    calm_views: int = 2
    """The same from epoch ``calm_from`` on, with weaker augmentation."""
    nudge: float = 0.4
    """Every epoch turns, scales and shifts the copies anew, by this share of the augmentation's strengths."""
    teacher: float = 0.7
    """Share of the members' answer in the target; the rest are the votes."""
    mirror: bool = False
    """Whether the exported graph looks at the mirror image too, which doubles its time."""


@dataclass(frozen=True)
class Recipe:
    """What ``train/recipes/face.toml`` may say; see its comments."""

    members: Mapping[str, Plan]
    student: Student | None = None
    """None: the members themselves are shipped."""
    seed: int = 1
    size: int = 56
    batch: int = 64
    label_balance: float = 0.35
    vote_floor: int = 1
    picture_loss: float = 0.6
    muxspace_weight: float = 0.5
    muxspace_smoothing: float = 0.15
    augmentation: Augmentation = field(default_factory=Augmentation)


def recipe_from(values: Mapping[str, Any]) -> Recipe:
    """Raises UsageError for a key that no recipe has, and for a recipe without members."""
    values = dict(values)
    strengths = values.pop("augmentation", {})
    members = values.pop("members", {})
    student = values.pop(STUDENT, {})
    if not members:
        raise UsageError("face recipe: no members; it needs at least one table [members.NAME] with a kind")
    kinds = [(values, Recipe), (strengths, Augmentation), *((plan, Plan) for plan in members.values())]
    kinds.append((student, Student))
    for given, kind in kinds:
        unknown = given.keys() - {f.name for f in fields(kind)}
        if unknown:
            raise UsageError(
                f"face recipe: unknown keys {sorted(unknown)}; known: {sorted(f.name for f in fields(kind))}"
            )
    if STUDENT in members:
        raise UsageError(f"face recipe: members.{STUDENT}: this name is the student's; choose another")
    plans = {name: _plan(name, plan) for name, plan in members.items()}
    return Recipe(
        **values,
        members=plans,
        student=_student(student, plans) if student else None,
        augmentation=Augmentation(**strengths),
    )


def _plan(name: str, values: Mapping[str, Any]) -> Plan:
    if values.get("kind") not in KINDS:
        raise UsageError(
            f"face recipe: members.{name}.kind is {values.get('kind')!r}; use {' or '.join(KINDS)}"
        )
    lists = {key: tuple(values[key]) for key in ("channels", "blocks") if key in values}
    return Plan(**{**values, **lists})


def _student(values: Mapping[str, Any], members: Mapping[str, Plan]) -> Student:
    if shape := sorted(values.keys() & set(SHAPE)):
        raise UsageError(
            f"face recipe: student.{shape[0]} = {values[shape[0]]!r}: the student is built as the member it starts "
            "from; leave it out"
        )
    start = members.get(values.get("start", ""))
    if start is None or start.kind != "residual":
        raise UsageError(
            f"face recipe: student.start is {values.get('start')!r}; name a member whose kind is residual"
        )
    return Student(**{**{f.name: getattr(start, f.name) for f in fields(Plan)}, **values})


@dataclass(frozen=True)
class Examples:
    """Crops with what people said of them."""

    crops: face_crops.Crops
    target: NDArray[np.float32]
    """float32[n, 8], rows sum to 1: shares of the votes, order FERPLUS."""
    weight: NDArray[np.float32]
    """float32[n]: how much one example counts."""
    majority: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.target)


def soft_votes(votes: NDArray[np.float32], floor: int) -> NDArray[np.float32]:
    """float32[n, 8] shares of the emotion votes; ``floor`` or fewer votes for an emotion count as slips unless
    nothing else is left (Barsoum et al. 2016, section 3).
    """
    emotions = votes[:, : len(FERPLUS)]
    kept = np.where(emotions > floor, emotions, 0)
    kept = np.where(kept.any(axis=1, keepdims=True), kept, emotions)
    return (kept / np.maximum(kept.sum(axis=1, keepdims=True), 1)).astype(np.float32)


def load(
    recipe: Recipe,
    data: Path,
    cache: Path,
    cropper: Callable[[], face_crops.Cropper],
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Examples]:
    """Examples by name: train, valid, test of FER+; mux_train, mux_valid, mux_test.

    ``data`` holds face/ferplus.parquet and face/muxspace.parquet, or folders of these names in the official layout.
    """
    out: dict[str, Examples] = {}
    path = corpora.find(data, "face", corpora.FERPLUS)
    fer, crops = ferplus.read(path), face_crops.corpus(cache, path, recipe.size, cropper, progress)
    target = soft_votes(fer.votes, recipe.vote_floor)
    for split in ("train", "valid", "test"):
        rows = fer.rows(split)
        weight = np.ones(len(rows), np.float32)
        out[split] = Examples(crops.rows(rows), target[rows], weight, fer.majority[rows])
    path = corpora.find(data, "face", corpora.MUXSPACE)
    mux, crops = muxspace.read(path), face_crops.corpus(cache, path, recipe.size, cropper, progress)
    target = np.eye(len(FERPLUS), dtype=np.float32)[mux.label] * (1 - recipe.muxspace_smoothing)
    target += recipe.muxspace_smoothing / len(FERPLUS)
    for split in ("train", "valid", "test"):
        rows = np.flatnonzero((mux.split == split) & crops.aligned)
        weight = np.full(len(rows), recipe.muxspace_weight, np.float32)
        out[f"mux_{split}"] = Examples(crops.rows(rows), target[rows], weight, mux.label[rows])
    return out


def digest(examples: Examples) -> str:
    """Hex digest of all that training reads of the examples."""
    found = hashlib.sha256()
    crops = examples.crops
    for part in (crops.face, crops.blendshapes, examples.target, examples.weight):
        found.update(repr((part.shape, part.dtype.str)).encode() + np.ascontiguousarray(part).tobytes())
    return found.hexdigest()


def join(parts: list[Examples]) -> Examples:
    crops = face_crops.Crops(
        np.concatenate([p.crops.face for p in parts]),
        np.concatenate([p.crops.blendshapes for p in parts]),
        np.concatenate([p.crops.presence for p in parts]),
    )
    return Examples(
        crops,
        np.concatenate([p.target for p in parts]),
        np.concatenate([p.weight for p in parts]),
        np.concatenate([p.majority for p in parts]),
    )


def label_weights(examples: Examples, power: float) -> NDArray[np.float32]:
    """float32[8]: a label's weight in the loss, its frequency to the minus ``power``, 1 on average."""
    frequency = (examples.target * examples.weight[:, None]).sum(axis=0)
    frequency = np.maximum(frequency / frequency.sum(), 1e-4)
    weight = frequency**-power
    return (weight / (weight * frequency).sum()).astype(np.float32)
