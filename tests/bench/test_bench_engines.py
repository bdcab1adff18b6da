"""Given the engines benchmark, every candidate gets a row with its figures or the reason it has none."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bench import engines


@pytest.fixture(autouse=True)
def media(weight: Callable[[str], Path]) -> None:
    for name in ("demo-smile", "demo-face", "face-landmarker"):
        weight(name)


def test_a_run_writes_figures_machine_and_reasons(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "engines.json"
    options = ["--model", "face-detector", "--runs", "3", "--json", str(out)]
    monkeypatch.setattr(sys, "argv", ["engines", *options])
    assert engines.main() == 0
    record = json.loads(out.read_text())
    assert record["options"]["threads"] == 1 and record["machine"]["processor"] and record["commit"]
    rows = {(row["backend"], row["precision"]): row for row in record["rows"]}
    run = rows["openvino", "fp32"]
    assert run["chosen"] and run["runs"] == 3 and 0 < run["p50"] <= run["p95"] <= run["p99"]
    assert run["parity_error"] <= 1e-4
    absent = rows["onnxruntime", "fp32"]
    assert absent["p50"] is None and "cannot read model.tflite" in absent["note"]
    assert "face-detector" in capsys.readouterr().out


def test_an_unknown_model_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["engines", "--model", "nothing"])
    assert engines.main() == 2
    assert "unknown bundle 'nothing'" in capsys.readouterr().err


def test_the_verdict_compares_medians_of_one_run() -> None:
    def row(backend: str, precision: str, p50: float, chosen: bool = False) -> dict[str, object]:
        return {"model": "scene", "backend": backend, "precision": precision, "p50": p50, "chosen": chosen}

    rows = [
        row("openvino", "fp32", 4.0, chosen=True),
        row("onnxruntime", "fp32", 5.0),
        row("torch", "eager", 20.0),
    ]
    (verdict,) = engines.verdicts(rows)
    assert verdict["times_faster_than_eager_torch"] == 5.0
    assert verdict["share_of_onnxruntime_fp32"] == 0.8
    assert verdict["met"] and verdict["chosen"] == "openvino fp32"
    rows[0]["p50"] = 5.3
    assert not engines.verdicts(rows)[0]["met"]  # ONNX Runtime is faster by more than 5 %
    rows[0]["p50"], rows[2]["p50"] = 5.0, 14.0
    assert not engines.verdicts(rows)[0]["met"]  # not three times as fast as eager torch
