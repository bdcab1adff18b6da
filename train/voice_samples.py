"""What the voice network is trained on: cached features, scaled and reduced, with what a session would have learnt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ecmf.branches.voice import POOL, SESSION_PRIOR_S
from ecmf.errors import DataError
from ecmf.importers.whisper_encoder import LAYERS
from ecmf.labels import EKMAN
from ecmf.speech import STATES_PER_SECOND
from train.datasets.speech_clip import Clip
from train.voice_features import Features
from train.voice_network import Reduction
from train.voice_recipe import Recipe

_SILENT = 0.02
"""Frames with a lower speech probability are left out."""

_WHITENING = 0.25
"""Power of a direction's variance that scales it down: 0.5 would raise what is mostly noise to the loudest voice."""

_NEUTRAL_SHARE = 0.7
"""Of the histories in training that hold neutral clips only."""

FRAME_S = POOL / STATES_PER_SECOND

Item = tuple[Tensor, Tensor, Tensor]
"""Reduced states float32[T, states], mask float32[T], prosody float32[k]."""


@dataclass(frozen=True)
class Corpus:
    """Clips of one corpus and their features, the clean take first."""

    clips: Sequence[Clip]
    takes: Sequence[Features]
    complete: bool = False
    """Whether labels that no clip has were possible answers all the same (ordinary speech: all of it is neutral)."""

    @property
    def labels(self) -> NDArray[np.int64]:
        return np.array([EKMAN.index(clip.label) for clip in self.clips])

    @property
    def speakers(self) -> NDArray[np.str_]:
        return np.array([clip.speaker for clip in self.clips])


@dataclass(frozen=True)
class Samples:
    """Clips of several corpora to train on, each with all its takes, reduced."""

    takes: list[list[Item]]
    """Per clip, per take that has a frame of speech; the clean one first."""
    labels: NDArray[np.int64]
    possible: NDArray[np.bool_]
    """bool[n, labels]: labels that the clip's corpus has at all."""
    weights: NDArray[np.float32]
    """float32[n]: rarer labels of a corpus weigh more."""
    means: Tensor
    """float32[n, states]: mean state of each clip's clean speech; 0 is the mean of all."""
    seconds: NDArray[np.float32]
    """float32[n]: speech in it."""
    speakers: NDArray[np.str_]

    @cached_property
    def by_speaker(self) -> dict[str, NDArray[np.intp]]:
        """Rows of each speaker's clips."""
        return {name: np.flatnonzero(self.speakers == name) for name in set(self.speakers.tolist())}


def fit_reduction(corpora: Sequence[Corpus], rows: Sequence[NDArray[np.intp]], recipe: Recipe) -> Reduction:
    """Scaling and main directions from the chosen clips' clean takes, over frames that surely hold speech.

    Layers that the recipe leaves out get no weight.
    """
    used = [LAYERS.index(layer) for layer in recipe.layers]
    speech: list[NDArray[np.float32]] = []
    manner: list[NDArray[np.float32]] = []
    for corpus, chosen in zip(corpora, rows, strict=True):
        clean = corpus.takes[0]
        for row in chosen:
            states = clean.states[row][used][:, clean.masks[row] > 0.5].astype(np.float32)
            speech.append(np.concatenate(list(states), axis=1))
        manner.append(clean.prosody[chosen])
    frames, prosody = np.concatenate(speech), np.concatenate(manner)
    mean, scale = frames.mean(0), 1 / np.maximum(frames.std(0), 1e-4)
    scaled = (frames - mean) * scale
    variances, directions = np.linalg.eigh(scaled.T @ scaled / np.float32(len(scaled)))
    order = np.argsort(variances)[::-1][: recipe.states]
    weight = scale[:, None] * directions[:, order] / np.maximum(variances[order], 1e-6) ** _WHITENING
    width = frames.shape[1] // len(used)
    stacked = np.zeros((len(LAYERS), width, weight.shape[1]), np.float32)
    stacked[used] = weight.reshape(len(used), width, -1)
    reduction = Reduction(len(LAYERS) * width, weight.shape[1], prosody.shape[1])
    reduction.weight.copy_(torch.from_numpy(stacked.reshape(len(LAYERS) * width, -1)))
    reduction.bias.copy_(torch.from_numpy((-mean @ weight).astype(np.float32)))
    reduction.prosody_mean.copy_(torch.from_numpy(prosody.mean(0)))
    reduction.prosody_scale.copy_(torch.from_numpy(1 / np.maximum(prosody.std(0), 1e-4)))
    return reduction


