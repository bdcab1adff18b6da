"""python -m train.fit: what it teaches, how it reaches each training, and clips from labels.csv to a live bundle."""

from __future__ import annotations

import importlib
import inspect
import json
from pathlib import Path

import numpy as np
import pytest

from ecmf.bundle import SHIPPED, Bundle, load_bundle
from ecmf.cue import Cue
from ecmf.errors import DataError
from ecmf.head import FusionHead
from ecmf.labels import EKMAN, opinion, opinions
from train import clip_samples, clip_store, evaluate, fit, fit_folder, overlap
from train.datasets import folder
from train.evaluate_voice import VoiceData

RECIPE = 'version = "3"\nsteps = 150\nbatch = 32\n[head]\nwidth = 16\nheads = 2\n'
BORED = (
    "This is so dull.", "Nothing to do all day.", "Another long meeting.", "I keep looking at the clock.",
    "It never ends, how tedious.", "Same thing every single day.",
)  # fmt: skip
HAPPY = (
    "I am so happy today!", "What a wonderful surprise!", "We won, this is great!", "I love this so much.",
    "Best news ever, fantastic!", "You make me laugh.",
)  # fmt: skip
SPLIT = ("train", "train", "train", "train", "valid", "test")


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    data = tmp_path / "clips"
    data.mkdir()
    lines = ["path,label,speaker,split"]
    for label, sentences in (("bored", BORED), ("happy", HAPPY)):
        for number, (sentence, split) in enumerate(zip(sentences, SPLIT, strict=True)):
            (data / f"{label}{number}.txt").write_text(sentence)
            lines.append(f"{label}{number}.txt,{label},person{number},{split}")
    (data / folder.TABLE).write_text("\n".join(lines) + "\n")
    return data


def run(*arguments: object) -> int:
    return fit.main([str(argument) for argument in arguments])


def complaint(capsys: pytest.CaptureFixture[str]) -> str:
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert message.startswith("error: ")
    return message


