"""Pieces of work in several processes: all done, one that dies made up for, an error reported, nobody left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from functools import partial
from multiprocessing.context import SpawnProcess
from pathlib import Path

import pytest
import torch
from torch import nn

from ecmf.errors import DataError
from train import fit_mer, workers
from train.input_dropout import InputDropout
from train.progress import Advance

from test_datasets_mer import RECIPE, corpus  # isort: skip


def write(place: Path, number: int, advance: Advance) -> None:
    (place / f"{number}-{os.getpid()}").touch()
    advance(1, "")


def fail(message: str, advance: Advance) -> None:
    raise DataError(message)


def die(advance: Advance) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


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


def test_folds_are_the_same_in_one_process_and_in_two(tmp_path: Path) -> None:
    root = corpus(tmp_path / "mer", 90, 6)
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(RECIPE)
    bundles = [
        fit_mer.main(root, tmp_path / str(n), cache=tmp_path / "cache", config=recipe, processes=n)
        for n in (1, 2)
    ]
    assert bundles[0].sha256 == bundles[1].sha256
    one, two = ((tmp_path / str(n) / "submission.csv").read_text() for n in (1, 2))
    assert one == two


@pytest.mark.parametrize("p", [0.0, 0.1, 0.3, 0.5, 1.0])
def test_dropout_by_bytes_drops_and_scales(p: float) -> None:
    torch.manual_seed(0)
    layer, values = InputDropout(p), torch.ones(200, 1001)
    shown = layer(values)
    assert float((shown == 0).float().mean()) == pytest.approx(p, abs=4e-3)
    if p < 1:
        assert float(shown.mean()) == pytest.approx(1.0, abs=1e-2)
        assert len(shown.unique()) <= 2
    assert layer.eval()(values) is values


def test_dropout_by_bytes_hides_each_place_by_itself() -> None:
    torch.manual_seed(1)
    hidden = (InputDropout(0.5)(torch.ones(4000, 16)) == 0).float()
    together = torch.corrcoef(hidden.t()) - torch.eye(16)
    assert together.abs().max() < 0.08  # 5 standard deviations of independent places
    torch.manual_seed(1)
    again = (nn.Sequential(InputDropout(0.5))(torch.ones(4000, 16)) == 0).float()
    assert torch.equal(hidden, again)
