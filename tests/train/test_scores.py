"""Intervals of scores are around the value, narrower with more samples and wider where few people gave them; how far
measurements lie apart."""

from __future__ import annotations

import numpy as np
import pytest

from train.evaluate_head import apart, brief
from train.scores import intervals, over_people


def test_intervals_hold_the_value_and_narrow_with_more_samples() -> None:
    table = np.array([[40, 10], [5, 45]])
    few, many = intervals(table), intervals(100 * table)
    for name, value in (("weighted_f1_95", 0.8496), ("uar_95", 0.85), ("accuracy_95", 0.85)):
        assert few[name][0] < value < few[name][1] and many[name][0] < value < many[name][1]
        assert 8 < (few[name][1] - few[name][0]) / (many[name][1] - many[name][0]) < 12, name


def test_intervals_over_people_are_wider_where_they_are_few() -> None:
    rng = np.random.default_rng(0)
    target = rng.integers(0, 2, 2000)
    hard = rng.random(20) < 0.3
    who = rng.integers(0, 20, 2000)
    guess = np.where(hard[who] & (rng.random(2000) < 0.8), 1 - target, target)
    people = np.stack([who, np.full(2000, -1)], axis=1)
    clustered = over_people(guess, target, people, 2)["accuracy_95"]
    counted = np.array([[((target == a) & (guess == b)).sum() for b in (0, 1)] for a in (0, 1)])
    independent = intervals(counted)["accuracy_95"]
    assert clustered[0] < (guess == target).mean() < clustered[1]
    assert clustered[1] - clustered[0] > 3 * (independent[1] - independent[0])


def test_a_measurement_differs_from_another_by_its_largest_gap() -> None:
    one = {"a": {"f1": 0.5, "confusion": [[1]]}, "of": "face", "edge": [0.1, 0.2]}
    assert apart(one, one) == 0
    assert apart(brief(one), {"a": {"f1": 0.5}, "of": "face", "edge": [0.1, 0.4]}) == pytest.approx(0.2)
    assert apart(one, brief(one)) == float("inf")
    assert apart(one, {**one, "of": "voice"}) == float("inf")
