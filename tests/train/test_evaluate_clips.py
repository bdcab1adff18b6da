"""Measuring heads on clips: any layout, folds of people trained anew, tables, and refusals before the work."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ecmf.cue import MODALITIES
from ecmf.errors import UsageError
from train import command, evaluate, fit, fit_folder, folder_card, overlap, plots, result_table
from train.clip_samples import Samples
from train.datasets import folder
from train.pairing import Batch
from train.scores import scores

RECIPE = 'version = "1"\nsteps = 60\nbatch = 16\n[head]\nwidth = 16\nheads = 2\n'
JOY = ("I love this!", "We won, this is great!", "What a wonderful day!", "I am so happy!")
GRIEF = ("I am so sad.", "He died.", "I miss her so much.", "Everything is lost.")


def meld(root: Path, more: str = "") -> Path:
    """MELD's csv files: each dialogue, of two lines, stands for a person. ``more``: a label of test lines only."""
    root.mkdir()
    for split in ("train", "dev", "test"):
        with (root / f"{split}_sent_emo.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["Utterance", "Speaker", "Emotion", "Dialogue_ID", "Utterance_ID"])
            for number in range(4):
                for line, (text, label) in enumerate(((JOY[number], "joy"), (GRIEF[number], "sadness"))):
                    writer.writerow([f"{text} {split}", "Ross", label, number, line])
            if more and split == "test":
                writer.writerow(["Oh really", "Ross", more, 9, 0])
    return root


def run(module: Any, *arguments: object) -> int:
    code: int = module.main([str(argument) for argument in arguments])
    return code


def test_a_head_is_measured_on_a_corpus_as_its_owner_ships_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(RECIPE)
    data, out, cache = meld(tmp_path / "meld"), tmp_path / "run", ("--cache", tmp_path / "cache")
    assert run(fit, "--data", data, "--out", out, "--config", recipe, *cache) == 0
    assert f"train.evaluate --bundle {out / 'model'} --data {data}" in capsys.readouterr().out

    assert run(evaluate, "--bundle", out, "--data", data, *cache, "--out", tmp_path / "found") == 0
    said = capsys.readouterr().out
    assert "8 clips of 4 people not trained on" in said
    assert "| text     | 8 |" in said and "weighted F1" in said and "happiness" in said
    assert (tmp_path / "found" / "results.md").read_text().strip() in said
    for picture in ("weighted-f1.png", "confusion-text.png"):
        assert (tmp_path / "found" / picture).stat().st_size > 1000

    assert run(evaluate, "--bundle", out, "--data", data, "--everyone", *cache) == 2
    assert "was trained on 'train-0'" in capsys.readouterr().err

    other = meld(tmp_path / "meld2", more="surprise")
    assert run(evaluate, "--bundle", out, "--data", other, "--json", *cache) == 0
    found = json.loads(capsys.readouterr().out)["results"]
    assert found["text"]["n"] == 8 and "; 1 clips labelled surprise left out" in found["protocol"]

    assert (
        run(evaluate, "--refit", "--data", data, "--config", recipe, "--out", tmp_path / "folds", *cache) == 0
    )
    said = capsys.readouterr().out
    assert "5 folds of 12 people, heads trained anew" in said and "it flatters the text" in said
    row = json.loads((tmp_path / "folds" / "results.json").read_text())["results"]["text"]
    assert row["n"] == 24 and np.sum(row["confusion"]) == 24  # everybody, once
    assert len(list((tmp_path / "folds").glob("fold-*.pt"))) == 5


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--bundle", "none", "--data", "."), "none"),
        (("--refit",), "--refit trains anew: on which clips? --data DIR"),
        (("--refit", "--data", "{clips}"), "all clips are of one person"),
        (("--refit", "--data", "{clips}/none"), "there is no"),
        (("--bundle", "default", "--data", "{clips}/none"), "there is no"),
        (("--bundle", "default", "--everyone"), "--everyone goes with clips"),
        (("--bundle", "default", "--out", "{clips}/a.txt"), "--out {clips}/a.txt cannot be written to"),
        ((), "which bundle?"),
    ],
)
def test_it_refuses_in_one_line(
    arguments: tuple[str, ...], expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clips = tmp_path / "clips"
    clips.mkdir()
    for name, text in (("a", "I love this."), ("b", "He died.")):
        (clips / f"{name}.txt").write_text(text)
    (clips / folder.TABLE).write_text("path,label,speaker\na.txt,glad,anna\nb.txt,grim,anna\n")
    asked = [each.format(clips=clips) for each in arguments]
    assert run(evaluate, *asked, "--cache", tmp_path / "cache") == 2
    found = capsys.readouterr()
    last = found.err.strip().splitlines()[-1]
    assert last.startswith("error: ") and expected.format(clips=clips) in last and not found.out


def test_whether_results_can_be_kept_is_found_out_first_and_leaves_nothing(tmp_path: Path) -> None:
    command.writable("--out", tmp_path / "a" / "b")
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").touch()
    for wrong in ("file", "file/below"):
        with pytest.raises(UsageError, match=f"--out .*{wrong} cannot be written to"):
            command.writable("--out", tmp_path / wrong)
    with pytest.raises(UsageError, match="cannot be written to"):
        command.writable("--cache", Path("/proc/nothing"))


def test_people_whom_a_shipped_branch_knows_are_said(tmp_path: Path) -> None:
    heard = sorted(overlap.heard({f"ravdess-{n:02d}" for n in range(1, 25)}))[0]
    assert "trained on 1 of these people: it flatters the voice" in overlap.flattered({heard, "anna"})
    assert overlap.flattered({"anna"}) == overlap.flattered({"anna"}, tmp_path) == ""
    assert "it flatters the text" in overlap.flattered({"anna"}, meld(tmp_path / "meld"))


def test_a_label_that_is_only_guessed_has_no_recall() -> None:
    probs = np.array([[0.9, 0.1, 0.0], [0.1, 0.2, 0.7], [0.2, 0.8, 0.0], [0.1, 0.9, 0.0]])
    assert scores(probs, np.array([0, 0, 1, 1]))["uar"] == 0.75


def test_tables_have_intervals_labels_and_confusion() -> None:
    row = {"n": 3, "uar": 0.5, "uar_interval": [0.25, 1.0], "ece": 0.125, "confusion": [[1, 1], [0, 1]]}
    row["per_class"] = {"glad": {"n": 2, "precision": 1.0, "recall": 0.5, "f1": 0.667}}
    text = result_table.tables({"protocol": "as it is", "held out": {"voice": row}}, ("glad", "grim"))
    assert "| held out voice | 3 | 0.500 (0.250 to 1.000) | 0.125" in text
    assert "| glad           | 2 | 1.000     | 0.500  | 0.667 |" in text
    cells = [cell.strip() for cell in text.splitlines()[-2].split("|")]
    assert cells[1:4] == ["glad", "1", "1"]


def test_a_plot_s_title_and_values_are_drawn_whatever_is_measured(tmp_path: Path) -> None:
    row = {"weighted_f1": 0.5, "weighted_f1_95": [0.1, 0.9], "confusion": [[1, 1], [0, 1]]}
    name = "a name that is much longer than a matrix of two labels is wide"
    drawn = plots.draw({name: row, "without": {"weighted_f1": 0.25}}, ("a", "b"), tmp_path)
    assert [path.name for path in drawn] == [f"confusion-{name.replace(' ', '-')}.png", "weighted-f1.png"]


def test_a_split_without_any_cue_of_those_trained_on_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    quality = np.zeros((4, len(MODALITIES)), np.float32)
    quality[:3, MODALITIES.index("text")] = quality[3, MODALITIES.index("face")] = 1
    cues: dict[Any, Any] = {m: np.zeros((4, 3), np.float32) for m in MODALITIES}
    batch = Batch(cues, np.zeros((4, len(MODALITIES), 2), np.float32), quality, np.array([0, 1, 0, 1]))
    split = np.array(["train", "train", "valid", "test"])
    samples = Samples(batch, np.arange(4), split, frozenset({"text"}), speaker=np.array([*"abcd"]))
    recipe = fit_folder.Recipe()
    head, held = fit_folder.train(samples, 2, replace(recipe, fit=replace(recipe.fit, steps=2)))
    told: dict[str, Any] = {}
    monkeypatch.setattr(folder_card, "export", lambda *given, **more: told.update(measured=given[3]))
    listed = folder.Folder(tmp_path, (), ("glad", "grim"))
    fit_folder.finish(head, samples, listed, recipe, held, tmp_path / "model")
    assert set(told["measured"]) == {"valid"}
    assert "test: no clip has a cue that the clips to train on have" in caplog.text
