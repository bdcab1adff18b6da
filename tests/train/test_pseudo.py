"""Pseudo-labels: thresholds that keep their promise, rounds that resume, folders and MER's layout end to end."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mer_layout import corpus

from ecmf.errors import DataError
from train import fit, pseudo, pseudo_gain, pseudo_labels, pseudo_rounds, refinement
from train.datasets import folder, mer2025
from train.pseudo_gain import Case, Judges
from train.pseudo_labels import Data, Options

LABELS = ("neutral", "happy", "sad")
SIZES = {"chinese-hubert-large": 12, "clip-vit-large-patch14": 10}
QUICK = Options(rounds=2, training=refinement.Options(folds=2, epochs=2, hidden=16))


def cloud(count: int, seed: int, distance: float = 2.0) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Two features that each tell a part of the truth."""
    rng = np.random.default_rng(seed)
    truth = rng.choice(3, count, p=[0.5, 0.3, 0.2])
    centres = np.eye(3, 6) * distance
    views = {n: (centres[truth] + rng.standard_normal((count, 6))).astype(np.float32) for n in ("one", "two")}
    return truth, views


@pytest.fixture(scope="module")
def case() -> Case:
    truth, views = cloud(900, 0)
    test, seen = cloud(600, 1)
    people = np.array([f"p{n % 45}" for n in range(900)])
    judges = Judges(seen, test, np.array([f"t{n % 30}" for n in range(600)]))
    return Case(views, {}, truth, LABELS, people, judges)


def quiet(what: str) -> None:
    pass


def test_hidden_labels_are_hidden_by_person(case: Case) -> None:
    data = pseudo_gain.hide(case, 0.5, 3)
    assert data.groups is not None
    hidden = set(data.groups[data.given < 0])
    assert not hidden & set(data.groups[data.given >= 0]) and len(hidden) == 22
    assert (data.given[data.known] == case.given[data.known]).all()


def test_accepted_guesses_are_as_often_right_as_asked(case: Case) -> None:
    data = pseudo_gain.hide(case, 0.5, 0)
    found = pseudo_labels.guess(data, replace(QUICK, precision=0.9), None)
    truth = case.given[data.unknown]
    assert found.accepted.sum() > 100
    accepted = (found.label == truth)[found.accepted].mean()
    assert accepted > 0.85 and accepted > (found.label == truth).mean()
    assert not (found.soft.max(axis=1)[found.accepted] < found.thresholds[found.label[found.accepted]]).any()


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([0.5, 0.8, 0.95]))
def test_a_threshold_keeps_its_precision_or_is_infinite(seed: int, asked: float) -> None:
    rng = np.random.default_rng(seed)
    soft = rng.dirichlet([0.6] * 3, 200).astype(np.float32)
    truth = np.where(rng.random(200) < 0.6, soft.argmax(axis=1), rng.integers(0, 3, 200))
    agree = rng.random(200) < 0.8
    least, right = pseudo_labels.thresholds(soft, agree, truth, asked)
    for label in range(3):
        chosen = agree & (soft.argmax(axis=1) == label) & (soft.max(axis=1) >= least[label])
        if np.isfinite(least[label]):
            assert chosen.sum() >= pseudo_labels.FEWEST
            assert (truth[chosen] == label).mean() == pytest.approx(right[label]) and right[label] >= asked
        else:
            assert not chosen.any()


def test_sources_that_disagree_are_not_believed() -> None:
    one, other = np.eye(3, dtype=np.float32)[[0, 1, 2]], np.eye(3, dtype=np.float32)[[0, 2, 2]]
    silent = np.zeros((3, 3), np.float32)
    guess = np.array([0, 1, 2])
    said = {"one": one, "other": other, "silent": silent}
    assert pseudo_labels.agreement(guess, said, 0.6).tolist() == [True, False, True]


