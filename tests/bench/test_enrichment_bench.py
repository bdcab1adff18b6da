"""The comparison of logits with and without a language model, and answers that survive an interruption."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from bench.enrichment import OutOfTime, answers, compared, flat, log_loss
from train.datasets.meld import Line


def line(number: int, text: str) -> Line:
    return Line("dev", "0", number, "Ann", "neutral", text)


def test_the_same_logits_gain_nothing_and_better_ones_do() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 7, 300)
    base = rng.normal(size=(300, 7)).astype(np.float32)
    groups = [str(k // 10) for k in range(300)]
    same = compared(base, base, truth, groups)
    assert (same["gain"], same["log_loss_gain"], same["gain_95"]) == (0.0, 0.0, (0.0, 0.0))
    better = compared(base, base + 3 * np.eye(7, dtype=np.float32)[truth], truth, groups)
    assert 0 < better["gain_95"][0] <= better["gain"] <= better["gain_95"][1]
    assert better["log_loss_gain_95"][0] > 0
    assert log_loss(np.zeros((300, 7), np.float32), truth) == pytest.approx(np.log(7), rel=1e-4)


def test_answers_go_on_where_they_were_interrupted(tmp_path: Path, weight: Callable[[str], Path]) -> None:
    pytest.importorskip("llama_cpp", reason="needs the llm extra")
    model = weight("smollm2-135m")
    lines = [line(0, "We won!"), line(1, "Okay.")]
    answers(model, lines[:1], 0, tmp_path)
    (kept,) = tmp_path.glob("*-dev-0.jsonl")
    kept.write_text(json.dumps(["as it was", [1.0, 0, 0, 0, 0, 0, 0], 5.0, 4.0]) + "\n")
    with pytest.raises(OutOfTime, match="1 of 2"):
        answers(model, lines, 0, tmp_path, until=0.0)
    found, times = answers(model, lines, 0, tmp_path)
    assert [found[0].cues, times[0]] == ["as it was", 4.0]
    assert found[1].scores.sum() == pytest.approx(1, abs=1e-5)
    assert len(kept.read_text().splitlines()) == 2


def test_figures_are_written_as_flat_tables() -> None:
    row = {
        "model": "m.gguf",
        "dev_lines": 2,
        "dev_log_loss_gain_scores": {"0": 0.01, "4": 0.02},
        "dev_log_loss_gain_cues": {"0": -0.01, "4": -0.02},
        "test": {"text alone": {"weighted_f1": 0.5, "gain": 0.0, "gain_95": (-0.1, 0.1)}},
    }
    figures = flat([row])
    assert figures["models"][0]["dev_log_loss_gain_scores_4_lines"] == 0.02
    assert figures["test"] == [
        {
            "model": "m.gguf",
            "setting": "text alone",
            "weighted_f1": 0.5,
            "gain": 0.0,
            "gain_low": -0.1,
            "gain_high": 0.1,
        }
    ]
