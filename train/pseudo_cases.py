"""Really labelled data on which pseudo-labels are measured, in features that saw no emotion label of these samples."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ecmf.bundle import SHIPPED, load_bundle
from ecmf.labels import EKMAN, FERPLUS, to_ekman
from ecmf.speech import SpeechEncoder
from train import corpora, refinement
from train.datasets import ferplus
from train.datasets.ravdess import read_ravdess
from train.pseudo_gain import Case, Judges
from train.voice_features import Take, extract

HELD_OUT = 4
"""Each so-many-th actor of RAVDESS only judges."""


def fer(data: Path, cache: Path, *, offline: bool = False) -> Case:
    """FER+ train with its majority labels, judged by its test (no ties, no twins). Nobody knows who is who, so pictures
    are hidden one by one. Sources: textures, blendshapes, and a model trained on muxspace's photographs.
    """
    from train.refine import _ensemble, _faces, _trained_on

    where = corpora.find(data, "face", corpora.FERPLUS)
    corpus = ferplus.read(where)
    train, test = corpus.rows("train"), corpus.rows("test")
    faces = _faces(data, where, train, cache, offline=offline)
    label = np.array([EKMAN.index(to_ekman(FERPLUS[m])) if m < len(FERPLUS) else -1 for m in corpus.majority])
    hard = np.eye(len(EKMAN), dtype=np.float32)[faces.muxspace_label]
    other = _trained_on(faces.muxspace, hard, refinement.Options(), 1)
    return Case(
        {name: values[train] for name, values in faces.fer.items()},
        {"muxspace": _ensemble(other, faces.fer, train)},
        label[train],
        EKMAN,
        None,
        Judges(
            {name: values[test] for name, values in faces.fer.items()},
            label[test],
            np.array(corpus.name)[test],
        ),
    )


def ravdess(path: Path, cache: Path, *, offline: bool = False) -> Case:
    """RAVDESS, judged by every fourth actor. Sources: Whisper's inner layers (mean, spread), and prosody."""
    clips = read_ravdess(path)
    name = str(load_bundle(SHIPPED / "voice").manifest.extra["encoder"]["name"])
    found = extract(clips, Take("clean"), SpeechEncoder(name, offline=offline), cache / "voice")
    layers = np.stack(
        [_over_time(states, mask) for states, mask in zip(found.states, found.masks, strict=True)]
    )
    features = {"whisper layers": layers, "prosody": found.prosody.astype(np.float32)}
    people = np.array([clip.speaker for clip in clips])
    label = np.array([EKMAN.index(clip.label) for clip in clips])
    judging = np.isin(people, np.unique(people)[HELD_OUT - 1 :: HELD_OUT])
    return Case(
        {n: values[~judging] for n, values in features.items()},
        {},
        label[~judging],
        EKMAN,
        people[~judging],
        Judges({n: values[judging] for n, values in features.items()}, label[judging], people[judging]),
    )


def _over_time(states: NDArray[np.float16], mask: NDArray[np.float32]) -> NDArray[np.float32]:
    """float32[2 * layers * d] of float16[layers, T, d]: mean and standard deviation where somebody speaks."""
    spoken = states[:, mask > 0.5] if (mask > 0.5).any() else states
    values = spoken.astype(np.float32)
    return np.concatenate([values.mean(axis=1).ravel(), values.std(axis=1).ravel()])
