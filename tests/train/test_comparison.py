"""The comparison: where the truth is known, the product of experts wins and the rows say what they should."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from synthetic import EVEN, LABELS, pools

from ecmf.cue import MODALITIES, Modality
from train import baselines, compare
from train.evaluate_head import own_priors
from train.fit_head import FitOptions, tensors
from train.methods import Method, Predictor, hide
from train.pairing import PairingOptions, Pool, draw
from train.scores import scores

Pools = Mapping[Modality, Pool]
Prior = NDArray[np.float64]
CLEAN = PairingOptions(conflict=0.0, noise=0.0, faded=0.0, scene=1.0)
FIT = FitOptions(steps=25, batch=64, pairing=PairingOptions())
DATA = compare.Data(pools(3, 300), pools(4, 300), None)


def test_every_method_has_a_value_in_every_condition_it_can_serve() -> None:
    found = compare.compare(DATA, LABELS, EVEN, FIT, seeds=2, draws=300)
    assert len(found) == 14 + 3  # the stated shares of conflict: 30 % is also what is trained with
    trained = {method.name for method in compare.METHODS}
    everything = found["face+scene+voice+text"]
    assert set(everything) == trained | set(compare.UNTRAINED)
    assert set(found["face"]) == (trained | set(compare.UNTRAINED)) - {
        "ecmf, without face",
        "voice alone",
        "text alone",
    }
    for row in found.values():
        for value in row.values():
            assert 0 < value["mean"] <= 1 and value["ci95"] >= 0 and len(value["values"]) == 2
    assert everything["product of experts"]["mean"] > everything["text alone"]["mean"] + 0.1
    assert everything["ecmf"]["mean"] > everything["text alone"]["mean"] + 0.1


def test_baselines_ignore_absent_cues() -> None:
    dims: dict[str, int] = {m: DATA.fit[m].embedding.shape[1] for m in MODALITIES}
    batch = draw(
        DATA.test, LABELS, 20, np.random.default_rng(0), CLEAN, prior=EVEN, subset=frozenset({"voice"})
    )
    for kind in (baselines.MerAttention, baselines.Concatenation):
        head = kind(dims, LABELS, FIT.head).eval()
        before = head(**tensors(batch)[0])[0].detach().numpy()
        noisy = {m: np.full_like(cue, 7.0) if m != "voice" else cue for m, cue in batch.cues.items()}
        after = head(**tensors(dataclasses.replace(batch, cues=noisy))[0])[0].detach().numpy()
        np.testing.assert_allclose(before, after, atol=1e-5)


def test_late_average_and_single_are_what_they_say() -> None:
    own = own_priors(DATA.fit, LABELS)
    batch = draw(
        DATA.test, LABELS, 50, np.random.default_rng(1), CLEAN, prior=EVEN, subset=frozenset({"face", "text"})
    )
    face, text = (baselines.single(batch, m, EVEN, own) for m in ("face", "text"))
    np.testing.assert_allclose(baselines.late_average(batch, EVEN, own), (face + text) / 2, atol=1e-9)
    voice = baselines.single(batch, "voice", EVEN, own)
    np.testing.assert_allclose(voice, np.tile(EVEN, (50, 1)))
    assert scores(face, batch.target)["weighted_f1"] > scores(text, batch.target)["weighted_f1"]


def test_hiding_a_modality_drops_what_had_nothing_else() -> None:
    batch = draw(DATA.test, LABELS, 200, np.random.default_rng(2), PairingOptions(), prior=EVEN)
    left = hide(batch, "face")
    index = MODALITIES.index("face")
    assert (
        not left.quality[:, index].any()
        and not left.cues["face"].any()
        and not left.log_probs[:, index].any()
    )
    alone = (batch.quality[:, [0, 2, 3]] > 0).sum(axis=1) == 1
    assert len(left.target) == 200 - int((alone & (batch.quality[:, index] > 0)).sum())


def test_intervals_are_students() -> None:
    assert compare.summary([0.5, 0.7])["ci95"] == pytest.approx(12.706 * 0.1414 / 2**0.5, abs=1e-3)
    assert compare.summary([0.5])["ci95"] is None


def test_the_table_says_that_pairs_show_no_gain() -> None:
    text = compare.table({"face": {"ecmf": compare.summary([0.5, 0.6])}}, ["ecmf", "other"])
    assert "| face | 55.0 ± 63.5 |  |" in text
    assert "cannot show a real cross-modal gain" in compare.CAVEAT


def test_gains_are_taken_seed_by_seed() -> None:
    ours = {"ecmf": compare.summary([0.9, 0.7]), "other": compare.summary([0.8, 0.6])}
    level = {"ecmf": compare.summary([0.9, 0.7]), "other": compare.summary([0.9, 0.7])}
    names = ("face+voice+text", "scene+face+voice+text", "face+voice", "face", "voice")
    results = {name: ours if name != "voice" else level for name in names} | {"conflict 30%": level}
    found = compare.gains(results, "ecmf", ["other"])
    assert found["0 missing"]["other"]["mean"] == pytest.approx(0.1)
    assert found["0 missing"]["other"]["ci95"] == pytest.approx(0, abs=1e-6)
    assert found["2 missing"]["other"]["mean"] == pytest.approx(0.05)


def test_a_killed_comparison_goes_on_with_the_next_seed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = dataclasses.replace(FIT, steps=3)
    ours = compare.METHODS[:2]
    first = compare.compare(DATA, LABELS, EVEN, few, seeds=1, draws=60, methods=ours, keep=tmp_path)
    trained: list[int] = []
    real = compare.trained

    def noted(method: Method, pools: Pools, labels: int, prior: Prior, fit: FitOptions) -> Predictor:
        trained.append(fit.seed)
        return real(method, pools, labels, prior, fit)

    monkeypatch.setattr(compare, "trained", noted)
    both = compare.compare(DATA, LABELS, EVEN, few, seeds=2, draws=60, methods=ours, keep=tmp_path)
    assert trained == [1, 1]
    assert both["face"]["ecmf"]["values"][:1] == first["face"]["ecmf"]["values"]
    (tmp_path / "seed-0.json").write_text("{}")
    again = compare.compare(DATA, LABELS, EVEN, few, seeds=1, draws=60, methods=ours, keep=tmp_path)
    assert trained == [1, 1, 0, 0] and again == first


def test_what_changes_a_figure_is_measured_anew_and_what_does_not_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = dataclasses.replace(FIT, steps=2)
    trained: list[int] = []
    real = compare.trained

    def noted(method: Method, pools: Pools, labels: int, prior: Prior, fit: FitOptions) -> Predictor:
        trained.append(fit.seed)
        return real(method, pools, labels, prior, fit)

    def measured(data: compare.Data, fit: FitOptions) -> int:
        trained.clear()
        compare.compare(
            data, LABELS, EVEN, fit, seeds=1, draws=60, methods=compare.METHODS[:1], keep=tmp_path
        )
        return len(trained)

    monkeypatch.setattr(compare, "trained", noted)
    faces = DATA.test["face"]
    paired = dataclasses.replace(DATA, paired_face=faces)
    assert measured(paired, few) == 1
    assert measured(paired, dataclasses.replace(few, calibration=7)) == 0
    other = dataclasses.replace(DATA, paired_face=faces.take(np.arange(len(faces))[::-1]))
    assert measured(other, few) == 1
    monkeypatch.setattr(compare, "VERSION", compare.VERSION + 1)
    assert measured(other, few) == 1
