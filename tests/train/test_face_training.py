"""The face network's training: augmentation, calibration, resuming, export."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ecmf.bundle import SHIPPED, load_bundle
from ecmf.engines.choose import open_engine
from ecmf.errors import UsageError
from ecmf.importers.torch_pickle import read_tensors
from ecmf.labels import FERPLUS
from train import calibrate_face, export_face, face_training, fit_face
from train.evaluate_face import seven, wilson
from train.face_augment import MIRRORED, Augmentation, augment
from train.face_crops import Cropper, Crops
from train.face_examples import Examples, Plan, Recipe, label_weights, recipe_from
from train.face_members import Members, weighted
from train.face_net import FaceNet
from train.face_residual import ResidualNet
from train.scores import calibration_error, softmax


def _examples(count: int, seed: int) -> Examples:
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 8, count)
    crops = Crops(
        rng.integers(0, 256, (count, 56, 56), np.uint8),
        rng.random((count, 52), np.float32),
        np.ones(count, np.float32),
    )
    return Examples(crops, np.eye(8, dtype=np.float32)[label], np.ones(count, np.float32), label)


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 2**31), size=st.sampled_from([32, 48, 80]))
def test_augmentation_keeps_ranges_and_repeats_with_its_seed(seed: int, size: int) -> None:
    part = _examples(6, seed).crops
    part.blendshapes[0] = 0

    def once() -> tuple[torch.Tensor, torch.Tensor]:
        rng, torch_rng = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
        return augment(part.face, part.blendshapes, size, Augmentation(), rng, torch_rng)

    face, shapes = once()
    assert face.shape == (6, 1, size, size)
    assert face.dtype == torch.float32
    assert 0 <= float(face.min()) <= float(face.max()) <= 255
    assert 0 <= float(shapes.min()) <= float(shapes.max()) <= 1
    assert not shapes[0].any(), "unknown blendshapes stay unknown"
    again = once()
    assert torch.equal(face, again[0])
    assert torch.equal(shapes, again[1])


def test_mirroring_swaps_left_and_right_blendshapes() -> None:
    from ecmf.branches.face.blendshapes import NAMES

    assert sorted(MIRRORED.tolist()) == list(range(52))
    np.testing.assert_array_equal(MIRRORED[MIRRORED], np.arange(52))
    assert MIRRORED[NAMES.index("mouthSmileLeft")] == NAMES.index("mouthSmileRight")
    assert MIRRORED[NAMES.index("jawOpen")] == NAMES.index("jawOpen")


def test_calibration_finds_the_temperature_that_was_lost() -> None:
    rng = np.random.default_rng(0)
    honest = rng.normal(0, 1.5, (6000, 8))
    probs = softmax(honest)
    truth = np.array([rng.choice(8, p=p) for p in probs])
    found = calibrate_face.fit(honest * 2.0, truth, np.ones(8))
    assert found.temperature == pytest.approx(2.0, rel=0.06)
    np.testing.assert_array_equal(found.bias, 0)
    assert calibration_error(probs, truth) < 0.02
    assert calibration_error(softmax(honest * 2), truth) > 0.1


def test_rare_labels_weigh_more_and_the_mean_weight_is_one() -> None:
    examples = _examples(500, 0)
    examples.target[:400] = np.eye(8, dtype=np.float32)[0]
    weights = label_weights(examples, 0.5)
    assert weights[0] == weights.min()
    assert (examples.target * weights).sum(1).mean() == pytest.approx(1.0, abs=1e-5)


def test_scores_of_a_known_table() -> None:
    happiness, disgust, contempt = (FERPLUS.index(k) for k in ("happiness", "disgust", "contempt"))
    truth = np.array([happiness, happiness, disgust, contempt])
    probs = np.eye(8)[[happiness, disgust, contempt, contempt]]
    table = seven(probs, truth)
    assert table["n"] == 3, "contempt has no place among the seven labels"
    assert table["accuracy"] == pytest.approx(2 / 3), "an answer of contempt counts as disgust"
    assert table["uar"] == pytest.approx(0.75)
    low, high = wilson(86, 100)
    assert (low, high) == (pytest.approx(0.7787, abs=1e-3), pytest.approx(0.9147, abs=1e-3))


def test_a_wrong_recipe_names_what_is_wrong() -> None:
    member = {"members": {"one": {"kind": "tuned"}}}
    with pytest.raises(UsageError, match="learning_rat"):
        recipe_from({"members": {"one": {"kind": "tuned", "learning_rat": 1e-3}}})
    with pytest.raises(UsageError, match="flip"):
        recipe_from({**member, "augmentation": {"flip": 1.0}})
    with pytest.raises(UsageError, match="no members"):
        recipe_from({"seed": 1})
    with pytest.raises(UsageError, match=r"members\.one\.kind is 'oracle'"):
        recipe_from({"members": {"one": {"kind": "oracle"}}})


@pytest.fixture(scope="module")
def pretrained(weight: Callable[[str], Path]) -> dict[str, np.ndarray]:
    return read_tensors(weight("efficientnet-lite0"))


def test_the_network_starts_from_imagenet(
    pretrained: dict[str, np.ndarray], weight: Callable[[str], Path]
) -> None:
    """The first stages must give what the scene branch's own import of the same weights gives."""
    net = FaceNet(64, 0.0).eval()
    net.start_from(pretrained)
    stem = net.frozen[0][-3] if not isinstance(net.frozen[0][-1], torch.nn.Conv2d) else net.frozen[0][-1]
    assert isinstance(stem, torch.nn.Conv2d)
    expected = pretrained["_conv_stem.weight"].sum(axis=1, keepdims=True)
    np.testing.assert_allclose(stem.weight.detach().numpy(), expected, atol=1e-6)
    last = net.tuned[-2].depthwise[-2]
    np.testing.assert_array_equal(last.running_mean.numpy(), pretrained["_blocks.13._bn1.running_mean"])


