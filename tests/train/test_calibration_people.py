"""Who calibrates a head on clips where nobody has the split valid."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from train import fit_folder
from train.clip_samples import Samples
from train.pairing import Batch


def samples(speaker: list[str], target: list[int], split: list[str] | None = None) -> Samples:
    count = len(speaker)
    cues = {m: np.zeros((count, 1), np.float32) for m in ("face", "scene", "voice", "text")}
    batch = Batch(
        cues,  # type: ignore[arg-type]
        np.zeros((count, 4, 2), np.float32),
        np.ones((count, 4), np.float32),
        np.array(target),
    )
    where = np.array(split or ["train"] * count)
    return Samples(batch, np.arange(count), where, frozenset({"voice"}), "", np.array(speaker))


def people(found: Samples, rows: NDArray[np.bool_]) -> set[str]:
    return set(found.speaker[rows].tolist())


def test_a_fifth_of_the_people_is_set_aside_with_all_their_clips() -> None:
    found = samples([f"p{n // 6}" for n in range(60)], [n % 2 for n in range(60)])
    held = fit_folder.held_out(found, 2, seed=0)
    assert held.sum() == 12
    assert not people(found, held) & people(found, ~held)
    assert "on people that it was not trained on" in fit_folder.calibration(found, held)


def test_nobody_is_set_aside_who_alone_has_a_label() -> None:
    found = samples(["rare", *[f"p{n}" for n in range(4)] * 4], [1, *[0] * 16])
    for seed in range(20):
        held = fit_folder.held_out(found, 2, seed)
        assert held.any() and "rare" not in people(found, held)


def test_one_person_is_calibrated_on_other_clips_and_the_card_says_so() -> None:
    found = samples(["me"] * 20, [n % 2 for n in range(20)])
    held = fit_folder.held_out(found, 2, seed=0)
    assert held.sum() == 4
    assert "of the same people" in fit_folder.calibration(found, held)


def test_too_few_clips_calibrate_nothing() -> None:
    found = samples(["a", "b"], [0, 1])
    held = fit_folder.held_out(found, 2, seed=0)
    assert not held.any() and fit_folder.calibration(found, held).startswith("Not calibrated")


def test_valid_clips_come_first_and_test_clips_never() -> None:
    split = ["train"] * 8 + ["valid"] * 2 + ["test"] * 2
    found = samples([f"p{n}" for n in range(12)], [n % 2 for n in range(12)], split)
    np.testing.assert_array_equal(fit_folder.held_out(found, 2, 0), found.split == "valid")
    found = samples([f"p{n}" for n in range(12)], [n % 2 for n in range(12)], ["train"] * 8 + ["test"] * 4)
    assert set(found.split[fit_folder.held_out(found, 2, 0)]) == {"train"}
