"""Kinds of fields that messages have, and the checks that a struct makes of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated

from ecmf.errors import need

need("msgspec", "live")

from msgspec import Meta  # noqa: E402  (its absence has been said in one clear line)

SUM_TOLERANCE = 1e-3
"""How far probabilities or weights may be from summing to 1: room for rounding, not for mistakes."""

Unit = Annotated[float, Meta(ge=0, le=1)]
Count = Annotated[int, Meta(ge=0)]
Positive = Annotated[float, Meta(ge=0)]
Probabilities = dict[str, Unit]
Reason = Annotated[str, Meta(pattern="^[a-z][a-z0-9_]*$")]
"""A word for machines: no_person, starting, stale, low_confidence; for a modality also off, no_face …"""


def finite(name: str, value: float, low: float = -math.inf) -> None:
    """Raises ValueError for a number that is not finite, or under ``low``."""
    if not math.isfinite(value) or value < low:
        raise ValueError(f"{name} is {value}")


def unit(name: str, value: float) -> None:
    """Raises ValueError for a number outside of [0, 1]."""
    if not 0 <= value <= 1:
        raise ValueError(f"{name} is {value}, expected 0 to 1")


def sums_to_one(name: str, probs: Mapping[str, float]) -> None:
    """Raises ValueError for what is not a distribution."""
    total = 0.0
    for value in probs.values():
        if not 0 <= value <= 1:
            raise ValueError(f"{name} is {dict(probs)}, expected values from 0 to 1")
        total += value
    if abs(total - 1) > SUM_TOLERANCE:
        raise ValueError(f"{name} sums to {total}, expected 1")
