"""Train the face network: pictures -> crops -> network -> the best epoch's averaged weights, then the bundle."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from ecmf.errors import UsageError
from ecmf.labels import FERPLUS
from train import face_crops
from train.datasets import ferplus, muxspace
from train.face_augment import Augmentation, augment
from train.face_net import FaceNet


@dataclass(frozen=True)
class Recipe:
    """What ``train/recipes/face.toml`` may say; see its comments."""

    seed: int = 1
    size: int = 56
    widths: tuple[int, ...] = (32, 64, 128, 192)
    depths: tuple[int, ...] = (2, 2, 2)
    dropout: float = 0.3
    epochs: int = 30
    sizes: tuple[tuple[int, int], ...] = ((0, 40), (12, 48), (22, 56))
    batch: int = 64
    learning_rate: float = 0.05
    warmup_epochs: float = 1.0
    weight_decay: float = 5e-4
    ema: float = 0.998
    label_balance: float = 0.35
    vote_floor: int = 1
    muxspace_weight: float = 0.5
    muxspace_smoothing: float = 0.15
    augmentation: Augmentation = field(default_factory=Augmentation)


def recipe_from(values: Mapping[str, Any]) -> Recipe:
    """Raises UsageError for a key that no recipe has."""
    values = dict(values)
    strengths = values.pop("augmentation", {})
    for given, kind in ((values, Recipe), (strengths, Augmentation)):
        unknown = given.keys() - {f.name for f in fields(kind)}
        if unknown:
            raise UsageError(
                f"face recipe: unknown keys {sorted(unknown)}; known: {sorted(f.name for f in fields(kind))}"
            )
    for key in ("widths", "depths"):
        if key in values:
            values[key] = tuple(values[key])
    if "sizes" in values:
        values["sizes"] = tuple((int(epoch), int(size)) for epoch, size in values["sizes"])
    return Recipe(**values, augmentation=Augmentation(**strengths))


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
    folder = face_crops.face_folder(data)
    out: dict[str, Examples] = {}
    path = face_crops.source(folder, "ferplus")
    fer, crops = ferplus.read(path), face_crops.corpus(cache, path, recipe.size, cropper, progress)
    target = soft_votes(fer.votes, recipe.vote_floor)
    for split in ("train", "valid", "test"):
        rows = fer.rows(split)
        weight = np.ones(len(rows), np.float32)
        out[split] = Examples(crops.rows(rows), target[rows], weight, fer.majority[rows])
    path = face_crops.source(folder, "muxspace")
    mux, crops = muxspace.read(path), face_crops.corpus(cache, path, recipe.size, cropper, progress)
    target = np.eye(len(FERPLUS), dtype=np.float32)[mux.label] * (1 - recipe.muxspace_smoothing)
    target += recipe.muxspace_smoothing / len(FERPLUS)
    for split in ("train", "valid", "test"):
        rows = np.flatnonzero((mux.split == split) & crops.aligned)
        weight = np.full(len(rows), recipe.muxspace_weight, np.float32)
        out[f"mux_{split}"] = Examples(crops.rows(rows), target[rows], weight, mux.label[rows])
    return out


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


def batches(
    examples: Examples, size: int, recipe: Recipe, epoch: int
) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Augmented batches of one epoch; the same for the same seed and epoch, whatever ran before."""
    rng = np.random.default_rng([recipe.seed, epoch])
    torch_rng = torch.Generator().manual_seed(recipe.seed * 100_003 + epoch)
    order = rng.permutation(len(examples))
    for start in range(0, len(order) - recipe.batch + 1, recipe.batch):
        rows = order[start : start + recipe.batch]
        part = examples.crops.rows(rows)
        face, shapes = augment(part.face, part.blendshapes, size, recipe.augmentation, rng, torch_rng)
        yield face, shapes, torch.from_numpy(examples.target[rows]), torch.from_numpy(examples.weight[rows])


@torch.no_grad()
def predict(
    net: FaceNet, crops: face_crops.Crops, *, mirror: bool = False, batch: int = 128
) -> NDArray[np.float32]:
    """float32[n, 8] logits. ``mirror`` averages with the mirrored crop's; the live system does not."""
    from train.face_augment import MIRRORED

    net.eval()
    out = []
    for start in range(0, len(crops), batch):
        face = torch.from_numpy(crops.face[start : start + batch].astype(np.float32))[:, None]
        shapes = torch.from_numpy(crops.blendshapes[start : start + batch])
        logits = net(face, shapes)[1]
        if mirror:
            logits = (logits + net(face.flip(3), shapes[:, MIRRORED])[1]) / 2
        out.append(logits)
    return torch.cat(out).float().numpy()


def size_at(recipe: Recipe, epoch: int) -> int:
    """Crop size of an epoch: small ones first, where an epoch costs less."""
    return [size for first, size in recipe.sizes if first <= epoch][-1]


