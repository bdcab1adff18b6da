"""The head's loop: starts as the product of experts, resumes exactly, is calibrated, runs in an engine as in torch."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from synthetic import EVEN, LABELS, pools

from ecmf.cue import MODALITIES, Cue
from ecmf.fusion import EcmfHead
from ecmf.head import FusionHead
from train import fit_head
from train.evaluate_head import own_priors, predict, product_of_experts, scores
from train.fit_head import FitOptions, calibrate, export_head, tensors, train_head
from train.pairing import PairingOptions, draw

NAMES = ("calm", "bored", "thrilled")
CLEAN = PairingOptions(conflict=0.0, noise=0.0, faded=0.0, scene=1.0)
OPTIONS = FitOptions(steps=250, batch=128, pairing=CLEAN, calibration=4000)
FIT, TEST = pools(1), pools(2)
DIMS = {m: FIT[m].embedding.shape[1] for m in MODALITIES}


@pytest.fixture(scope="module")
def head() -> EcmfHead:
    return train_head(FIT, NAMES, EVEN, OPTIONS)


def test_an_untrained_head_is_the_product_of_experts() -> None:
    torch.manual_seed(0)
    fresh = EcmfHead(DIMS, LABELS).eval()
    batch = draw(TEST, LABELS, 200, np.random.default_rng(0), CLEAN, prior=EVEN, subset=frozenset(MODALITIES))
    batch.quality[batch.quality > 0] = 1.0
    product = product_of_experts(batch, EVEN, dict.fromkeys(("face", "voice", "text"), EVEN))
    np.testing.assert_allclose(predict(fresh, batch)[0], product, atol=2e-3)


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
    options = dataclasses.replace(OPTIONS, steps=520, batch=16)
    whole = train_head(FIT, NAMES, EVEN, options)

    real, calls = fit_head.draw, 0

    def dies(*args: object, **more: object) -> object:
        nonlocal calls
        calls += 1
        if calls > 510:
            raise KeyboardInterrupt
        return real(*args, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(fit_head, "draw", dies)
    with pytest.raises(KeyboardInterrupt):
        train_head(FIT, NAMES, EVEN, options, tmp_path / "head.pt")
    calls = 0
    resumed = train_head(FIT, NAMES, EVEN, options, tmp_path / "head.pt")
    assert calls == 20  # from step 500 on
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_a_checkpoint_of_other_options_is_left_aside(tmp_path: Path) -> None:
    few = dataclasses.replace(OPTIONS, steps=20, batch=16)
    train_head(FIT, NAMES, EVEN, few, tmp_path / "head.pt")
    other = dataclasses.replace(few, seed=1)
    found = train_head(FIT, NAMES, EVEN, other, tmp_path / "head.pt")
    fresh = train_head(FIT, NAMES, EVEN, other)
    assert torch.equal(found.read.weight, fresh.read.weight)


def test_calibration_mends_overconfidence(head: EcmfHead) -> None:
    sure = train_head(FIT, NAMES, EVEN, dataclasses.replace(OPTIONS, steps=1))
    sure.load_state_dict(head.state_dict())
    with torch.no_grad():
        sure.temperature[0] = -1.5  # logits times 4.5
    batch = draw(TEST, LABELS, 3000, np.random.default_rng(8), CLEAN, prior=EVEN, subset=frozenset({"text"}))
    before = scores(predict(sure, batch)[0], batch.target)
    calibrate(sure, TEST, NAMES, EVEN, OPTIONS)
    after = scores(predict(sure, batch)[0], batch.target)
    assert before["ece"] > 0.15
    assert after["ece"] < 0.06
    assert after["accuracy"] == before["accuracy"]


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
