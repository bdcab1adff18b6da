"""Enrichment: a small local language model reads the last lines and adds emotional cues (ECMF, arXiv 2508.05991)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Enrichment:
    """What the language model adds to one utterance."""

    cues: str
    """Cue phrases from a fixed vocabulary, joined by commas; never words of the speaker."""
    scores: NDArray[np.float32]
    """float32[7], calibrated label probabilities in the order of EKMAN; sums to 1."""