def train(
    recipe: Recipe, examples: Mapping[str, Examples], folder: Path, log: Any, *, stop_after: int | None = None
) -> FaceNet:
    """Train or go on training in ``folder``; returns the averaged weights of the best epoch on FER+ valid.

    ``log(text)`` receives one line an epoch; ``stop_after``: epochs to do in this call.
    """
    torch.manual_seed(recipe.seed)
    net = FaceNet(recipe.widths, recipe.depths, recipe.dropout)
    torch.nn.utils.convert_conv2d_weight_memory_format(net, torch.channels_last)  # twice as fast on CPUs
    average = FaceNet(recipe.widths, recipe.depths, recipe.dropout)
    average.load_state_dict(net.state_dict())
    decayed = [p for p in net.parameters() if p.ndim > 1]
    rest = [p for p in net.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": rest, "weight_decay": 0.0}]
    optimizer = torch.optim.SGD(groups, lr=recipe.learning_rate, momentum=0.9, nesterov=True)
    parts = join([examples["train"], examples["mux_train"]])
    balance = torch.from_numpy(label_weights(parts, recipe.label_balance))
    steps = len(parts) // recipe.batch
    checkpoint = folder / "checkpoint.pt"
    first, best, best_state = 0, 0.0, average.state_dict()
    if checkpoint.is_file():
        stored = torch.load(checkpoint, weights_only=True)
        if stored["recipe"] != repr(recipe):
            raise UsageError(f"{checkpoint} belongs to another recipe; choose another folder or delete it")
        net.load_state_dict(stored["net"])
        average.load_state_dict(stored["average"])
        optimizer.load_state_dict(stored["optimizer"])
        first, best, best_state = stored["epoch"], stored["best"], stored["best_state"]
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    last = recipe.epochs if stop_after is None else min(recipe.epochs, first + stop_after)
    for epoch in range(first, last):
        net.train()
        torch.manual_seed(recipe.seed * 7919 + epoch)  # dropout: the same after a resume
        running, done = 0.0, 0
        size = size_at(recipe, epoch)
        with Progress(*columns, transient=True) as bar:
            task = bar.add_task(f"epoch {epoch + 1}/{recipe.epochs}, {size} px", total=steps, rate="")
            for step, (face, shapes, target, weight) in enumerate(batches(parts, size, recipe, epoch)):
                rate = schedule(recipe, epoch + step / steps)
                for group in optimizer.param_groups:
                    group["lr"] = rate
                face = face.contiguous(memory_format=torch.channels_last)
                with torch.autocast("cpu", torch.bfloat16):
                    logits = net(face, shapes)[1]
                loss_each = -(target * balance * F.log_softmax(logits.float(), 1)).sum(1)
                loss = (loss_each * weight).sum() / weight.sum()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                update_average(average, net, min(recipe.ema, 1 - 1 / (epoch * steps + step + 2)))
                running, done = running + float(loss.detach()), done + 1
                speed = bar.tasks[0].speed
                bar.update(task, advance=1, rate=f"{(speed or 0) * recipe.batch:.0f} faces/s")
        valid = examples["valid"]
        score = accuracy(predict(average, valid.crops), valid.majority)
        if score >= best:
            best, best_state = score, {k: v.clone() for k, v in average.state_dict().items()}
        log(
            f"epoch {epoch + 1}: {size} px, loss {running / max(done, 1):.4f}, FER+ valid accuracy {score:.4f}"
        )
        save(
            checkpoint,
            {
                "recipe": repr(recipe),
                "net": net.state_dict(),
                "average": average.state_dict(),
                "optimizer": optimizer.state_dict(),
                "epoch": epoch + 1,
                "best": best,
                "best_state": best_state,
            },
        )
    average.load_state_dict(best_state)
    return average.eval()


def schedule(recipe: Recipe, epoch: float) -> float:
    """Learning rate: linear warm-up, then half a cosine to 0."""
    if epoch < recipe.warmup_epochs:
        return recipe.learning_rate * (0.05 + 0.95 * epoch / recipe.warmup_epochs)
    share = (epoch - recipe.warmup_epochs) / max(recipe.epochs - recipe.warmup_epochs, 1e-9)
    return recipe.learning_rate * 0.5 * (1 + float(np.cos(np.pi * share)))


@torch.no_grad()
def update_average(average: FaceNet, net: FaceNet, keep: float) -> None:
    """Exponential moving average of weights and normalisation statistics."""
    for old, new in zip(average.state_dict().values(), net.state_dict().values(), strict=True):
        if old.is_floating_point():
            old.lerp_(new, 1 - keep)
        else:
            old.copy_(new)


def accuracy(logits: NDArray[np.floating], majority: NDArray[np.int64]) -> float:
    return float((logits.argmax(axis=1) == majority).mean())


def save(path: Path, content: Mapping[str, Any]) -> None:
    """Write whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    torch.save(dict(content), temporary)
    temporary.replace(path)


def log_to(path: Path) -> Any:
    """A function that prints a line and adds it to ``path``."""

    def log(text: str) -> None:
        print(text, flush=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(text + "\n")

    return log
