"""Label refinement on made-up annotators whose errors are known, and on a folder of text clips."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from ecmf.errors import DataError
from train import refine, refinement
from train.datasets import fer2013, folder
from train.refinement import Options

LABELS = ("neutral", "happy", "sad")
QUICK = Options(rounds=2, folds=2, epochs=4, hidden=24)


class World:
    """Features that tell the truth fairly well, an annotator who takes a third of the neutral ones for sad."""

    def __init__(self, count: int = 1500) -> None:
        rng = np.random.default_rng(0)
        self.truth = rng.choice(3, count, p=[0.5, 0.25, 0.25])
        centres = np.eye(3, 8) * 2.2
        self.features = (centres[self.truth] + rng.standard_normal((count, 8))).astype(np.float32)
        given = self.truth.copy()
        given[(self.truth == 0) & (rng.random(count) < 0.33)] = 2
        wrong = rng.random(count) < 0.1
        given[wrong] = rng.integers(0, 3, wrong.sum())
        self.given = given
        other = self.truth.copy()
        wrong = rng.random(count) < 0.3
        other[wrong] = rng.integers(0, 3, wrong.sum())
        self.outside = (np.eye(3)[other] * 0.7 + 0.1).astype(np.float32)

    def right(self, label: NDArray[np.int64]) -> float:
        return float((label == self.truth).mean())


@pytest.fixture(scope="module")
def world() -> World:
    return World()


@pytest.fixture(scope="module")
def refined(world: World) -> refinement.Refined:
    return refinement.refine(world.given, LABELS, {"f": world.features}, {"other": world.outside}, QUICK)


def test_refined_labels_are_better_than_any_source(world: World, refined: refinement.Refined) -> None:
    before = max(world.right(world.given), world.right(world.outside.argmax(axis=1)))
    assert before < 0.82
    assert world.right(refined.label) > before + 0.05
    np.testing.assert_allclose(refined.soft.sum(axis=1), 1, atol=1e-5)


def test_the_annotators_habit_is_found(refined: refinement.Refined) -> None:
    assert refined.worth[0, 2] > 0.25  # neutral faces that were given as sad: in truth 0.33 + 0.02
    assert refined.worth[1, 2] < 0.12


def test_confident_learning_suspects_the_wrong_ones(world: World, refined: refinement.Refined) -> None:
    wrong = world.given != world.truth
    assert refined.suspicious[wrong].mean() > 3 * refined.suspicious[~wrong].mean()


def test_a_source_that_saw_nothing_of_a_sample_says_nothing(world: World, tmp_path: Path) -> None:
    voice = world.features.copy()
    voice[::3] = 0  # every third clip has no voice
    given = refinement.refine(world.given, LABELS, {"face": world.features, "voice": voice}, {}, QUICK)
    said = given.opinions["voice, trained on the given labels"]
    assert not said[::3].any() and said[1::3].any(axis=1).all()
    np.testing.assert_allclose(given.soft.sum(axis=1), 1, atol=1e-5)
    refinement.write_audit(tmp_path, given, [str(n) for n in range(len(world.given))], LABELS)
    rows = list(csv.DictReader((tmp_path / "audit.csv").open()))
    assert not any("voice" in row["why"] for row in rows[::3])


def test_without_outside_sources_annotators_are_combined(world: World) -> None:
    stages = []
    refinement.refine(
        world.given,
        LABELS,
        {"f": world.features},
        {},
        Options(rounds=0, folds=2, epochs=4),
        tell=lambda w, s: stages.append(w),
    )
    assert stages == ["Dawid-Skene over all sources"]


def test_the_same_seed_gives_the_same_labels(world: World, refined: refinement.Refined) -> None:
    again = refinement.refine(world.given, LABELS, {"f": world.features}, {"other": world.outside}, QUICK)
    np.testing.assert_array_equal(again.soft, refined.soft)


def test_models_never_judge_what_they_were_trained_on(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[NDArray[np.float32]] = []
    real = refinement.classifier

    def spy(features: NDArray[np.float32], *rest: object) -> object:
        seen.append(features)
        return real(features, *rest)  # type: ignore[arg-type]

    def check(model: object, features: NDArray[np.float32]) -> NDArray[np.float32]:
        trained = {row.tobytes() for row in seen[-1]}
        assert not any(row.tobytes() in trained for row in features)
        return np.full((len(features), 3), 1 / 3, np.float32)

    monkeypatch.setattr(refinement, "classifier", spy)
    monkeypatch.setattr(refinement, "judge", check)
    hard = np.eye(3, dtype=np.float32)[world.given[:90]]
    people = np.repeat(np.arange(30), 3).astype(str)
    fold = refinement.folds_of(90, QUICK, people)
    assert all(len(set(fold[people == p])) == 1 for p in set(people))
    refinement.out_of_fold(world.features[:90], hard, fold, QUICK)
    assert len(seen) == 2


def test_shares_are_kept() -> None:
    rng = np.random.default_rng(0)
    soft = rng.dirichlet([5, 1, 1], 400).astype(np.float32)
    kept = refinement.keep_shares(soft, np.array([0.4, 0.35, 0.25]))
    np.testing.assert_allclose(kept.mean(axis=0), [0.4, 0.35, 0.25], atol=0.01)
    np.testing.assert_allclose(kept.sum(axis=1), 1, atol=1e-5)


def test_bad_features_and_empty_labels_are_named(world: World) -> None:
    broken = world.features.copy()
    broken[7, 3] = np.nan
    with pytest.raises(DataError, match="f features: row 7 is not finite"):
        refinement.refine(world.given, LABELS, {"f": broken}, {}, QUICK)
    with pytest.raises(DataError, match="no sample was given the label 'sad'"):
        refinement.refine(np.minimum(world.given, 1), LABELS, {"f": world.features}, {}, QUICK)


def test_the_audit_says_what_changed_and_why(
    world: World, refined: refinement.Refined, tmp_path: Path
) -> None:
    names = [f"clip{n}" for n in range(len(world.given))]
    summary = refinement.write_audit(tmp_path, refined, names, LABELS)
    with (tmp_path / "audit.csv").open() as file:
        rows = list(csv.DictReader(file))
    changed = [row for row in rows if row["changed"] == "1"]
    assert len(changed) == summary["changed"] > 50
    assert all(row["given"] != row["refined"] and "for it: " in row["why"] for row in changed)
    assert json.loads((tmp_path / "summary.json").read_text()) == summary


TEXTS = {
    "happy": (
        "What a wonderful day!",
        "I love this so much.",
        "We won, I am so happy!",
        "This makes me laugh.",
    ),
    "sad": (
        "I miss her so much.",
        "He died last week.",
        "I feel so lonely.",
        "Nothing will ever be good again.",
    ),
}


def test_a_folder_of_texts_is_refined(tmp_path: Path) -> None:
    data = tmp_path / "clips"
    data.mkdir()
    lines = ["path,label,speaker,split"]
    for label, texts in TEXTS.items():
        for number, text in enumerate(texts * 2):
            (data / f"{label}{number}.txt").write_text(f"{text} {'Really. ' * (number // 4)}")
            given = label if number else {"happy": "sad", "sad": "happy"}[label]  # the first of each is wrong
            lines.append(f"{label}{number}.txt,{given},p{number % 4}{label},train")
    (data / folder.TABLE).write_text("\n".join(lines) + "\n")
    report = refine.clips(data, tmp_path / "out", tmp_path / "cache", Options(rounds=1, folds=2, epochs=2))
    better = {item.path.name: item.label for item in folder.read(tmp_path / "out").items}
    assert better["happy0.txt"] == "happy" and better["sad0.txt"] == "sad"
    assert report["samples"] == 16 and 2 <= report["changed"] <= 5
    assert "text branch" in report["agreement_with_refined"]


def test_fer2013_labels_follow_fer_pluss_rows(tmp_path: Path) -> None:
    (tmp_path / "fer2013.csv").write_text("emotion,pixels,Usage\n3,0,Training\n0,0,Training\n6,0,Training\n")
    (tmp_path / "fer2013new.csv").write_text(
        "Usage,Image name,neutral\nTraining,a,1\nTraining,,1\nTraining,c,1\n"
    )
    assert fer2013.read_labels(tmp_path).tolist() == [1, 0]
    (tmp_path / "fer2013.csv").write_text("emotion,pixels,Usage\n9,0,Training\n")
    with pytest.raises(DataError, match=r"row 2: emotion '9'"):
        fer2013.read_labels(tmp_path)


@pytest.mark.slow
def test_the_measured_case_in_small(tmp_path: Path) -> None:
    """`python -m train.refine --fer DIR` from pictures to report, on some rows of the real corpora."""
    data = Path(os.environ.get("ECMF_DATA", Path(__file__).parents[3] / "shared" / "data")) / "face"
    if not (data / "ferplus.parquet").is_file() or not (data / "muxspace.parquet").is_file():
        pytest.skip("needs ferplus.parquet and muxspace.parquet in $ECMF_DATA/face or ../shared/data/face")
    parquet = pytest.importorskip("pyarrow.parquet")
    (tmp_path / "face").mkdir()
    for name, steps in (("ferplus", {"train": 60, "valid": 400, "test": 40}), ("muxspace", {})):
        table = parquet.read_table(data / f"{name}.parquet")
        split = np.array(table["split"].to_pylist()) if steps else np.zeros(len(table))
        rows = (
            np.concatenate([np.flatnonzero(split == which)[::step] for which, step in steps.items()])
            if steps
            else np.arange(0, len(table), 18)
        )
        parquet.write_table(table.take(rows), tmp_path / "face" / f"{name}.parquet")
    command = ["--fer", str(tmp_path), "--out", str(tmp_path / "out"), "--cache", str(tmp_path / "cache")]
    assert refine.main(command) == 0
    report = json.loads((tmp_path / "out" / "summary.json").read_text())
    agreement = report["agreement_with_fer_plus_majority"]
    assert 0.5 < agreement["given"] < 0.75
    assert agreement["round 3"] > agreement["given"] + 0.02
    assert set(report["fer_plus_test_accuracy_of_the_same_model"]) == {"raw", "refined", "FER+ majority"}
    with (tmp_path / "out" / "audit.csv").open() as file:
        assert len(list(csv.DictReader(file))) == report["train_pictures"]