TUNED = Plan("tuned", inner=32, epochs=2)
RESIDUAL = Plan(
    "residual",
    inner=32,
    small_inner=28,
    small_until=1,
    channels=(8, 8, 16),
    blocks=(1, 1),
    epochs=2,
    cosine_epochs=2,
    settle_from=2,
    learning_rate=0.05,
)


@pytest.mark.parametrize("plan", [TUNED, RESIDUAL], ids=["tuned", "residual"])
def test_training_goes_on_after_a_kill_as_if_nothing_happened(
    plan: Plan, pretrained: dict[str, np.ndarray], tmp_path: Path
) -> None:
    recipe = Recipe({"one": plan}, batch=16, seed=3)
    examples = {"train": _examples(40, 0), "mux_train": _examples(8, 1), "valid": _examples(16, 2)}
    lines: list[str] = []
    face_training.train(recipe, plan, examples, tmp_path / "whole", lines.append)
    face_training.train(recipe, plan, examples, tmp_path / "parts", lines.append, stop_after=1)
    net = face_training.train(recipe, plan, examples, tmp_path / "parts", lines.append)
    assert lines[:2] == lines[2:]
    assert net.inner == 32
    states = [
        torch.load(tmp_path / k / "checkpoint.pt", weights_only=True)["average"] for k in ("whole", "parts")
    ]
    for name, value in states[0].items():
        torch.testing.assert_close(states[1][name], value, rtol=0, atol=0, msg=name)
    with pytest.raises(UsageError, match="another recipe"):
        face_training.train(replace(recipe, seed=4), plan, examples, tmp_path / "parts", lines.append)


def test_the_residual_network_learns_what_can_be_learnt() -> None:
    """Light above or below: a few steps must suffice, through the very loop of training."""
    rng = np.random.default_rng(0)
    side = rng.integers(0, 2, 256)
    face = rng.integers(0, 80, (256, 56, 56)).astype(np.uint8)
    for row, below in enumerate(side):
        face[row, 28 * below : 28 * below + 28] += 120
    crops = Crops(face, np.zeros((256, 52), np.float32), np.ones(256, np.float32))
    seen = Examples(crops, np.eye(8, dtype=np.float32)[side], np.ones(256, np.float32), side)
    plan = replace(RESIDUAL, epochs=3, cosine_epochs=3, settle_from=3, ema=0.8)
    with TemporaryDirectory() as folder:
        recipe = Recipe({"one": plan}, batch=16)
        examples = {"train": seen, "mux_train": seen, "valid": seen}
        net = face_training.train(recipe, plan, examples, Path(folder), lambda text: None)
    answers = face_training.predict(net, crops, face_training.pooling(net), mirror=True)
    assert face_training.accuracy(answers, side) > 0.95


def test_export_equals_the_network_it_came_from(
    pretrained: dict[str, np.ndarray], weight: Callable[[str], Path], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    tuned = FaceNet(48, 0.3).eval()
    tuned.start_from(pretrained)
    nets = [ResidualNet(32, (8, 16, 32), (1, 1), 0.3).eval(), tuned]
    shares = [0.25, 0.75]
    part = _examples(3, 0).crops
    calibration = calibrate_face.Calibration(np.linspace(-0.5, 0.5, 8, dtype=np.float32), 1.3)
    golden = export_face.golden_face(weight("demo-smile"), "demo-smile", 45, 56, Cropper())
    bundle = export_face.export(
        Members(nets, shares).eval(),
        tmp_path / "face",
        size=56,
        calibration=calibration,
        golden=golden,
        version="0",
        metrics={},
        recipe="",
        card="",
    )
    face, shapes = part.face[:, None].astype(np.float32), part.blendshapes
    sides = [(face, shapes), (face[..., ::-1].copy(), shapes[:, MIRRORED])]
    with torch.no_grad():
        answers = [[net(torch.from_numpy(f), torch.from_numpy(s)) for f, s in sides] for net in nets]
    embeddings, logits = (
        [torch.stack([side[k] for side in answer]).mean(dim=0).numpy() for answer in answers] for k in (0, 1)
    )
    expected = weighted(logits, shares) + calibration.bias
    for backend in ("openvino", "onnxruntime"):
        out = open_engine(bundle, backend=backend).run({"face": face, "blendshapes": shapes})
        # The weights were rounded to half precision.
        np.testing.assert_allclose(out["embedding"], np.concatenate(embeddings, axis=1), atol=2e-2)
        np.testing.assert_allclose(out["logits"], expected, atol=2e-2)
        stored = json.loads((bundle.folder / "golden.json").read_text())
        again = open_engine(bundle, backend=backend).run(
            {
                "face": golden.face[None, None].astype(np.float32),
                "blendshapes": golden.blendshapes[None],
            }
        )
        np.testing.assert_allclose(again["logits"][0], stored["logits"], atol=1e-4)
        np.testing.assert_allclose(again["embedding"][0], stored["embedding"], atol=1e-4)


def test_the_shipped_recipe_is_the_one_of_the_shipped_bundle() -> None:
    folder = SHIPPED / "face"
    shipped = recipe_from(tomllib.loads((folder / "recipe.toml").read_text()))
    ours = recipe_from(tomllib.loads((Path(fit_face.__file__).parent / "recipes" / "face.toml").read_text()))
    assert shipped == ours
    assert load_bundle(folder).manifest.inputs[0].shape[-1] == ours.size
