"""Train one member of the face network: augmented crops -> its averaged weights, with checkpoints."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from ecmf.errors import UsageError, need
from ecmf.importers.torch_pickle import read_tensors
from ecmf.weights import fetch
from train import face_crops
from train.atomic import whole
from train.face_augment import MIRRORED, augment, calmer
from train.face_examples import Examples, Plan, Recipe, digest, join, label_weights
from train.face_net import FaceNet
from train.face_residual import ResidualNet
from train.progress import shown

T = TypeVar("T")
Member = FaceNet | ResidualNet
Pool = Callable[[Member, Tensor], Tensor]
"""(member, grey levels float32[b, 1, s, s]) -> pooled features float32[b, c]."""
Batches = Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]
"""Faces float32[b, 1, s, s], blendshapes float32[b, 52], targets float32[b, 8], weights float32[b]."""


def build(plan: Plan) -> Member:
    """The member as training starts with it. Torch's random state decides what is not pre-trained."""
    if plan.kind == "residual":
        return ResidualNet(plan.inner, plan.channels, plan.blocks, plan.dropout)
    net = FaceNet(plan.inner, plan.dropout)
    net.start_from(read_tensors(fetch("efficientnet-lite0")))
    return net


def pooling(net: Member, threads: int = 1) -> Pool:
    """The fastest way to a member's pooled features on a CPU, for ``net`` and copies of it.

    Frozen blocks run in OpenVINO, the convolutions of a network from scratch in bfloat16 (where the processor has
    it, twice as fast; weights, statistics and sums stay float32).
    """
    if isinstance(net, FaceNet):
        stem = Stem(net, threads)

        def tuned(member: Member, face: Tensor) -> Tensor:
            assert isinstance(member, FaceNet)
            return member.tuned(stem(member.prepare(face))).mean(dim=(2, 3))

        return tuned

    def residual(member: Member, face: Tensor) -> Tensor:
        assert isinstance(member, ResidualNet)
        with torch.autocast("cpu", torch.bfloat16):
            return member.pool(face.contiguous(memory_format=torch.channels_last))

    return residual


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


def batches(examples: Examples, recipe: Recipe, plan: Plan, epoch: int) -> Batches:
    """Augmented batches of one epoch; the same for the same seed and epoch, whatever ran before."""
    rng = np.random.default_rng([recipe.seed, epoch])
    torch_rng = torch.Generator().manual_seed(recipe.seed * 100_003 + epoch)
    order = rng.permutation(len(examples))
    calm = plan.calm_from <= epoch < plan.settle_from
    how = calmer(recipe.augmentation, plan.calm) if calm else recipe.augmentation
    for start in range(0, len(order) - recipe.batch + 1, recipe.batch):
        rows = order[start : start + recipe.batch]
        part = examples.crops.rows(rows)
        face, shapes = augment(part.face, part.blendshapes, plan.inner_at(epoch), how, rng, torch_rng)
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
    net: Member, crops: face_crops.Crops, pool: Pool, *, mirror: bool = False, batch: int = 64
) -> NDArray[np.float32]:
    """float32[n, 8] logits. ``mirror``: the mean with the mirrored face's, as the exported network gives."""
    net.eval()
    out = []
    for start in range(0, len(crops), batch):
        face = torch.from_numpy(crops.face[start : start + batch].astype(np.float32))[:, None]
        shapes = torch.from_numpy(crops.blendshapes[start : start + batch])
        logits = net.read(pool(net, face), shapes)[1]
        if mirror:
            logits = (logits + net.read(pool(net, face.flip(3)), shapes[:, MIRRORED])[1]) / 2
        out.append(logits)
    return torch.cat(out).numpy()


