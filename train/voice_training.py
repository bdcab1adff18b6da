"""Training of the voice network on cached features."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ecmf.branches.voice import SESSION_PRIOR_S, WINDOW_S
from ecmf.labels import EKMAN
from ecmf.prosody import FEATURES
from train import voice_network, voice_samples
from train.atomic import whole
from train.voice_code import code_digest
from train.voice_features import Features
from train.voice_network import Shape, VoiceMember, VoiceNetwork
from train.voice_recipe import Recipe
from train.voice_samples import FRAME_S, Corpus, Samples, collate, fit_reduction, gather, history, reduce

log = logging.getLogger("train.voice_training")

_WINDOW = round(WINDOW_S / FRAME_S)


def train_member(samples: Samples, recipe: Recipe, seed: int) -> VoiceMember:
    """One member from scratch; the same samples, recipe and seed give the same weights on the same machine."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    member = VoiceMember(_shape(recipe))
    optimiser = torch.optim.AdamW(member.parameters(), recipe.learning_rate, weight_decay=recipe.weight_decay)
    steps = math.ceil(len(samples.labels) / recipe.batch)
    total, warm = steps * recipe.epochs, steps
    member.train()
    for epoch in range(recipe.epochs):
        losses = []
        for step, rows in enumerate(np.array_split(rng.permutation(len(samples.labels)), steps)):
            done = (epoch * steps + step) / total
            rate = min((epoch * steps + step + 1) / warm, 0.5 * (1 + math.cos(math.pi * done)))
            for group in optimiser.param_groups:
                group["lr"] = recipe.learning_rate * rate
            loss = _loss(member, samples, rows, recipe, rng)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(member.parameters(), 1.0)
            optimiser.step()
            losses.append(float(loss.detach()))
        log.debug("seed %d, epoch %d: loss %.3f", seed, epoch + 1, np.mean(losses))
    return member.eval()


def _loss(
    member: VoiceMember, samples: Samples, rows: NDArray[np.intp], recipe: Recipe, rng: np.random.Generator
) -> Tensor:
    """Label-smoothed cross-entropy over the labels that each clip's corpus has."""
    chosen = []
    for row in rows:
        every = samples.takes[row]
        clean = len(every) == 1 or rng.random() < recipe.clean_share
        states, mask, prosody = every[0] if clean else every[int(rng.integers(1, len(every)))]
        # No more than the live system ever hears at once, and now and then as little as when speech begins.
        window = _WINDOW
        if rng.random() < recipe.short_share:
            window, prosody = int(rng.integers(_WINDOW // 5, _WINDOW // 2)), torch.zeros_like(prosody)
        first = int(rng.integers(0, max(len(mask) - window, 0) + 1))
        chosen.append((states[first : first + window], mask[first : first + window], prosody))
    reduced, mask, prosody = collate(chosen)
    reduced = reduced - torch.stack([history(samples, int(row), recipe, rng) for row in rows])[:, None]
    target = torch.from_numpy(samples.labels[rows])
    possible = torch.from_numpy(samples.possible[rows])
    _, logits = member(reduced, mask, prosody)
    logp = logits.masked_fill(~possible, -1e4).log_softmax(1)
    smooth = -(logp * possible).sum(1) / possible.sum(1)
    hard = -logp.gather(1, target[:, None])[:, 0]
    loss = (1 - recipe.label_smoothing) * hard + recipe.label_smoothing * smooth
    weight = torch.from_numpy(samples.weights[rows])
    return (loss * weight).sum() / weight.sum()


def train(
    corpora: Sequence[Corpus], rows: Sequence[NDArray[np.intp]], recipe: Recipe, work: Path | None = None
) -> VoiceNetwork:
    """Reduction and all members, from the given rows of each corpus.

    Members already trained on the same samples with the same recipe are taken from the folder ``work``.
    """
    reduction = fit_reduction(corpora, rows, recipe)
    samples = gather(corpora, rows, reduction)
    began = time.monotonic()
    members = []
    for index in range(recipe.members):
        members.append(_member(samples, recipe, recipe.seed + index, work))
        log.info("member %d of %d, %.0f s", index + 1, recipe.members, time.monotonic() - began)
    return VoiceNetwork(reduction, members).eval()


def _member(samples: Samples, recipe: Recipe, seed: int, work: Path | None) -> VoiceMember:
    """Trained, or from ``work`` where a stopped run left it."""
    if work is None:
        return train_member(samples, recipe, seed)
    file = work / f"member-{_key(samples, recipe, seed)}.pt"
    if file.is_file():
        member = VoiceMember(_shape(recipe))
        member.load_state_dict(torch.load(file, weights_only=True))
        return member.eval()
    member = train_member(samples, recipe, seed)
    with whole(file) as target:
        torch.save(member.state_dict(), target)
    return member


def _key(samples: Samples, recipe: Recipe, seed: int) -> str:
    """Of all that a member's weights follow from: samples, recipe, seed and the code that trains."""
    knobs = dataclasses.replace(recipe, version="", members=0, held_out=())
    code = code_digest(sys.modules[__name__], voice_samples, voice_network)
    key = hashlib.sha256(repr((knobs, seed, torch.__version__, WINDOW_S, SESSION_PRIOR_S, code)).encode())
    for every in samples.takes:
        for item in every:
            for part in item:
                key.update(repr(tuple(part.shape)).encode() + part.contiguous().numpy().tobytes())
        key.update(b";")
    for array in (samples.labels, samples.possible, samples.weights, samples.means.numpy(), samples.seconds):
        key.update(array.tobytes())
    key.update(repr(samples.speakers.tolist()).encode())
    return key.hexdigest()[:24]


def _shape(recipe: Recipe) -> Shape:
    return Shape(recipe.states, len(FEATURES), len(EKMAN), recipe.hidden, recipe.embedding, recipe.dropout)


@torch.no_grad()
def predict(network: VoiceNetwork, features: Features, rows: NDArray[np.intp]) -> NDArray[np.float32]:
    """Logits float32[rows, labels]; zeros (no opinion) where there is no frame of speech."""
    out = np.zeros((len(rows), len(EKMAN)), np.float32)
    items = {i: reduce(network.reduction, features, int(row)) for i, row in enumerate(rows)}
    filled = [i for i, item in items.items() if len(item[1])]
    for first in range(0, len(filled), 64):
        part = filled[first : first + 64]
        reduced, mask, prosody = collate([items[i] for i in part])
        out[part] = network.vote(reduced, prosody, mask)[1].numpy()
    return out
