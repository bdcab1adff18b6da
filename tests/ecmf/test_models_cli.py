"""`ecmf-models`: what a person sees, and what it returns."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from loopback_hub import BYTES, Hub, entry, serve, table

from ecmf import fetch, models_cli, weights
from ecmf.registry import Registry, read_registry, registry


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A registry with one weight on a loopback hub, and an empty cache."""
    known = read_registry(table(entry()))

    def small() -> Registry:
        return known

    for module in (weights, models_cli):
        monkeypatch.setattr(module, "registry", small)
    monkeypatch.setattr(fetch, "_unreachable", {})
    monkeypatch.setenv("ECMF_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("ECMF_WEIGHTS_DIR", raising=False)
    with serve(Hub({"main/toy.bin": BYTES})) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.address)
        yield hub


def test_pull_list_verify(toy: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "cache" / "weights" / "toy" / "toy.bin"
    assert models_cli.main(["list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["weights"][0]["path"] is None

    assert models_cli.main(["pull", "toy", "--json"]) == 0
    answer = capsys.readouterr()
    assert json.loads(answer.out) == {"weights": {"toy": str(path)}, "models": {}}
    assert "toy.bin" in answer.err  # the progress bar

    assert models_cli.main(["list", "--json"]) == 0
    row = json.loads(capsys.readouterr().out)["weights"][0]
    assert (row["path"], row["licence"], row["bytes"]) == (str(path), "CC0", len(BYTES))
    assert models_cli.main(["list"]) == 0
    assert "toy" in capsys.readouterr().out

    assert models_cli.main(["verify", "toy", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == [{"name": "toy", "state": "ok", "path": str(path)}]
    path.write_bytes(BYTES[::-1])
    assert models_cli.main(["verify"]) == 2
    assert "toy: not the bytes that were expected; run `ecmf-models pull toy`" in capsys.readouterr().err
    assert models_cli.main(["pull", "toy"]) == 0
    assert path.read_bytes() == BYTES


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["pull", "tou"], "unknown weight or model 'tou'; did you mean toy?"),
        (["pull", "zzzzzz"], "unknown weight or model 'zzzzzz'; `ecmf-models list` shows what there is"),
        (["pull", "toy", "--offline"], "run `ecmf-models pull toy` once with a network"),
        (["pull", "--group", "lively"], "unknown group 'lively'; choose live, llm, demo, train, extra"),
        (["verify", "toy"], "toy: not here; run `ecmf-models pull toy`"),
        (["list", "--weights-dir", "/nonexistent"], "/nonexistent, which is not a folder"),
    ],
)
def test_errors_are_one_line_and_exit_2(
    toy: Hub,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ECMF_WEIGHTS_DIR", "")  # restored after --weights-dir has set it
    assert models_cli.main(arguments) == 2
    line = capsys.readouterr().err
    assert line.startswith("ecmf-models: ") and line.count("\n") == 1 and said in line
    assert toy.ranges == []


def test_usage_errors_exit_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        models_cli.main(["pulll"])
    assert stop.value.code == 2 and "invalid choice: 'pulll'" in capsys.readouterr().err


def test_default_pull_is_what_a_live_run_needs() -> None:
    names = {w.name for group in models_cli._default_groups() for w in registry().group(group)}
    assert names >= {
        "face-landmarker",
        "efficientnet-lite0",
        "silero-vad",
        "demo-face",
        "demo-speech",
    }
    assert not names & {"minilm-fp32", "minilm-int8", "retinaface", "whisper-base"}


def test_a_model_by_name_brings_its_weights(
    weight: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    weight("face-landmarker")
    assert models_cli.main(["pull", "face-blendshapes", "--offline", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert set(answer["weights"]) == {"face-landmarker"}
    assert (Path(answer["models"]["face-blendshapes"]) / "manifest.json").is_file()


def test_verify_looks_at_models_too(
    weight: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("ECMF_WEIGHTS_DIR", str(weight("face-landmarker").parent.parent))
    monkeypatch.setenv("ECMF_CACHE", str(tmp_path))
    model = weights.imported("face-blendshapes", offline=True).model
    assert models_cli.main(["verify"]) == 0
    assert f"ok        model face-blendshapes  {model.parent}" in capsys.readouterr().out
    model.write_bytes(model.read_bytes()[:-1])
    assert models_cli.main(["verify"]) == 2
    assert "face-blendshapes: not the bytes that were expected; run" in capsys.readouterr().err
    assert models_cli.main(["pull", "face-blendshapes", "--offline"]) == 0
    assert models_cli.main(["verify"]) == 0


def test_a_reader_that_stops_reading_is_no_error() -> None:
    command = f"{sys.executable} -m ecmf.models_cli list --json | head -c 1"
    result = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command}"], capture_output=True, text=True, check=False
    )
    assert result.stdout == "{" and result.stderr == "" and result.returncode == 0