def _optimizer(net: Member, plan: Plan) -> torch.optim.Optimizer:
    decayed = [p for p in net.parameters() if p.requires_grad and p.ndim > 1]
    plain = [p for p in net.parameters() if p.requires_grad and p.ndim <= 1]
    groups: list[dict[str, Any]] = [
        {"params": decayed, "weight_decay": plan.weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    if plan.kind == "residual":
        return torch.optim.SGD(groups, lr=plan.learning_rate, momentum=0.9, nesterov=True)
    return torch.optim.AdamW(groups, lr=plan.learning_rate)


def train(
    recipe: Recipe,
    plan: Plan,
    examples: Mapping[str, Examples],
    folder: Path,
    log: Callable[[str], None],
    *,
    threads: int = 1,
    stop_after: int | None = None,
    start: Member | None = None,
    source: Callable[[int], Batches] | None = None,
) -> Member:
    """Train or go on training in ``folder``; returns the averaged weights.

    ``log(text)`` receives one line an epoch; ``stop_after``: epochs to do in this call; ``start``: a member of the
    same plan whose weights are the first ones; ``source(epoch)``: batches of the training examples in place of
    those with votes.
    """
    torch.manual_seed(recipe.seed)
    net = build(plan)
    if start is not None:
        net.load_state_dict(start.state_dict())
    pool = pooling(net, threads)
    average = copy.deepcopy(net)
    for model in (net, average):
        torch.nn.utils.convert_conv2d_weight_memory_format(
            model, torch.channels_last
        )  # twice as fast on CPUs
    optimizer = _optimizer(net, plan)
    parts = join([examples["train"], examples["mux_train"]])
    balance = torch.from_numpy(label_weights(parts, recipe.label_balance))
    steps = len(parts) // recipe.batch
    checkpoint = folder / "checkpoint.pt"
    settings = repr((replace(recipe, members={}, student=None), plan, digest(parts)))
    first = 0
    if checkpoint.is_file():
        stored = torch.load(checkpoint, weights_only=True)
        if stored["recipe"] != settings:
            raise UsageError(
                f"{checkpoint} belongs to another recipe or other data; choose another folder or delete it"
            )
        net.load_state_dict(stored["net"])
        average.load_state_dict(stored["average"])
        optimizer.load_state_dict(stored["optimizer"])
        first = stored["epoch"]
    last = plan.epochs if stop_after is None else min(plan.epochs, first + stop_after)
    for epoch in range(first, last):
        if epoch == plan.settle_from:
            net.load_state_dict(average.state_dict())
            optimizer.state.clear()
        net.inner = average.inner = plan.inner_at(epoch)
        net.train()
        torch.manual_seed(recipe.seed * 7919 + epoch)  # dropout: the same after a resume
        running = 0.0
        part = source(epoch) if source else batches(parts, recipe, plan, epoch)  # may show its own progress
        with shown(f"epoch {epoch + 1}/{plan.epochs}", steps) as advance:
            for step, (face, shapes, target, weight) in enumerate(ahead(part)):
                for group in optimizer.param_groups:
                    group["lr"] = schedule(plan, epoch + step / steps)
                pooled = pool(net, face)
                both, alone = net.read(pooled, shapes)[1], net.read(pooled, torch.zeros_like(shapes))[1]
                # Without the second term the blendshapes, which are easy to read, keep the picture from being learned.
                losses = cross_entropy(both, target * balance)
                losses = losses + recipe.picture_loss * cross_entropy(alone, target * balance)
                loss = (losses * weight).sum() / weight.sum()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                update_average(average, net, min(plan.ema, 1 - 1 / (epoch * steps + step + 2)))
                running += float(loss.detach())
                advance(step + 1, f"loss {running / (step + 1):.4f}")
        valid = examples["valid"]
        score = accuracy(predict(average, valid.crops, pool), valid.majority)
        log(f"epoch {epoch + 1}: loss {running / max(steps, 1):.4f}, FER+ valid accuracy {score:.4f}")
        save(
            checkpoint,
            {
                "recipe": settings,
                "net": net.state_dict(),
                "average": average.state_dict(),
                "optimizer": optimizer.state_dict(),
                "epoch": epoch + 1,
            },
        )
    average.inner = plan.inner
    return average.eval()


def cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """float32[b] from logits and (weighted) soft targets, both [b, 8]."""
    return -(target * F.log_softmax(logits.float(), 1)).sum(1)


def schedule(plan: Plan, epoch: float) -> float:
    """Learning rate: linear warm-up, part of a half cosine, then straight to 0."""
    if epoch < plan.warmup_epochs:
        return plan.learning_rate * (0.05 + 0.95 * epoch / plan.warmup_epochs)
    share = (min(epoch, plan.settle_from) - plan.warmup_epochs) / (plan.cosine_epochs - plan.warmup_epochs)
    rate = plan.learning_rate * 0.5 * (1 + float(np.cos(np.pi * share)))
    if epoch >= plan.settle_from:
        rate *= (plan.epochs - epoch) / (plan.epochs - plan.settle_from)
    return rate


@torch.no_grad()
def update_average(average: nn.Module, net: nn.Module, keep: float) -> None:
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
    with whole(path) as file:
        torch.save(dict(content), file)


def log_to(path: Path) -> Any:
    """A function that prints a line and adds it to ``path``."""

    def log(text: str) -> None:
        print(text, flush=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(text + "\n")

    return log
