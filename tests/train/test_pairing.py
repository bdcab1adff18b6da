"""Synthetic pairs: who is present, whose label counts, how much conflict there is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import EVEN, LABELS, pools

from ecmf.cue import MODALITIES
from ecmf.errors import DataError
from ecmf.head import FLOOR
from train.fit_head import subsets
from train.pairing import TRUST, PairingOptions, Pool, draw
from train.pools import cached, to_fit

CLEAN = PairingOptions(conflict=0.0, noise=0.0, faded=0.0, scene=1.0)
POOLS = pools(0)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from(sorted(map(sorted, subsets()))))
def test_exactly_the_asked_cues_are_present(seed: int, subset: list[str]) -> None:
    batch = draw(POOLS, LABELS, 40, np.random.default_rng(seed), CLEAN, prior=EVEN, subset=frozenset(subset))
    for index, modality in enumerate(MODALITIES):
        assert (batch.quality[:, index] > 0).all() == (modality in subset)
        if modality not in subset:
            assert not batch.cues[modality].any() and not batch.log_probs[:, index].any()


def test_without_conflict_every_cue_is_of_the_target() -> None:
    batch = draw(
        POOLS, LABELS, 300, np.random.default_rng(1), CLEAN, prior=EVEN, subset=frozenset(MODALITIES)
    )
    for modality in TRUST:
        for row in range(0, 300, 7):
            found = np.flatnonzero((POOLS[modality].embedding == batch.cues[modality][row]).all(axis=1))
            assert POOLS[modality].labels[found].tolist() == [batch.target[row]]


def test_conflict_spares_the_most_trusted_cue() -> None:
    options = PairingOptions(conflict=1.0, noise=0.0, faded=0.0, scene=0.0)
    batch = draw(
        POOLS,
        LABELS,
        2000,
        np.random.default_rng(2),
        options,
        prior=EVEN,
        subset=frozenset({"face", "voice"}),
    )

    def share(modality: str) -> float:
        own = {
            tuple(e): label
            for e, label in zip(POOLS[modality].embedding, POOLS[modality].labels, strict=True)
        }  # type: ignore[index]
        return float(
            np.mean([own[tuple(e)] == t for e, t in zip(batch.cues[modality], batch.target, strict=True)])
        )  # type: ignore[index]

    assert share("face") == 1.0
    # 70 % of the voices are drawn anew: 60 % of those neutral (label 0), the rest at random; a third of each agree.
    assert share("voice") == pytest.approx(0.3 + 0.7 / 3, abs=0.05)


def test_every_sample_has_a_cue_that_may_stand_alone() -> None:
    batch = draw(POOLS, LABELS, 3000, np.random.default_rng(3), PairingOptions(), prior=EVEN)
    trusted = batch.quality[:, [MODALITIES.index(m) for m in TRUST]] > 0
    assert trusted.any(axis=1).all()
    assert not trusted.all(axis=1).all()
    assert np.isfinite(batch.log_probs).all() and batch.log_probs.min() >= np.log(FLOOR) - 1e-6


def test_targets_follow_the_prior() -> None:
    prior = np.array([0.7, 0.2, 0.1])
    batch = draw(POOLS, LABELS, 5000, np.random.default_rng(4), CLEAN, prior=prior)
    assert np.bincount(batch.target) / 5000 == pytest.approx(prior, abs=0.03)


def test_a_label_without_a_sample_is_named() -> None:
    poor = {**POOLS, "voice": POOLS["voice"].take(POOLS["voice"].labels != 2)}
    with pytest.raises(DataError, match="voice: no sample with label number 2"):
        draw(poor, LABELS, 10, np.random.default_rng(0), CLEAN, prior=EVEN)
    fine = draw(poor, LABELS, 10, np.random.default_rng(0), CLEAN, prior=np.array([0.5, 0.5, 0.0]))
    assert set(fine.target) <= {0, 1}


def test_the_same_seed_draws_the_same_pairs() -> None:
    first, second = (
        draw(POOLS, LABELS, 50, np.random.default_rng(9), PairingOptions(), prior=EVEN) for _ in range(2)
    )
    assert all((first.cues[m] == second.cues[m]).all() for m in MODALITIES)
    assert (first.target == second.target).all() and (first.quality == second.quality).all()


def test_both_sides_hear_women_and_men() -> None:
    held_out = {"emodb-15": "M", "emodb-16": "F", "ravdess-21": "M", "ravdess-22": "F"}
    held_out |= {"ravdess-23": "M", "ravdess-24": "F"}
    fitted = to_fit(held_out)
    for side in (fitted, set(held_out) - fitted):
        assert len(side) == 3 and {held_out[name] for name in side} == {"F", "M"}


def test_of_several_processes_one_makes_a_pool_and_an_unchanged_one_is_not_made_again(tmp_path: Path) -> None:
    made = []

    def make() -> Pool:
        made.append(1)
        return pools(5, 30)["face"]

    first = cached(tmp_path, "face", ("branch",), make)
    again = cached(tmp_path, "face", ("branch",), make)
    other = cached(tmp_path, "face", ("another temperature",), make)
    assert len(made) == 2 and np.array_equal(first.embedding, again.embedding) and len(other) == 30
