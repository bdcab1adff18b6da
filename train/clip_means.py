"""A clip as one vector a modality, the mean over its moments, and the branches' own opinions of it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ecmf.cue import MODALITIES
from ecmf.head import FLOOR
from ecmf.labels import opinion, opinions
from train.clip_cues import Moment


def means(
    moments: Sequence[Sequence[Moment]], chosen: Sequence[int], labels: Sequence[str]
) -> tuple[dict[str, NDArray[np.float32]], dict[str, NDArray[np.float32]]]:
    """Embeddings float32[clips, d] by modality, zeros where absent; opinions float32[clips, labels] by branch.

    Rows of zeros are no opinion; there are none at all where a label has no counterpart among the branches' own.
    """
    features: dict[str, NDArray[np.float32]] = {}
    outside: dict[str, NDArray[np.float32]] = {}
    matrix = opinions(labels)
    clips = [moments[n] for n in chosen]
    for modality in MODALITIES:
        cues = [[moment[modality] for moment in clip if modality in moment] for clip in clips]
        size = next((len(found[0].embedding) for found in cues if found), 0)
        if not size:
            continue
        features[modality] = np.stack(
            [np.mean([c.embedding for c in found], axis=0) if found else np.zeros(size) for found in cues]
        ).astype(np.float32)
        if matrix is not None and modality != "scene":
            said = np.zeros((len(chosen), len(labels)), np.float32)
            for row, found in enumerate(cues):
                probs = [c.probs for c in found if c.probs is not None]
                logs = opinion(np.mean(probs, axis=0), matrix, FLOOR) if probs else None
                if logs is not None:
                    said[row] = np.exp(logs)
            outside[f"{modality} branch"] = said / np.maximum(said.sum(axis=1, keepdims=True), FLOOR)
    return features, outside
