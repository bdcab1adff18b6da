"""MER2025 Track 1's layout, in small: reading, packing, folds, submission."""

from __future__ import annotations

import csv
import functools
import json
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from mer_layout import SIZES, corpus

from ecmf.bundle import load_bundle
from ecmf.engines.choose import BACKENDS, CPU, open_engine
from ecmf.errors import BundleError, DataError, UsageError
from ecmf.fusion import HeadOptions
from ecmf.head import FusionHead
from ecmf.labels import MER
from train import evaluate, fit_mer, mer_features
from train.datasets import mer2025
from train.mer_head import AttentionBaseline, FeatureHead, Vote

RECIPE = 'version = "1"\nfolds = 3\nsteps = 120\nbatch = 32\n[head]\nwidth = 16\nheads = 2\n'


@pytest.fixture
def root(tmp_path: Path) -> Path:
    corpus(tmp_path / "mer")
    return tmp_path / "mer"


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """`fitted(model)`: the folder of a fit, with its mer/, cache/ and out/."""

    @functools.cache
    def made(model: str) -> Path:
        place = tmp_path_factory.mktemp(model)
        corpus(place / "mer")
        recipe = place / "recipe.toml"
        recipe.write_text(f'model = "{model}"\n{RECIPE}')
        fit_mer.main(place / "mer", place / "out", cache=place / "cache", config=recipe)
        return place

    return made


def test_csv_candidates_and_features_are_found(root: Path) -> None:
    found = mer2025.read(root)
    assert (len(found.names), len(found.candidates)) == (120, 12)
    assert found.labels == MER
    assert found.emotions[:3] == ("neutral", "angry", "happy")
    assert list(found.features) == sorted(SIZES)


def test_the_npz_serves_where_there_is_no_csv(root: Path) -> None:
    before = mer2025.read(root)
    train = {
        name: {"emo": emotion, "val": -10}
        for name, emotion in zip(before.names, before.emotions, strict=True)
    }
    test = {name: {"emo": "neutral"} for name in before.candidates}
    np.savez_compressed(root / mer2025.LABELS, train_corpus=train, test1_corpus=test)  # type: ignore[arg-type]
    (root / mer2025.TRAIN).unlink()
    (root / mer2025.CANDIDATES).unlink()
    assert mer2025.read(root) == before


class Evil:
    def __reduce__(self) -> tuple[object, ...]:
        return (print, ("run",))