def test_a_stopped_run_goes_on_with_its_round(case: Case, tmp_path: Path) -> None:
    data = pseudo_gain.hide(case, 0.5, 0)
    whole = pseudo_rounds.rounds(data, QUICK, tmp_path / "whole", quiet)
    pseudo_rounds.rounds(data, replace(QUICK, rounds=1), tmp_path / "parts", quiet)
    stamp = (tmp_path / "parts" / "round-1.npz").stat().st_mtime_ns
    parts = pseudo_rounds.rounds(data, QUICK, tmp_path / "parts", quiet)
    assert (tmp_path / "parts" / "round-1.npz").stat().st_mtime_ns == stamp
    np.testing.assert_array_equal(whole[1].soft, parts[1].soft)
    other = replace(data, given=np.where(np.arange(900) == data.known[0], -1, data.given))
    pseudo_rounds.rounds(other, replace(QUICK, rounds=1), tmp_path / "parts", quiet)
    assert (tmp_path / "parts" / "round-1.npz").stat().st_mtime_ns != stamp


def test_the_gain_is_measured_between_none_and_all(case: Case, tmp_path: Path) -> None:
    report = pseudo_gain.measure(case, QUICK, tmp_path, seeds=2, share=0.8, tell=quiet)
    accuracy = report["accuracy"]
    assert accuracy["all"]["mean"] >= accuracy["seen"]["mean"] - 0.01
    assert accuracy["gain"]["mean"] == pytest.approx(
        accuracy["guessed"]["mean"] - accuracy["seen"]["mean"], abs=2e-4
    )
    low, high = accuracy["gain"]["bootstrap95"]
    assert low <= accuracy["gain"]["mean"] <= high
    again = pseudo_gain.measure(case, QUICK, tmp_path, seeds=2, share=0.8, tell=quiet)
    assert again == report


def test_another_seed_hides_other_labels_and_nothing_accepted_is_null(case: Case, tmp_path: Path) -> None:
    none = replace(QUICK, precision=1.0, agree=1.0, rounds=1)
    reports = [
        pseudo_gain.measure(
            replace(case, given=np.roll(case.given, 1)),  # labels of others: nothing can be guessed
            replace(none, training=replace(QUICK.training, seed=seed)),
            tmp_path / str(seed),
            seeds=1,
            share=0.5,
            tell=quiet,
        )
        for seed in (0, 1)
    ]
    assert reports[0]["accuracy"]["seen"]["values"] != reports[1]["accuracy"]["seen"]["values"]
    assert reports[0]["accepted right"] is None


def test_one_changed_number_anywhere_is_other_data(case: Case) -> None:
    given = np.where(np.arange(900) < 450, case.given, -1)
    data = Data(case.features, {}, given, LABELS)
    touched = {name: values.copy() for name, values in case.features.items()}
    next(iter(touched.values()))[617, 3] += 1e-3
    assert pseudo_rounds.fingerprint(data) == pseudo_rounds.fingerprint(
        Data(case.features, {}, given, LABELS)
    )
    assert pseudo_rounds.fingerprint(data) != pseudo_rounds.fingerprint(Data(touched, {}, given, LABELS))


def test_what_a_sample_lacks_names_no_label_for_it(case: Case) -> None:
    features = {name: values.copy() for name, values in case.features.items()}
    first = next(iter(features))
    features[first][700:] = 0
    data = Data(features, {}, np.where(np.arange(900) < 450, case.given, -1), LABELS)
    found = pseudo_labels.guess(data, replace(QUICK, precision=0.9), None)
    assert (found.sources[first][250:] == -1).all() and (found.sources[first][:250] >= 0).all()
    assert np.isfinite(found.soft).all()


def test_what_cannot_be_guessed_from_is_said(case: Case) -> None:
    with pytest.raises(DataError, match="no sample was given the label 'sad'"):
        Data(case.features, {}, np.where(case.given == 2, -1, case.given), LABELS)
    with pytest.raises(DataError, match="nothing to guess"):
        Data(case.features, {}, case.given, LABELS)
    broken = {"one": case.features["one"].copy()}
    broken["one"][7, 2] = np.nan
    with pytest.raises(DataError, match="row 7 is not finite"):
        pseudo_labels.guess(
            Data(broken, {}, np.where(np.arange(900) < 450, case.given, -1), LABELS), QUICK, None
        )


