"""The cue: what a branch says about one modality of one person, and when that was captured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Modality = Literal["face", "scene", "voice", "text"]
MODALITIES: tuple[Modality, ...] = ("face", "scene", "voice", "text")
"""In the order of the fusion head's tokens and of every per-modality array."""

Box = tuple[float, float, float, float]
"""x, y, width, height in pixels of the frame."""


@dataclass(frozen=True)
class Cue:
    """One branch's output for one capture interval."""

    modality: Modality
    person: int | None
    """Anonymous track id of this run; None where the cue belongs to no visible person (scene, a voice off camera)."""
    embedding: NDArray[np.float32]
    """float32[d], d fixed per branch."""
    probs: NDArray[np.float32] | None
    """float32[labels] in the branch's label order, calibrated, sums to 1; None for the scene, which is context only."""
    start_ns: int
    end_ns: int
    """Capture interval on the monotonic clock (of media time when annotating)."""
    quality: float
    """In [0, 1]: how much this cue can be trusted; 0 means absent."""
    bbox: Box | None = None
    """Face box, for face cues."""
    words: str | None = None
    """Transcript the cue was read from, for text cues."""
    stage_ms: Mapping[str, float] = field(default_factory=dict)
    """Compute time per stage that led to this cue, milliseconds."""