def test_an_npz_cannot_run_code(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez(root / mer2025.LABELS, train_corpus=np.array(Evil(), dtype=object))
    assert pickle.dumps(Evil())
    capsys.readouterr()
    with pytest.raises(DataError, match=r"refers to builtins\.print"):
        mer2025.read_object(root / mer2025.LABELS, "train_corpus")
    assert capsys.readouterr().out == ""


def test_bad_rows_are_named(root: Path) -> None:
    table = root / mer2025.TRAIN
    good = table.read_text()
    for old, new, expected in (
        (
            "sample_00000001,angry",
            "sample_00000001,bored",
            r"row 3 \(sample_00000001\): unknown label 'bored'",
        ),
        ("sample_00000001,angry", "sample_00000000,angry", r"row 3: clip sample_00000000 is listed twice"),
        ("sample_00000001,angry", "sample_00000001,", "row 3: no discrete"),
        ("name,discrete", "name,emotion", "row 1: no column 'discrete'"),
        ("worried", "sad", "no clip is labelled 'worried'"),
    ):
        table.write_text(good.replace(old, new))
        with pytest.raises(DataError, match=expected):
            mer2025.read(root)


def test_a_feature_that_is_not_finite_names_its_file(root: Path, tmp_path: Path) -> None:
    folder = root / mer2025.FEATURES / f"clip-vit-large-patch14{mer2025.SUFFIX}"
    np.save(folder / "sample_00000007.npy", np.full(20, np.nan, np.float32))
    with pytest.raises(DataError, match=r"sample_00000007\.npy .*not finite"):
        mer_features.pack("clip-vit-large-patch14", folder, 0, mer2025.read(root).names, tmp_path / "cache")
    np.save(folder / "sample_00000007.npy", np.zeros(3, np.float32))
    with pytest.raises(DataError, match=r"sample_00000007\.npy has 3 numbers, .* 20"):
        mer_features.pack("clip-vit-large-patch14", folder, 0, mer2025.read(root).names, tmp_path / "cache")


def test_packed_features_are_mapped_not_loaded(root: Path, tmp_path: Path) -> None:
    folder = root / mer2025.FEATURES / f"chinese-hubert-large{mer2025.SUFFIX}"
    (folder / "sample_00000003.npy").unlink()
    names = mer2025.read(root).names
    feature = mer_features.pack("chinese-hubert-large", folder, 2, names, tmp_path / "cache")
    assert isinstance(feature.values, np.memmap)
    assert not feature.present[3] and feature.present.sum() == len(names) - 1
    np.testing.assert_array_equal(feature.values[5], np.load(folder / "sample_00000005.npy"))


def test_modalities_are_read_off_the_names_or_asked_for() -> None:
    kinds = [
        mer_features.kind_of(name, {}) for name in ("chinese-hubert-large", "chinese-macbert-large", "dinov2")
    ]
    assert kinds == [2, 3, 0]
    with pytest.raises(UsageError, match="which modality is feature mystery"):
        mer_features.kind_of("mystery", {})
    assert mer_features.kind_of("mystery", {"mystery": "scene"}) == 1


def test_five_folds_a_bundle_and_a_submission(
    fitted: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, out = fitted("ecmf") / "mer", fitted("ecmf") / "out"
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["folds"]["pooled"]["n"] == 120
    assert metrics["folds"]["pooled"]["weighted_f1"] > 0.8
    low, high = metrics["folds"]["pooled"]["weighted_f1_95"]
    assert 0.5 < low <= high and np.sum(metrics["folds"]["pooled"]["confusion"]) == 120
    alone = [name for name in metrics["folds"] if name.startswith("only ")]
    assert len(alone) >= 2 and all(metrics["folds"][name]["n"] <= 120 for name in alone)
    assert (out / "confusion-pooled.png").is_file()
    assert "| pooled" in (out / "model" / "README.md").read_text()
    (tmp_path / "labels.csv").touch()
    assert evaluate.main(["--bundle", str(out), "--data", str(tmp_path)]) == 2
    assert "reads stored features, not clips" in capsys.readouterr().err
    with (out / "submission.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == list(mer2025.read(root).candidates)
    assert np.mean([row["discrete"] == MER[n % 6] for n, row in enumerate(rows)]) > 0.7
    stored = load_bundle(out / "model")
    features = [
        np.load(root / "features" / f"{f['name']}-UTT" / "sample_00000004.npy")
        for f in stored.manifest.extra["features"]
    ]
    found = open_engine(stored).run(
        {"features": np.concatenate(features)[None], "quality": np.ones((1, 3), np.float32)}
    )
    assert stored.manifest.labels[int(found["logits"].argmax())] == MER[4]


@pytest.mark.parametrize("model", ["ecmf", "attention-baseline"])
def test_a_vote_equals_torch_in_every_engine_and_says_that_it_is_none_for_a_camera(
    model: str, fitted: Callable[[str], Path], tmp_path: Path
) -> None:
    place = fitted(model)
    bundle = load_bundle(place / "out" / "model")
    listed = mer2025.read(place / "mer")
    features = mer_features.load(listed, listed.names, {}, tmp_path / "cache")
    inputs = mer_features.rows_of(features, np.arange(40))
    hidden = torch.from_numpy(np.random.default_rng(0).random((40, 3)) < 0.4)
    hidden[hidden.all(dim=1), 0] = False
    inputs["quality"] = inputs["quality"] * ~hidden
    members = []
    for number in range(3):
        head = fit_mer.MODELS[model]([f.values.shape[1] for f in features], [f.kind for f in features], 6,
                                     HeadOptions(width=16, heads=2))  # fmt: skip
        head.load_state_dict(torch.load(place / "out" / f"fold-{number}.pt", weights_only=True)["head"])
        members.append(head)
    with torch.no_grad():
        expected = Vote(members).eval()(**inputs)
    for backend in [name for name in CPU if BACKENDS[name].probe()[0]]:
        engine = open_engine(bundle, backend=backend)
        found = engine.run({name: value.numpy() for name, value in inputs.items()})
        for name, value in zip(("logits", "weights"), expected, strict=True):
            np.testing.assert_allclose(found[name], value.numpy(), atol=1e-4, err_msg=backend)
    with pytest.raises(BundleError, match=r"reads stored utterance features .* train\.fit --data"):
        FusionHead(bundle)


def test_an_absent_feature_does_not_matter_and_weights_sum_to_one() -> None:
    torch.manual_seed(0)
    head = FeatureHead([4, 6], [0, 2], 3).eval()
    values = torch.randn(5, 10)
    quality = torch.tensor([[1.0, 0.0]] * 5)
    with torch.no_grad():
        logits, weights = head(values, quality)
        values[:, 4:] = 1e3
        again, _ = head(values, quality)
    torch.testing.assert_close(logits, again)
    torch.testing.assert_close(weights, quality)


def test_the_baseline_has_raw_weights() -> None:
    torch.manual_seed(0)
    head = AttentionBaseline([4, 6], [0, 2], 3).eval()
    with torch.no_grad():
        _, weights = head(torch.randn(50, 10), torch.ones(50, 2))
    assert not torch.allclose(weights.sum(1), torch.ones(50), atol=1e-2)


def test_recipes_with_unknown_keys_are_refused(tmp_path: Path) -> None:
    for text, expected in (
        ("stepz = 3\n", "unknown key 'stepz'"),
        ('model = "magic"\n', "model 'magic' is none of"),
        ("folds = 1\n", "at least 2"),
        ('[features]\nx = "smell"\n', "x = 'smell'"),
        ("folds = 'five'\n", "expected a number"),
    ):
        (tmp_path / "r.toml").write_text(text)
        with pytest.raises(UsageError, match=expected):
            fit_mer.read_recipe(tmp_path / "r.toml")
