"""The text branch's recipe."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ecmf.errors import UsageError
from train.options import filled, read_toml

RECIPE = Path(__file__).parent / "recipes" / "text.toml"


@dataclass(frozen=True)
class Stage:
    data: tuple[str, ...]
    """goemotions, meld or both."""
    epochs: int
    """Epochs over which the learning rate falls to 0."""
    batch: int
    learning_rate: float
    stop_after: int | None = None
    """End after so many epochs; the average of the weights makes up for the rate that is left."""
    share: float = 1.0
    """Share of GoEmotions used in this stage, drawn anew with the seed."""


@dataclass(frozen=True)
class Recipe:
    name: str
    version: str
    seed: int
    dropout: float
    label_smoothing: float
    weight_decay: float
    stage: tuple[Stage, ...]
    averaging: float = 0.995
    """Decay per step of the running average of the weights that is kept."""


def read_recipe(path: Path) -> Recipe:
    """Raises UsageError naming a file that is missing, or an unknown or missing key."""
    raw = read_toml(path)
    try:
        stages = tuple(
            filled(Stage, {**stage, "data": tuple(stage["data"])}, f"{path} [[stage]]")
            for stage in raw.pop("stage")
        )
        return filled(Recipe, raw, str(path), stage=stages)
    except (KeyError, TypeError) as error:
        raise UsageError(f"{path} is not a text recipe: {error}") from None
