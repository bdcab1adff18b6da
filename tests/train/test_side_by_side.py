"""Pieces of work in several processes: all done, one that dies made up for, an error reported, nobody left behind."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import partial
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mer_layout import corpus
from pieces import die, fail, write

from ecmf.errors import DataError
from ecmf.fusion import HeadOptions
from train import fit_mer, mer_features, workers
from train.datasets import mer2025
from train.recipe import Training


def test_every_piece_is_done_once_by_somebody_else(tmp_path: Path) -> None:
    workers.ahead([partial(write, tmp_path, n) for n in range(5)], 2, 5, "files")
    done = [path.name.split("-") for path in tmp_path.iterdir()]
    assert sorted(number for number, _ in done) == list("01234")
    assert str(os.getpid()) not in {process for _, process in done}


def test_an_error_of_a_piece_is_raised_here() -> None:
    with pytest.raises(DataError, match="row 3 is bad"):
        workers.ahead([partial(fail, "row 3 is bad")] * 3, 2, 3, "files")


def test_nobody_is_left_when_not_all_can_be_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = SpawnProcess.start, []

    def start(process: SpawnProcess) -> None:
        calls.append(process)
        if len(calls) == 2:
            raise OSError("no more processes")
        real(process)

    monkeypatch.setattr(SpawnProcess, "start", start)
    with pytest.raises(OSError, match="no more processes"):
        workers.ahead([partial(write, tmp_path, n) for n in range(2)], 2, 2, "files")
    assert not calls[0].is_alive()


def test_a_process_that_ends_while_it_is_asked_about(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [True]
    monkeypatch.setattr(SpawnProcess, "is_alive", lambda process: bool(answers) and answers.pop())
    workers.ahead([partial(write, tmp_path, 0)], 1, 1, "files")
    assert not answers


def test_a_process_that_died_is_told_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    workers.ahead([die, partial(write, tmp_path, 1)], 1, 2, "files")
    assert "ended with code -9" in caplog.text and not list(tmp_path.iterdir())


SCRIPT = """
import time
from train import workers

def forever(advance):
    print("begun", flush=True)
    time.sleep(600)

if __name__ == "__main__":
    workers.ahead([forever], 1, 1, "x")
"""


def test_nobody_is_left_when_the_one_who_asked_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    parent = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None and parent.stdout.readline() == "begun\n"
    parent.kill()
    left, _ = parent.communicate(timeout=60)  # ends when the child no longer holds the other end of the pipe
    assert left == ""


def test_folds_are_the_same_in_one_process_and_in_two(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus(tmp_path / "mer", 90, 0)
    listed = mer2025.read(tmp_path / "mer")
    features = mer_features.load(listed, listed.names, {}, tmp_path / "cache")
    target = np.array([listed.labels.index(emotion) for emotion in listed.emotions])
    recipe = fit_mer.Recipe(folds=3, fit=Training(steps=60, batch=32, head=HeadOptions(width=16, heads=2)))
    real, before = fit_mer.descend, []

    def noted(*arguments: Any, **named: Any) -> None:
        before.append(arguments[3].is_file())
        real(*arguments, **named)

    monkeypatch.setattr(fit_mer, "descend", noted)
    (one, table), (two, other) = (
        fit_mer.fit_folds(
            features, target, listed.labels, recipe, tmp_path / str(n), np.ones(90, bool), processes=n
        )
        for n in (1, 2)
    )
    assert before == [False] * 3 + [True] * 3, "the second time others have trained the folds"
    assert table == other and table["pooled"]["accuracy"] > 0.5
    for head, again in zip(one, two, strict=True):
        for name, value in head.state_dict().items():
            assert torch.equal(value, again.state_dict()[name]), name
