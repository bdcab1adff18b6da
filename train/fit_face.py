"""Train the face network: pictures -> crops -> network -> its averaged weights, then the bundle."""

from __future__ import annotations

import copy
import os
import sys
import time
import tomllib
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor
from torch.nn import functional as F

from ecmf.bundle import Bundle
from ecmf.errors import UsageError, need
from ecmf.importers.torch_pickle import read_tensors
from ecmf.weights import fetch
from train import face_crops
from train.face_augment import MIRRORED, augment, calmer
from train.face_examples import Examples, Recipe, join, label_weights, load, recipe_from
from train.face_net import FaceNet

T = TypeVar("T")


class Stem:
    """The network's frozen blocks in OpenVINO: several times as fast as in torch, equal to about 1e-4."""

    def __init__(self, net: FaceNet, threads: int) -> None:
        openvino = need("openvino", "live")
        side = net.inner
        model = openvino.convert_model(net.frozen.eval(), example_input=torch.zeros(2, 1, side, side))
        model.reshape([-1, 1, side, side])
        options = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads}
        self._request = openvino.compile_model(model, "CPU", options).create_infer_request()

    def __call__(self, prepared: Tensor) -> Tensor:
        """What ``net.frozen(prepared)`` would be."""
        out = torch.from_numpy(self._request.infer([prepared.numpy()])[0].copy())
        return out.contiguous(memory_format=torch.channels_last)


def batches(
    examples: Examples, recipe: Recipe, epoch: int
) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Augmented batches of one epoch; the same for the same seed and epoch, whatever ran before."""
    rng = np.random.default_rng([recipe.seed, epoch])
    torch_rng = torch.Generator().manual_seed(recipe.seed * 100_003 + epoch)
    order = rng.permutation(len(examples))
    calm = recipe.calm_from <= epoch < recipe.settle_from
    how = calmer(recipe.augmentation, recipe.calm) if calm else recipe.augmentation
    for start in range(0, len(order) - recipe.batch + 1, recipe.batch):
        rows = order[start : start + recipe.batch]
        part = examples.crops.rows(rows)
        face, shapes = augment(part.face, part.blendshapes, recipe.inner, how, rng, torch_rng)
        yield face, shapes, torch.from_numpy(examples.target[rows]), torch.from_numpy(examples.weight[rows])


def ahead(items: Iterator[T]) -> Iterator[T]:
    """The same items, each made in a second thread while the one before is in use."""
    with ThreadPoolExecutor(1) as pool:
        pending = pool.submit(next, items, None)
        while (item := pending.result()) is not None:
            pending = pool.submit(next, items, None)
            yield item


@torch.no_grad()
def predict(
    net: FaceNet, crops: face_crops.Crops, stem: Stem, *, mirror: bool = False, batch: int = 64
) -> NDArray[np.float32]:
    """float32[n, 8] logits. ``mirror``: the mean with the mirrored face's, as the exported network gives."""
    net.eval()
    out = []
    for start in range(0, len(crops), batch):
        face = torch.from_numpy(crops.face[start : start + batch].astype(np.float32))[:, None]
        shapes = torch.from_numpy(crops.blendshapes[start : start + batch])
        logits = net.read(net.tuned(stem(net.prepare(face))).mean(dim=(2, 3)), shapes)[1]
        if mirror:
            pooled = net.tuned(stem(net.prepare(face).flip(3).contiguous())).mean(dim=(2, 3))
            logits = (logits + net.read(pooled, shapes[:, MIRRORED])[1]) / 2
        out.append(logits)
    return torch.cat(out).numpy()


