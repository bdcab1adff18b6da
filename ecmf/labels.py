"""Label sets, and the one place where a corpus's label names become ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ecmf.errors import DataError

EKMAN = ("neutral", "happiness", "sadness", "anger", "fear", "disgust", "surprise")
"""The default label set: Ekman's six basic emotions and neutral."""

MER = ("neutral", "angry", "happy", "sad", "worried", "surprise")
"""The label set of the MER challenges (2023 to 2025)."""

PROFILES: Mapping[str, tuple[str, ...]] = {"ekman": EKMAN, "mer": MER}

FERPLUS = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt")
"""FER+'s eight emotions in the order of its vote columns."""

_SYNONYMS: Mapping[str, str] = {
    "neutral": "neutral",
    "calm": "neutral",  # RAVDESS: the same sentence spoken calmly; acoustically next to neutral
    "happy": "happiness",
    "happiness": "happiness",
    "joy": "happiness",
    "sad": "sadness",
    "sadness": "sadness",
    "angry": "anger",
    "anger": "anger",
    "fear": "fear",
    "fearful": "fear",
    "worried": "fear",
    "disgust": "disgust",
    "disgusted": "disgust",
    "contempt": "disgust",  # Ekman's nearest basic emotion; the head folds the eighth FER+ output here
    "surprise": "surprise",
    "surprised": "surprise",
}


def to_ekman(name: str, *, where: str = "label") -> str:
    """Map a corpus label name to the default set. Raises DataError for a name no corpus here uses."""
    try:
        return _SYNONYMS[name.strip().lower()]
    except KeyError:
        raise DataError(f"{where}: unknown label {name!r}; known: {', '.join(sorted(_SYNONYMS))}") from None


def fold(
    probs: NDArray[np.floating], source: Sequence[str], target: Sequence[str] = EKMAN
) -> NDArray[np.float32]:
    """Sum ``float[..., len(source)]`` into ``float32[..., len(target)]`` by name or synonym.

    Raises DataError when a source label has no place in the target set.
    """
    out = np.zeros((*probs.shape[:-1], len(target)), np.float32)
    for column, name in enumerate(source):
        mapped = name if name in target else _SYNONYMS.get(name, name)
        if mapped not in target:
            raise DataError(f"label {name!r} has no place in {list(target)}")
        out[..., list(target).index(mapped)] += probs[..., column]
    return out


def opinions(labels: Sequence[str]) -> NDArray[np.float32] | None:
    """How a head with ``labels`` reads a branch's probabilities: float32[7, len(labels)] to multiply EKMAN's with.

    Several of its labels that mean the same emotion share that emotion's probability; what has no place among its
    labels is left out (``opinion`` makes the rest sum to 1). None when one of its labels has no counterpart in EKMAN,
    "bored" for example: a partial opinion would always speak against that label, so such a head reads embeddings only.
    """
    places = [_SYNONYMS.get(name.strip().lower()) for name in labels]
    if None in places:
        return None
    matrix = np.array([[place == emotion for place in places] for emotion in EKMAN], np.float32)
    return matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1.0)


def opinion(
    probs: NDArray[np.floating], matrix: NDArray[np.float32] | None, floor: float
) -> NDArray[np.float32] | None:
    """log-probabilities float32[..., labels] of probabilities float[..., 7] through ``opinions``; None for None."""
    if matrix is None:
        return None
    shared = np.maximum(probs @ matrix, floor)
    return np.log(shared / shared.sum(axis=-1, keepdims=True)).astype(np.float32)
