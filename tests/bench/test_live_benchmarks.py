"""The benchmarks that run the live pipeline, each once and short, on the demo."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.figures import REST

pytestmark = pytest.mark.slow


@pytest.fixture
def demo(weight: Callable[[str], Path]) -> None:
    """Everything that the demo reads."""
    for name in (
        "demo-face",
        "demo-speech",
        "face-landmarker",
        "efficientnet-lite0",
        "silero-vad",
        "whisper-tiny.en",
    ):
        weight(name)


def bench(*arguments: str, json_file: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", *arguments, "--json", str(json_file), "--", "--offline", "--llm", "off"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stderr
    record: dict[str, Any] = json.loads(json_file.read_text("utf-8"))
    return record


def test_latency_of_the_demo(demo: None, tmp_path: Path) -> None:
    plot = tmp_path / "latency.png"
    record = bench(
        "bench.latency",
        "--seconds",
        "4",
        "--source",
        "demo",
        "--plot",
        str(plot),
        json_file=tmp_path / "l.json",
    )
    assert record["seconds"] >= 4
    assert record["gaps"] == 0
    face = record["capture_to_subscriber_ms"]["face"]
    assert 0 < face["p50"] <= face["p95"] <= face["max"]
    assert {"face: wait", "face: landmarks", "face: face", f"face: {REST}"} <= record["stage_ms"].keys()
    assert {"face", "scene", "voice"} <= record["engine"].keys()
    assert record["commit"]
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_annotation_of_the_demo(demo: None, tmp_path: Path) -> None:
    record = bench("bench.latency", "--fast", "--seconds", "6", json_file=tmp_path / "a.json")
    assert record["benchmark"] == "annotation"
    assert 5 <= record["media_s"] <= 6.5
    assert record["media_s_per_s"] > 0


def test_two_streams_in_one_process(demo: None, tmp_path: Path) -> None:
    record = bench("bench.throughput", "--streams", "2", "--seconds", "4", json_file=tmp_path / "t.json")
    (row,) = record["rows"]
    assert row["streams"] == 2
    assert row["face_ms"]["n"] > 0
    assert 0 <= row["unseen"] < 1