def train(
    recipe: Recipe,
    examples: Mapping[str, Examples],
    folder: Path,
    log: Callable[[str], None],
    *,
    threads: int = 1,
    stop_after: int | None = None,
) -> FaceNet:
    """Train or go on training in ``folder``; returns the averaged weights.

    ``log(text)`` receives one line an epoch; ``stop_after``: epochs to do in this call.
    """
    torch.manual_seed(recipe.seed)
    net = FaceNet(recipe.inner, recipe.dropout)
    net.start_from(read_tensors(fetch("efficientnet-lite0")))
    stem = Stem(net, threads)
    average = copy.deepcopy(net)
    torch.nn.utils.convert_conv2d_weight_memory_format(net, torch.channels_last)  # twice as fast on CPUs
    decayed = [p for p in net.parameters() if p.requires_grad and p.ndim > 1]
    plain = [p for p in net.parameters() if p.requires_grad and p.ndim <= 1]
    groups = [
        {"params": decayed, "weight_decay": recipe.weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=recipe.learning_rate)
    parts = join([examples["train"], examples["mux_train"]])
    balance = torch.from_numpy(label_weights(parts, recipe.label_balance))
    steps = len(parts) // recipe.batch
    checkpoint = folder / "checkpoint.pt"
    first = 0
    if checkpoint.is_file():
        stored = torch.load(checkpoint, weights_only=True)
        if stored["recipe"] != repr(recipe):
            raise UsageError(f"{checkpoint} belongs to another recipe; choose another folder or delete it")
        net.load_state_dict(stored["net"])
        average.load_state_dict(stored["average"])
        optimizer.load_state_dict(stored["optimizer"])
        first = stored["epoch"]
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    last = recipe.epochs if stop_after is None else min(recipe.epochs, first + stop_after)
    for epoch in range(first, last):
        if epoch == recipe.settle_from:
            net.load_state_dict(average.state_dict())
            optimizer.state.clear()
        net.train()
        torch.manual_seed(recipe.seed * 7919 + epoch)  # dropout: the same after a resume
        running = 0.0
        with Progress(*columns, transient=True) as bar:
            task = bar.add_task(f"epoch {epoch + 1}/{recipe.epochs}", total=steps, rate="")
            ready = ((stem(net.prepare(face)), *rest) for face, *rest in batches(parts, recipe, epoch))
            for step, (low, shapes, target, weight) in enumerate(ahead(ready)):
                for group in optimizer.param_groups:
                    group["lr"] = schedule(recipe, epoch + step / steps)
                pooled = net.tuned(low).mean(dim=(2, 3))
                both, alone = net.read(pooled, shapes)[1], net.read(pooled, torch.zeros_like(shapes))[1]
                # Without the second term the blendshapes, which are easy to read, keep the picture from being learned.
                losses = cross_entropy(both, target * balance)
                losses = losses + recipe.picture_loss * cross_entropy(alone, target * balance)
                loss = (losses * weight).sum() / weight.sum()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                update_average(average, net, min(recipe.ema, 1 - 1 / (epoch * steps + step + 2)))
                running += float(loss.detach())
                bar.update(task, advance=1, rate=f"{(bar.tasks[0].speed or 0) * recipe.batch:.0f} faces/s")
        valid = examples["valid"]
        score = accuracy(predict(average, valid.crops, stem), valid.majority)
        log(f"epoch {epoch + 1}: loss {running / max(steps, 1):.4f}, FER+ valid accuracy {score:.4f}")
        save(
            checkpoint,
            {
                "recipe": repr(recipe),
                "net": net.state_dict(),
                "average": average.state_dict(),
                "optimizer": optimizer.state_dict(),
                "epoch": epoch + 1,
            },
        )
    return average.eval()


def cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """float32[b] from logits and (weighted) soft targets, both [b, 8]."""
    return -(target * F.log_softmax(logits.float(), 1)).sum(1)


def schedule(recipe: Recipe, epoch: float) -> float:
    """Learning rate: linear warm-up, part of a half cosine, then straight to 0."""
    if epoch < recipe.warmup_epochs:
        return recipe.learning_rate * (0.05 + 0.95 * epoch / recipe.warmup_epochs)
    share = (min(epoch, recipe.settle_from) - recipe.warmup_epochs) / (
        recipe.cosine_epochs - recipe.warmup_epochs
    )
    rate = recipe.learning_rate * 0.5 * (1 + float(np.cos(np.pi * share)))
    if epoch >= recipe.settle_from:
        rate *= (recipe.epochs - epoch) / (recipe.epochs - recipe.settle_from)
    return rate


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


GOLDEN = ("demo-smile", 45)
"""Weight and frame number of the golden face."""


def main(recipe: Path, out: Path, *, data: Path, cache: Path, work: Path, threads: int = 1) -> Bundle:
    """Fit, calibrate, measure and export the face bundle into ``out``.

    ``work`` keeps checkpoint and log: the same call after a kill goes on with the last whole epoch. Raises UsageError
    for a wrong recipe, DataError for wrong data.
    """
    values = recipe_from(tomllib.loads(recipe.read_text("utf-8")))
    torch.set_num_threads(threads)
    examples = load(values, data, cache, face_crops.Cropper, _counter())
    net = train(values, examples, work, log_to(work / "log.txt"), threads=threads)
    return finish(net, values, recipe.read_text("utf-8"), examples, out, data=data, cache=cache, work=work)


def finish(
    net: FaceNet,
    recipe: Recipe,
    recipe_text: str,
    examples: Mapping[str, Examples],
    out: Path,
    *,
    data: Path,
    cache: Path,
    work: Path,
    version: str = "1.0.0",
) -> Bundle:
    """Calibrate on FER+ valid, export into ``work``, measure that bundle, then write ``out`` with card and figures."""
    from train import calibrate_face, export_face, face_card
    from train.evaluate_face import evaluate

    valid, cropper = examples["valid"], face_crops.Cropper()
    balance = label_weights(join([examples["train"], examples["mux_train"]]), recipe.label_balance)
    calibration = calibrate_face.fit(
        predict(net, valid.crops, Stem(net, 1), mirror=True), valid.majority, balance
    )
    weight, frame = GOLDEN
    golden = export_face.golden_face(fetch(weight), weight, frame, recipe.size, cropper)

    def write(folder: Path, metrics: Mapping[str, Any], card: str) -> Bundle:
        return export_face.export(
            net,
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
        parameters=sum(p.numel() for p in net.parameters()),
        temperature=calibration.temperature,
        counts={"train": len(examples["train"]), "valid": len(valid), "mux": len(examples["mux_train"])},
        mux_weight=recipe.muxspace_weight,
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