def test_candidates_get_labels_that_train_and_never_judge(tmp_path: Path) -> None:
    truth = corpus(tmp_path / "mer", 240, 120, sizes=SIZES, distance=1.5)
    command = ["--features", str(tmp_path / "mer"), "--cache", str(tmp_path / "cache"), "--rounds", "1"]
    assert pseudo.main([*command, "--out", str(tmp_path / "more")]) == 0
    rows = list(csv.DictReader((tmp_path / "more" / mer2025.TRAIN).open()))
    guessed = {row["name"]: row["discrete"] for row in rows if row[mer2025.PSEUDO]}
    assert len(guessed) > 40 and len(rows) == 240 + len(guessed)
    assert np.mean([truth[name] == label for name, label in guessed.items()]) > 0.8
    audit = list(csv.DictReader((tmp_path / "more" / "audit.csv").open()))
    assert {row["name"] for row in audit if row["accepted"] == "1"} == guessed.keys()
    assert all(row["for_it"] for row in audit if row["accepted"] == "1")

    recipe = tmp_path / "r.toml"
    recipe.write_text('version = "1"\nfolds = 2\nsteps = 60\nbatch = 32\n[head]\nwidth = 16\nheads = 2\n')
    out = ["--out", str(tmp_path / "out"), "--cache", str(tmp_path / "cache"), "--config", str(recipe)]
    assert fit.main(["--features", str(tmp_path / "more"), *out, "--processes", "1"]) == 0
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["folds"]["pooled"]["n"] == 240

    assert pseudo.main([*command, "--hide", "0.5", "--seeds", "1", "--out", str(tmp_path / "gain")]) == 0
    report = json.loads((tmp_path / "gain" / "summary.json").read_text())
    assert report["tested"] == 48 and set(report["accuracy"]) == {"seen", "guessed", "all", "gain"}


SENTENCES = {
    "happy": "I am so happy today, this is wonderful, I love it!",
    "sad": "I miss her so much, I feel so lonely and sad.",
}


def test_clips_without_a_label_get_one(tmp_path: Path) -> None:
    data = tmp_path / "clips"
    data.mkdir()
    lines = ["path,label,speaker,split"]
    for label, sentence in SENTENCES.items():
        for number in range(24):
            (data / f"{label}{number}.txt").write_text(f"{sentence} {'Really. ' * (number % 4)}{number}")
            given = label if number < 14 or number > 21 else ""
            split = "test" if number > 21 else "train"
            lines.append(f"{label}{number}.txt,{given},p{number}{label},{split}")
    (data / folder.TABLE).write_text("\n".join(lines) + "\n")
    with pytest.raises(DataError, match=r"no label; python -m train\.pseudo finds some"):
        folder.read(data)
    where = ["--cache", str(tmp_path / "cache"), "--out", str(tmp_path / "more"), "--rounds", "1"]
    assert pseudo.main(["--data", str(data), *where]) == 0
    more = folder.read(tmp_path / "more")
    added = [item for item in more.items if int(item.path.stem.lstrip("hapysd")) in range(14, 22)]
    assert len(added) >= 8
    assert all(item.label == item.path.stem.rstrip("0123456789") for item in added)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--precision", "1.5"), "--precision 1.5: expected a share"),
        (("--rounds", "0"), "--rounds 0: at least one"),
        (("--hide", "1"), "hide a share between 0 and 1"),
        ((), "holds no labels.csv"),
    ],
)
def test_refusals(
    arguments: tuple[str, ...], expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert pseudo.main(["--data", str(tmp_path), "--out", str(tmp_path / "out"), *arguments]) == 2
    assert expected in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
