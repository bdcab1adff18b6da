import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecmf.labels import EKMAN
from ecmf.smoothing import Smoother, SmoothingOptions

S = 1_000_000_000


def one_hot(index: int, p: float = 1.0) -> np.ndarray:
    probs = np.full(len(EKMAN), (1 - p) / (len(EKMAN) - 1))
    probs[index] = p
    return probs


@given(st.lists(st.floats(0.001, 0.3), min_size=1, max_size=40))
def test_a_step_follows_the_time_constant_at_any_message_rate(steps: list[float]) -> None:
    smoother = Smoother(EKMAN, SmoothingOptions(tau_s=0.25))
    smoother.update(one_hot(0), 0)
    elapsed = 0.0
    for step in steps:
        elapsed += step
        smoothed, _ = smoother.update(one_hot(1), round(elapsed * S))
    assert smoothed[1] == pytest.approx(1 - math.exp(-elapsed / 0.25), abs=1e-4)
    assert smoothed.sum() == pytest.approx(1, abs=1e-5)


def test_label_is_held_until_the_margin_is_passed() -> None:
    smoother = Smoother(EKMAN, SmoothingOptions(tau_s=0.25, margin=0.1))
    assert smoother.update(one_hot(0, 0.5), 0)[1] == "neutral"
    close = np.array([0.44, 0.5, 0.06, 0, 0, 0, 0])
    assert smoother.update(close, 100 * S)[1] == "neutral"
    clear = np.array([0.4, 0.54, 0.06, 0, 0, 0, 0])
    assert smoother.update(clear, 200 * S)[1] == "happiness"


def test_time_that_runs_backwards_changes_nothing() -> None:
    smoother = Smoother(EKMAN)
    first, _ = smoother.update(one_hot(0), 5 * S)
    second, _ = smoother.update(one_hot(1), 4 * S)
    assert np.array_equal(first, second)


def test_reset_forgets() -> None:
    smoother = Smoother(EKMAN)
    smoother.update(one_hot(0), S)
    smoother.reset()
    smoothed, label = smoother.update(one_hot(1), 0)
    assert label == "happiness" and smoothed[1] == 1
