import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecmf.labels import EKMAN
from ecmf.smoothing import Smoother, SmoothingOptions

S = 1_000_000_000
NEUTRAL, HAPPINESS, SADNESS = 0, 1, 2


def one_hot(index: int, p: float = 1.0) -> np.ndarray:
    probs = np.full(len(EKMAN), (1 - p) / (len(EKMAN) - 1))
    probs[index] = p
    return probs


def fed(smoother: Smoother, probs: np.ndarray, begin_s: float, end_s: float, rate: float = 15.0) -> list[str]:
    """Labels while ``probs`` comes in at ``rate`` from ``begin_s`` to ``end_s``."""
    times = np.arange(begin_s, end_s, 1 / rate)
    return [smoother.update(probs, round(t * S))[1] for t in times]


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


@pytest.mark.parametrize("rate", [5.0, 15.0, 60.0])
def test_clear_evidence_turns_the_label_within_400_ms(rate: float) -> None:
    smoother = Smoother(EKMAN)
    assert set(fed(smoother, one_hot(NEUTRAL, 0.95), 0, 3, rate)) == {"neutral"}
    labels = fed(smoother, one_hot(HAPPINESS, 0.95), 3, 5, rate)
    assert labels.index("happiness") / rate <= 0.4
    assert set(labels[labels.index("happiness") :]) == {"happiness"}


def test_doubtful_evidence_turns_the_label_only_when_it_lasts() -> None:
    smoother = Smoother(EKMAN)
    fed(smoother, one_hot(NEUTRAL, 0.6), 0, 3)
    doubtful = one_hot(HAPPINESS, 0.5)
    assert set(fed(smoother, doubtful, 3, 3.3)) == {"neutral"}
    assert set(fed(smoother, one_hot(NEUTRAL, 0.6), 3.3, 5)) == {"neutral"}
    assert fed(smoother, doubtful, 5, 8)[-1] == "happiness"


def test_a_flicker_between_two_labels_leaves_the_label() -> None:
    smoother, labels = Smoother(EKMAN), []
    close = (np.array([0.44, 0.36, 0.2, 0, 0, 0, 0]), np.array([0.38, 0.44, 0.18, 0, 0, 0, 0]))
    for frame in range(600):
        labels.append(smoother.update(close[frame // 3 % 2], frame * S // 15)[1])
    assert set(labels) == {"neutral"}


def test_the_mean_keeps_the_confidence_of_what_it_is_fed() -> None:
    smoother = Smoother(EKMAN)
    fed(smoother, one_hot(SADNESS, 0.6), 0, 60)
    smoothed, _ = smoother.update(one_hot(SADNESS, 0.6), 61 * S)
    assert smoothed[SADNESS] == pytest.approx(0.6, abs=1e-3)


def test_a_turn_from_one_clear_emotion_to_another_stays_sure() -> None:
    smoother = Smoother(EKMAN)
    for frame in range(90):
        probs = one_hot(SADNESS if frame < 45 else HAPPINESS, 0.9)
        smoothed, _ = smoother.update(probs, frame * S // 15)
        assert smoother.sure(0.5)
        if frame == 47:
            assert smoothed.max() < 0.6  # half way: neither of the two
    fed(smoother, one_hot(SADNESS, 0.3), 6, 9)
    assert not smoother.sure(0.5) and smoother.sure(0.0)


def test_confidence_at_the_threshold_does_not_flicker() -> None:
    smoother = Smoother(EKMAN, SmoothingOptions(tau_s=0.01))
    rng, said = np.random.default_rng(0), []
    for frame in range(300):
        smoother.update(one_hot(NEUTRAL, 0.4 + rng.uniform(-0.025, 0.025)), frame * S // 15)
        said.append(smoother.sure(0.4))
    assert len(set(said)) == 1


def test_time_that_runs_backwards_changes_nothing() -> None:
    smoother = Smoother(EKMAN)
    first, _ = smoother.update(one_hot(0), 5 * S)
    second, label = smoother.update(one_hot(1), 4 * S)
    assert np.array_equal(first, second) and label == "neutral"


def test_reset_forgets() -> None:
    smoother = Smoother(EKMAN)
    smoother.update(one_hot(0), S)
    smoother.reset()
    smoothed, label = smoother.update(one_hot(1), 0)
    assert label == "happiness" and smoothed[1] == 1


def test_after_a_long_gap_the_label_is_not_held_on_to() -> None:
    smoother = Smoother(EKMAN)
    fed(smoother, one_hot(SADNESS, 0.9), 0, 3)
    assert smoother.update(one_hot(HAPPINESS, 0.6), 9 * S)[1] == "happiness"
