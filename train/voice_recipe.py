"""The knobs of `recipes/voice.toml`."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from ecmf.errors import UsageError
from train.options import read_toml

RECIPE = Path(__file__).parent / "recipes" / "voice.toml"


@dataclass(frozen=True)
class Recipe:
    """Every knob of `recipes/voice.toml`, where each has its comment."""

    version: str
    seed: int
    encoder: str
    layers: tuple[int, ...]
    takes: tuple[str, ...]
    clean_share: float
    cold_share: float
    short_share: float
    states: int
    members: int
    hidden: int
    embedding: int
    dropout: float
    epochs: int
    batch: int
    learning_rate: float
    weight_decay: float
    label_smoothing: float
    held_out: tuple[str, ...]

    @property
    def hears_prompts(self) -> bool:
        """Whether ordinary speech belongs to its data: it holds one of its voices back."""
        return any(speaker.startswith("prompts-") for speaker in self.held_out)


def read_recipe(path: Path) -> Recipe:
    """Raises UsageError naming an unknown or missing key."""
    raw = read_toml(path)
    known = {field.name for field in fields(Recipe)}
    if raw.keys() != known:
        odd = sorted(raw.keys() ^ known)[0]
        raise UsageError(
            f"{path}: {'unknown' if odd in raw else 'missing'} key {odd!r}; expected {sorted(known)}"
        )
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in raw.items()}
    return Recipe(**values)