@torch.no_grad()
def reduce(reduction: Reduction, features: Features, row: int) -> Item:
    """One clip after the reduction, without the frames that surely hold no speech (they would weigh nothing)."""
    kept = features.masks[row] > _SILENT
    states = torch.from_numpy(features.states[row][:, kept].astype(np.float32))[None]
    reduced, prosody = reduction(states, torch.from_numpy(features.prosody[row])[None])
    return reduced[0], torch.from_numpy(features.masks[row][kept]), prosody[0]


def gather(corpora: Sequence[Corpus], rows: Sequence[NDArray[np.intp]], reduction: Reduction) -> Samples:
    """Samples of the given rows of each corpus. Raises DataError when a corpus brings a label with a single clip."""
    takes, labels, possible, weights, means, seconds = [], [], [], [], [], []
    for corpus, chosen in zip(corpora, rows, strict=True):
        y = corpus.labels[chosen]
        counts = np.bincount(y, minlength=len(EKMAN))
        if (counts == 1).any():
            raise DataError(f"label {EKMAN[int(np.argmax(counts == 1))]!r} has one clip only; leave it out")
        present = counts > 0
        for row in chosen:
            every = [reduce(reduction, features, int(row)) for features in corpus.takes]
            takes.append([item for item in every if len(item[1])])
            if not takes[-1]:
                raise DataError(
                    f"clip {corpus.clips[row].name} of {corpus.clips[row].speaker} holds no speech"
                )
            reduced, mask, _ = takes[-1][0]
            spoken = mask > 0.5
            means.append(reduced[spoken].mean(0) if spoken.any() else torch.zeros(reduced.shape[1]))
            seconds.append(float(spoken.sum()) * FRAME_S)
        labels.append(y)
        possible.append(np.tile(present | corpus.complete, (len(chosen), 1)))
        weights.append((len(chosen) / present.sum() / counts[y]) ** 0.5)
    return Samples(
        takes,
        np.concatenate(labels),
        np.concatenate(possible),
        np.concatenate(weights).astype(np.float32),
        torch.stack(means),
        np.array(seconds, np.float32),
        np.concatenate([corpus.speakers[chosen] for corpus, chosen in zip(corpora, rows, strict=True)]),
    )


def collate(items: Sequence[Item]) -> Item:
    """Pad to the longest: reduced float32[B, T, states], mask float32[B, T], prosody float32[B, k]."""
    pad = torch.nn.utils.rnn.pad_sequence
    reduced = pad([item[0] for item in items], batch_first=True)
    mask = pad([item[1] for item in items], batch_first=True)
    return reduced, mask, torch.stack([item[2] for item in items])


def history(samples: Samples, row: int, recipe: Recipe, rng: np.random.Generator) -> Tensor:
    """What a session may have learnt of this speaker before this clip (see ecmf.branches.voice.VoiceSession).

    Nothing in ``cold_share`` of the cases, else 1 to 16 other clips of the speaker: mostly neutral ones, for a session
    counts speech by how neutral it is, but it is not always right.
    """
    others = samples.by_speaker[str(samples.speakers[row])]
    others = others[others != row]
    if rng.random() < recipe.cold_share or not len(others):
        return torch.zeros(samples.means.shape[1])
    neutral = others[samples.labels[others] == EKMAN.index("neutral")]
    pool = neutral if len(neutral) and rng.random() < _NEUTRAL_SHARE else others
    chosen = rng.choice(pool, int(rng.choice((1, 2, 4, 8, 16))))
    weight = torch.from_numpy(samples.seconds[chosen])
    total = float(weight.sum())
    mean = (samples.means[chosen] * weight[:, None]).sum(0) / max(total, FRAME_S)
    return mean * (total / (total + SESSION_PRIOR_S))


def average_of(corpora: Sequence[Corpus], rows: Sequence[NDArray[np.intp]]) -> NDArray[np.float32]:
    """Mean state of the chosen clips' clean speech, float32[layers, d]."""
    frames = [
        corpus.takes[0].states[row][:, corpus.takes[0].masks[row] > 0.5].astype(np.float32)
        for corpus, chosen in zip(corpora, rows, strict=True)
        for row in chosen
    ]
    mean: NDArray[np.float32] = (
        np.concatenate(frames, axis=1).mean(axis=1, dtype=np.float64).astype(np.float32)
    )
    return mean


def folds(speakers: NDArray[np.str_], count: int = 6) -> NDArray[np.int64]:
    """Fold number of each clip, speakers whole; neighbours in the sorted list (a man, a woman) stay together."""
    order = {speaker: index // 2 % count for index, speaker in enumerate(sorted(set(speakers.tolist())))}
    return np.array([order[speaker] for speaker in speakers.tolist()])
