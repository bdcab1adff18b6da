"""The head's loop: starts as the product of experts, resumes exactly, is calibrated, runs in an engine as in torch."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from synthetic import EVEN, LABELS, pools

from ecmf.bundle import SHIPPED
from ecmf.cue import MODALITIES, Cue, Modality
from ecmf.fusion import FADED, EcmfHead, HeadOptions
from ecmf.head import FusionHead
from train import descent, fit_head
from train.calibrate_head import FOLDS, calibrate_across, split_people
from train.evaluate_head import attainable, own_priors, predict, product_of_experts
from train.fit_head import FitOptions, calibrate_on, export_head, start, tensors, train_head
from train.pairing import TRUST, Batch, PairingOptions, draw
from train.scores import scores

NAMES = ("calm", "bored", "thrilled")
CLEAN = PairingOptions(conflict=0.0, noise=0.0, faded=0.0, scene=1.0)
OPTIONS = FitOptions(steps=250, batch=128, pairing=CLEAN, calibration=4000)
FIT, TEST = pools(1), pools(2)
CONTEXT: tuple[Modality, ...] = ("scene",)
DIMS = {m: FIT[m].embedding.shape[1] for m in MODALITIES}


@pytest.fixture(scope="module")
def head() -> EcmfHead:
    return train_head(FIT, NAMES, EVEN, OPTIONS)


def one(modality: str, probs: np.ndarray, quality: float = 1.0) -> dict[str, tuple[np.ndarray, float]]:
    return {modality: (probs, quality)}


def asked(head: EcmfHead, cues: dict[str, tuple[np.ndarray, float]]) -> tuple[np.ndarray, dict[str, float]]:
    """Probabilities and weights of a head for opinions alone: every embedding is zero."""
    log_probs = np.zeros((1, len(MODALITIES), LABELS), np.float32)
    quality = np.zeros((1, len(MODALITIES)), np.float32)
    for modality, (probs, trust) in cues.items():
        log_probs[0, MODALITIES.index(modality)] = np.log(probs)  # type: ignore[arg-type]
        quality[0, MODALITIES.index(modality)] = trust  # type: ignore[arg-type]
    empty = {m: np.zeros((1, size), np.float32) for m, size in DIMS.items()}
    found, weights = predict(head, Batch(empty, log_probs, quality, np.zeros(1, np.int64)))
    return found[0], dict(zip(MODALITIES, weights[0].tolist(), strict=True))


def untrained(conflict: float) -> EcmfHead:
    torch.manual_seed(0)
    sizes = {str(m): size for m, size in DIMS.items()}
    fresh = EcmfHead(sizes, LABELS).eval()
    even = {m: dataclasses.replace(p, labels=np.arange(len(p)) % LABELS) for m, p in FIT.items()}
    start(fresh, even, EVEN, PairingOptions(conflict=conflict, conflict_neutral=0.0))
    return fresh


SURE = {label: np.where(np.arange(LABELS) == label, 0.9, 0.05) for label in range(LABELS)}


def test_an_untrained_head_without_doubt_is_the_product_of_experts() -> None:
    batch = draw(TEST, LABELS, 400, np.random.default_rng(0), CLEAN, prior=EVEN, subset=frozenset(MODALITIES))
    batch.quality[batch.quality > 0] = 1.0
    product = product_of_experts(batch, EVEN, dict.fromkeys(("face", "voice", "text"), EVEN))
    fresh = untrained(0.0)
    doubtful = predict(fresh, batch)[0]
    assert (doubtful.argmax(axis=1) == product.argmax(axis=1)).mean() > 0.97
    with torch.no_grad():
        fresh.doubt.fill_(-20.0)
    np.testing.assert_allclose(predict(fresh, batch)[0], product, atol=2e-3)


def test_cues_that_agree_strengthen_each_other_and_one_that_contradicts_falls_silent() -> None:
    head = untrained(0.5)
    alone, _ = asked(head, one("face", SURE[1]))
    agreeing, even = asked(head, one("face", SURE[1]) | one("voice", SURE[1]))
    contradicting, uneven = asked(head, one("face", SURE[1]) | one("voice", SURE[2]))
    assert agreeing[1] > alone[1] + 0.05
    assert contradicting.argmax() == 1 and contradicting[1] > 0.6
    assert uneven["voice"] < 0.75 * even["voice"] and uneven["face"] > even["face"]


def test_a_cue_that_says_nothing_weighs_next_to_nothing_and_changes_nothing() -> None:
    head = untrained(0.2)
    before, _ = asked(head, one("face", SURE[1]))
    after, weights = asked(head, one("face", SURE[1]) | one("text", EVEN))
    np.testing.assert_allclose(after, before, atol=1e-3)
    assert weights["text"] < 0.1 < 0.9 < weights["face"]


def test_quality_lowers_a_weight_without_a_jump_down_to_nothing(head: EcmfHead) -> None:
    face = one("face", SURE[1])
    steps = [asked(head, face | one("voice", SURE[1], q)) for q in (*np.linspace(1, 0.001, 400), 0.0)]
    weights = np.array([weights["voice"] for _, weights in steps])
    assert (np.diff(weights) <= 1e-6).all() and weights[0] > 0.2 and weights[-2] < 0.01 and weights[-1] == 0
    assert np.abs(np.diff(weights)).max() < 0.02
    assert np.abs(np.diff([probs for probs, _ in steps], axis=0)).max() < 0.02


def test_what_is_attainable_is_the_product_without_conflict_and_more_with_it() -> None:
    own = own_priors(FIT, LABELS)
    clean = draw(TEST, LABELS, 500, np.random.default_rng(1), CLEAN, prior=EVEN, subset=frozenset(MODALITIES))
    np.testing.assert_allclose(
        attainable(clean, EVEN, own, CLEAN), product_of_experts(clean, EVEN, own), atol=1e-6
    )
    conflicting = dataclasses.replace(CLEAN, conflict=1.0)
    batch = draw(
        TEST, LABELS, 3000, np.random.default_rng(2), conflicting, prior=EVEN, subset=frozenset(MODALITIES)
    )
    best = scores(attainable(batch, EVEN, own, conflicting), batch.target)["weighted_f1"]
    assert best > scores(product_of_experts(batch, EVEN, own), batch.target)["weighted_f1"] + 0.02


def test_a_trained_head_comes_near_the_best_possible(head: EcmfHead) -> None:
    batch = draw(
        TEST, LABELS, 3000, np.random.default_rng(5), CLEAN, prior=EVEN, subset=frozenset(MODALITIES)
    )
    best = scores(product_of_experts(batch, EVEN, own_priors(FIT, LABELS)), batch.target)["weighted_f1"]
    found = scores(predict(head, batch)[0], batch.target)["weighted_f1"]
    assert best > 0.75
    assert found > best - 0.02


def test_weights_sum_to_one_over_what_is_present(head: EcmfHead) -> None:
    batch = draw(TEST, LABELS, 200, np.random.default_rng(6), PairingOptions(), prior=EVEN)
    _, weights = predict(head, batch)
    np.testing.assert_allclose(weights.sum(axis=1), 1.0, atol=1e-5)
    assert (weights[batch.quality == 0] == 0).all()


def test_absent_cues_do_not_matter(head: EcmfHead) -> None:
    batch = draw(TEST, LABELS, 50, np.random.default_rng(7), CLEAN, prior=EVEN, subset=frozenset({"voice"}))
    before = predict(head, batch)[0]
    for modality in ("face", "scene", "text"):
        batch.cues[modality][:] = np.random.default_rng(0).normal(0, 50, batch.cues[modality].shape)
    np.testing.assert_allclose(predict(head, batch)[0], before, atol=1e-6)


def test_a_killed_run_resumes_to_the_same_head(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(descent, "MOST_STEPS", 20)
    options = dataclasses.replace(OPTIONS, steps=55, batch=16)
    whole = train_head(FIT, NAMES, EVEN, options)

    real, calls = fit_head.draw, 0

    def dies(*args: object, **more: object) -> object:
        nonlocal calls
        calls += 1
        if calls > 50:
            raise KeyboardInterrupt
        return real(*args, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(fit_head, "draw", dies)
    with pytest.raises(KeyboardInterrupt):
        train_head(FIT, NAMES, EVEN, options, tmp_path / "head.pt")
    calls = 0
    resumed = train_head(FIT, NAMES, EVEN, options, tmp_path / "head.pt")
    assert calls == 15  # from step 40 on
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_a_checkpoint_of_other_options_is_left_aside(tmp_path: Path) -> None:
    few = dataclasses.replace(OPTIONS, steps=20, batch=16)
    train_head(FIT, NAMES, EVEN, few, tmp_path / "head.pt")
    other = dataclasses.replace(few, seed=1)
    found = train_head(FIT, NAMES, EVEN, other, tmp_path / "head.pt")
    fresh = train_head(FIT, NAMES, EVEN, other)
    assert torch.equal(found.weigh.weight, fresh.weigh.weight)


def test_calibration_mends_overconfidence(head: EcmfHead) -> None:
    sure = train_head(FIT, NAMES, EVEN, dataclasses.replace(OPTIONS, steps=1))
    sure.load_state_dict(head.state_dict())
    with torch.no_grad():
        sure.temperature[0] = -1.5  # logits times 4.5
    rng = np.random.default_rng(8)
    subset: frozenset[Modality] = frozenset({"text"})
    batch = draw(TEST, LABELS, 3000, rng, CLEAN, prior=EVEN, subset=subset)
    before = scores(predict(sure, batch)[0], batch.target)
    calibrate_on(sure, draw(TEST, LABELS, 3000, rng, CLEAN, prior=EVEN, subset=subset))
    after = scores(predict(sure, batch)[0], batch.target)
    assert before["ece"] > 0.15
    assert after["ece"] < 0.06
    assert after["accuracy"] == before["accuracy"]


def test_calibration_makes_a_head_that_is_too_unsure_surer(head: EcmfHead) -> None:
    unsure = train_head(FIT, NAMES, EVEN, dataclasses.replace(OPTIONS, steps=1))
    unsure.load_state_dict(head.state_dict())
    with torch.no_grad():
        unsure.read.weight.zero_()  # type: ignore[union-attr]
        unsure.trust.fill_(-1.5)  # a fifth of what each branch says
    rng = np.random.default_rng(8)
    subset: frozenset[Modality] = frozenset({"text"})
    batch = draw(TEST, LABELS, 3000, rng, CLEAN, prior=EVEN, subset=subset)
    before = scores(predict(unsure, batch)[0], batch.target)
    calibrate_on(unsure, draw(TEST, LABELS, 3000, rng, CLEAN, prior=EVEN, subset=subset))
    after = scores(predict(unsure, batch)[0], batch.target)
    assert before["ece"] > 0.15
    assert after["ece"] < 0.06
    assert float(unsure.temperature.min()) < 0
    assert float(unsure.temperature[1]) == pytest.approx(FADED)  # of no cue at all


def test_nobody_calibrates_a_head_that_was_trained_on_them(tmp_path: Path) -> None:
    seen = set()
    for fold in range(FOLDS):
        rest, held = split_people(FIT, fold)
        for modality in MODALITIES:
            assert not set(rest[modality].group) & set(held[modality].group)
            assert len(rest[modality]) + len(held[modality]) == len(FIT[modality])
        seen |= set(held["face"].group)
    assert seen == set(FIT["face"].group)
    few = dataclasses.replace(OPTIONS, steps=60, calibration=4200)
    fitted = train_head(FIT, NAMES, EVEN, few)
    calibrate_across(fitted, FIT, NAMES, EVEN, few, tmp_path / "head.pt")
    assert len(list(tmp_path.glob("fold-*.pt"))) == FOLDS
    asked_of: tuple[tuple[Modality, ...], ...] = (("face",), ("voice",), ("text",), ("face", "voice", "text"))
    for subset in asked_of:
        batch = draw(
            TEST, LABELS, 3000, np.random.default_rng(9), CLEAN, prior=EVEN, subset=frozenset(subset)
        )
        assert scores(predict(fitted, batch)[0], batch.target)["ece"] < 0.05


def test_the_bundle_runs_in_the_engine_as_in_torch(head: EcmfHead, tmp_path: Path) -> None:
    sample = draw(TEST, LABELS, 5, np.random.default_rng(3), PairingOptions(), prior=EVEN)
    bundle = export_head(
        head, tmp_path / "mine", NAMES, DIMS,
        version="1", licence="none", training_data=[], metrics={}, extra={}, card="card\n", sample=sample,
    )  # fmt: skip
    fusion = FusionHead(bundle)
    inputs, _ = tensors(draw(TEST, LABELS, 40, np.random.default_rng(4), PairingOptions(), prior=EVEN))
    with torch.no_grad():
        logits, weights = head(**inputs)
    outputs = fusion.engine.run({name: value.numpy() for name, value in inputs.items()})
    np.testing.assert_allclose(outputs["logits"], logits.numpy(), atol=1e-4)
    np.testing.assert_allclose(outputs["weights"], weights.numpy(), atol=1e-4)
    assert bundle.manifest.labels == NAMES


def test_labels_without_a_counterpart_leave_opinions_out_but_give_an_estimate(
    head: EcmfHead, tmp_path: Path
) -> None:
    sample = draw(TEST, LABELS, 5, np.random.default_rng(3), CLEAN, prior=EVEN)
    bundle = export_head(
        head, tmp_path / "mine", NAMES, DIMS,
        version="1", licence="none", training_data=[], metrics={}, extra={"modalities": ["face", "scene"]},
        card="card\n", sample=sample,
    )  # fmt: skip
    fusion = FusionHead(bundle)
    happy = np.eye(7, dtype=np.float32)[1]
    face = Cue("face", 0, FIT["face"].embedding[0], happy, 0, 0, 0.9)
    fused = fusion.fuse({"face": face}, 0)
    assert fused is not None and fused.probs.shape == (3,) and fused.probs.sum() == pytest.approx(1, abs=1e-5)
    other = fusion.fuse({"face": dataclasses.replace(face, probs=np.eye(7, dtype=np.float32)[2])}, 0)
    assert other is not None and (other.probs == fused.probs).all()
    untrained = Cue("text", 0, FIT["text"].embedding[0], happy, 0, 0, 0.9)
    assert fusion.fuse({"text": untrained}, 0) is None
    both = fusion.fuse({"face": face, "text": untrained}, 0)
    assert both is not None and set(both.weights) == {"face"}


def test_a_cue_that_is_alone_leaves_what_its_branch_says_however_it_fades() -> None:
    opinions_alone = dataclasses.replace(OPTIONS, head=HeadOptions(read_alone=()), steps=40)
    trained = train_head(FIT, NAMES, EVEN, opinions_alone)
    own = own_priors(FIT, LABELS)
    for modality in TRUST:
        for present in (frozenset({modality}), frozenset({modality, *CONTEXT})):
            batch = draw(TEST, LABELS, 300, np.random.default_rng(1), CLEAN, prior=EVEN, subset=present)
            expected = product_of_experts(batch, EVEN, own)
            batch.quality[batch.quality > 0] = 1.0
            np.testing.assert_allclose(predict(trained, batch)[0], expected, atol=1e-5)
            batch.quality[batch.quality > 0] = 0.2
            faded = predict(trained, batch)[0]
            assert (faded.argmax(axis=1) == expected.argmax(axis=1)).all()
            assert faded.max(axis=1).mean() < expected.max(axis=1).mean()


def test_the_graph_stays_small_enough_to_be_run_many_times_a_second() -> None:
    onnx = pytest.importorskip("onnx")
    assert len(onnx.load(SHIPPED / "default" / "model.onnx").graph.node) <= 105