def test_help_teaches_the_three_ways(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run("--help")
    text = capsys.readouterr().out
    assert ended.value.code == 0
    for part in (
        "--recipe default",
        "--data MY_CLIPS",
        "--features MER2025",
        "path,label,speaker,split",
        "goes on",
    ):
        assert part in text


@pytest.mark.parametrize(
    ("recipe", "module", "function"),
    [
        ("default", "fit_default", "main"),
        ("face", "fit_face", "main"),
        ("voice", "fit_voice", "fit"),
        ("text", "fit_text", "make"),
    ],
)
def test_a_recipe_reaches_its_training_with_the_right_paths(
    recipe: str, module: str, function: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is trained is not trained here; that it is called as it asks to be called, is."""
    target = importlib.import_module(f"train.{module}")
    real = inspect.signature(getattr(target, function))
    given: dict[str, object] = {}

    def spy(*arguments: object, **more: object) -> Bundle:
        given.update(
            real.bind(*arguments, **more).arguments
        )  # raises for a call that the real one would refuse
        return load_bundle(SHIPPED / "face")

    monkeypatch.setattr(target, function, spy)
    for kind, *names in (
        ("speech", "ravdess.parquet", "emodb4.parquet"),
        ("text", "meld.parquet", "goemotions.parquet"),
    ):
        (tmp_path / kind).mkdir()
        for name in names:
            (tmp_path / kind / name).touch()
    monkeypatch.setenv("ECMF_DATA", str(tmp_path))
    assert run("--recipe", recipe, "--out", tmp_path / "out", "--cache", tmp_path / "cache") == 0
    assert str(given[next(iter(given))]).endswith(f"recipes/{recipe}.toml")
    assert given["out"] == (tmp_path / "out" if recipe == "text" else tmp_path / "out" / recipe)
    if recipe == "voice":
        data = given["data"]
        assert isinstance(data, VoiceData)
        assert (data.ravdess.name, data.cache) == ("ravdess.parquet", tmp_path / "cache")
    elif recipe == "text":
        found = [given[name] for name in ("meld", "goemotions")]
        assert found == [tmp_path / "text" / "meld.parquet", tmp_path / "text" / "goemotions.parquet"]
    else:
        assert (given["data"], given["cache"]) == (tmp_path, tmp_path / "cache")


def test_texts_become_a_head_with_labels_of_its_own(
    texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(RECIPE)
    out = tmp_path / "out"
    command = ("--data", texts, "--config", recipe, "--out", out, "--cache", tmp_path / "cache")
    assert run(*command) == 0
    assert "ecmf-live --model" in capsys.readouterr().out
    bundle = load_bundle(out / "model")
    assert bundle.manifest.labels == ("bored", "happy")
    assert bundle.manifest.extra["modalities"] == ["text"]
    assert set(bundle.manifest.metrics) == {"valid", "test"}
    assert (out / "model" / "README.md").read_text().startswith("# out: a fusion head for bored, happy")
    head = FusionHead(bundle)
    cue = fit_folder.extract(folder.read(texts), tmp_path / "cache")[6][0]["text"]
    fused = head.fuse({"text": cue}, 0)
    assert fused is not None and fused.probs.argmax() == 1
    happy = np.eye(7, dtype=np.float32)[1]
    assert head.fuse({"face": Cue("face", 0, np.zeros(180, np.float32), happy, 0, 0, 0.9)}, 0) is None

    again = tmp_path / "again"
    assert run(*command[:5], again, *command[6:]) == 0  # same seed, same bundle
    assert load_bundle(again / "model").sha256 == bundle.sha256

    code = evaluate.main(
        ["--bundle", str(out / "model"), "--data", str(texts), "--out", str(tmp_path / "plots")]
    )
    assert code == 0
    results = json.loads((tmp_path / "plots" / "results.json").read_text())["results"]
    assert results["text"]["n"] == 2
    low, high = results["text"]["weighted_f1_95"]
    assert low <= results["text"]["weighted_f1"] <= high and set(results["text"]["per_class"]) == {
        "bored",
        "happy",
    }
    assert (tmp_path / "plots" / "weighted-f1.png").stat().st_size > 1000
    table = texts / folder.TABLE
    table.write_text(table.read_text().replace(",person0,train", ",person0,test"))
    capsys.readouterr()
    assert evaluate.main(["--bundle", str(out / "model"), "--data", str(texts)]) == 2
    assert "was trained on 'person0'" in complaint(capsys)


@pytest.mark.skipif(not (SHIPPED / "default").is_dir(), reason="no head is shipped")
def test_a_head_whose_people_are_only_counted_can_be_measured_on_clips() -> None:
    assert overlap.trained_on(load_bundle(SHIPPED / "default")) == set()


def test_features_that_are_not_finite_name_file_and_row(texts: Path, tmp_path: Path) -> None:
    listed = folder.read(texts)
    clips = clip_store.extract(listed, tmp_path / "cache")
    moments = clips[0]
    moments[0]["text"].embedding[3] = np.inf
    clip_store.store(clips.files[0], moments)
    with pytest.raises(DataError, match=r"row 2 \(bored0\.txt\): text features are not finite"):
        clip_samples.assemble(listed, clips, cache=tmp_path / "cache")


def test_a_label_whose_clips_hold_nothing_is_named(texts: Path, tmp_path: Path) -> None:
    for number in range(6):
        (texts / f"bored{number}.txt").write_text("uh um hm")  # fillers: no cue
    listed = folder.read(texts)
    with pytest.raises(
        DataError, match=r"row 2 .*no clip labelled 'bored' in train a face, a voice or words"
    ):
        clip_samples.assemble(listed, clip_store.extract(listed, tmp_path / "cache"))


def test_forgetting_leaves_a_cue_to_go_by() -> None:
    rng = np.random.default_rng(0)
    quality = (rng.random((500, 4)) < 0.5).astype(np.float32)
    quality[:, 3] = np.where(quality[:, [0, 2]].any(axis=1), quality[:, 3], 1)
    cues = {m: rng.random((500, 2)).astype(np.float32) for m in ("face", "scene", "voice", "text")}
    batch = fit_folder.Batch(cues, np.zeros((500, 4, 3), np.float32), quality, np.zeros(500, np.int64))  # type: ignore[arg-type]
    left = fit_folder.hidden(batch, fit_folder.keeps(batch.quality, 0.9, rng))
    assert (left.quality[:, [0, 2, 3]] > 0).any(axis=1).all()
    assert (left.quality <= quality).all() and left.quality.sum() < 0.7 * quality.sum()
    assert not left.cues["face"][left.quality[:, 0] == 0].any()


def test_opinions_find_their_way_into_other_label_sets() -> None:
    probs = np.array([0.1, 0.5, 0.1, 0.1, 0.1, 0.05, 0.05], np.float32)
    found = opinion(probs, opinions(("sad", "happy")), 1e-4)
    assert found is not None
    np.testing.assert_allclose(np.exp(found), [1 / 6, 5 / 6], atol=1e-4)
    shared = opinion(probs, opinions(("fear", "worried", "joy")), 1e-4)
    assert shared is not None
    np.testing.assert_allclose(np.exp(shared), [1 / 12, 1 / 12, 10 / 12], atol=1e-4)
    assert opinions(("happy", "bored")) is None
    matrix = opinions(EKMAN)
    assert matrix is not None and (matrix == np.eye(7)).all()
