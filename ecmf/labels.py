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


def fold(probs: NDArray[np.floating], source: Sequence[str], target: Sequence[str] = EKMAN) -> NDArray[np.float32]:
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
