"""Given `ecmf-models engines`, what is built is listed with its proof, found again, tuned and cleared away."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from line_bundle import keep, line

from ecmf import engines_cli
from ecmf.bundle import Bundle, write_bundle
from ecmf.engines import cache, tuned
from ecmf.engines.base import EngineSpec
from ecmf.engines.choose import BACKENDS, CPU, open_engine
from ecmf.engines.graph import INT8
from ecmf.fetch import locked
from ecmf.models_cli import main

onnx = pytest.importorskip("onnx")


pytestmark = pytest.mark.usefixtures("home")


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return line(tmp_path / "line")


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    """The JSON that a command prints."""
    assert main(["engines", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def build(bundle: Bundle, *more: str) -> list[str]:
    return ["build", "--offline", "--bundle", str(bundle.folder), *more]


def test_what_is_built_is_listed_with_its_proof(bundle: Bundle, capsys: pytest.CaptureFixture[str]) -> None:
    (built,) = run(capsys, *build(bundle, "--backend", "onnxruntime"))
    (listed,) = run(capsys, "list")
    assert listed.items() <= built.items()
    assert listed["bundle"] == bundle.id and listed["backend"] == "onnxruntime"
    assert listed["parity_error"] <= 1e-4 and listed["latency_ms"] > 0 and listed["unproven"] is None
    assert listed["bytes"] == (Path(listed["path"]) / "engine.bin").stat().st_size


def test_a_second_build_finds_the_first(bundle: Bundle, capsys: pytest.CaptureFixture[str]) -> None:
    (first,) = run(capsys, *build(bundle, "--backend", "openvino"))
    before = (Path(first["path"]) / "engine.bin").stat()
    (second,) = run(capsys, *build(bundle, "--backend", "openvino"))
    assert second == first
    assert (Path(first["path"]) / "engine.bin").stat().st_mtime_ns == before.st_mtime_ns


def test_auto_builds_what_is_fastest_here_and_ecmf_live_finds_it(
    bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    (row,) = run(capsys, *build(bundle))
    before = tuned.file().read_bytes()
    engine = open_engine(bundle)
    assert (engine.backend, engine.precision) == (row["backend"], row["precision"])
    assert tuned.file().read_bytes() == before


def test_a_batch_gets_an_engine_of_its_own(bundle: Bundle, capsys: pytest.CaptureFixture[str]) -> None:
    run(capsys, *build(bundle, "--backend", "onnxruntime"))
    (row,) = run(capsys, *build(bundle, "--backend", "onnxruntime", "--batch", "1,4"))
    assert row["spec"]["sizes"] == {"batch": [1, 4]} and row["parity_error"] <= 1e-4
    assert len(run(capsys, "list")) == 2


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["build", "--offline", "--batch", "0"], "--batch is '0'"),
        (["build", "--offline", "--batch", "many"], "--batch is 'many'"),
        (["build", "--offline", "--target", "gpu"], "--target is 'gpu'"),
        (["build", "--offline", "--bundle", "nothing"], "unknown bundle 'nothing'"),
    ],
)
def test_a_wrong_option_is_one_line(
    arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["engines", *arguments]) == 2
    lines = [text for text in capsys.readouterr().err.splitlines() if text.startswith("ecmf-models: ")]
    assert told in lines[-1]


def test_a_precision_that_a_backend_has_not_is_said(
    bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["engines", *build(bundle, "--backend", "onnxruntime", "--precision", "bf16")]) == 2
    assert "onnxruntime computes in fp32 or int8" in capsys.readouterr().err
    assert main(["engines", *build(bundle, "--precision", "int8")]) == 2
    assert "python -m train.quantize" in capsys.readouterr().err
    assert list(cache.records()) == []


def test_a_cache_that_cannot_be_written_is_one_line(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    blocker = tmp_path / "blocker"
    blocker.write_text("a file where the folder should be")
    monkeypatch.setenv("ECMF_CACHE", str(blocker))
    assert main(["engines", *build(bundle, "--backend", "onnxruntime")]) == 2
    assert "cannot keep engines" in capsys.readouterr().err


def test_prune_clears_what_nothing_here_can_load(
    bundle: Bundle, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as before:
        before.setattr(type(BACKENDS["onnxruntime"]), "identity", lambda self: "onnxruntime 0.1 on CPU")
        run(capsys, *build(bundle, "--backend", "onnxruntime"))
    (kept,) = run(capsys, *build(bundle, "--backend", "onnxruntime"))
    pruned = run(capsys, "prune")
    assert len(pruned["removed"]) == 1 and pruned["bytes"] > 0
    assert [row["path"] for row in run(capsys, "list")] == [kept["path"]]
    assert len(run(capsys, "prune", "--all")["removed"]) == 1
    assert run(capsys, "list") == []


def test_prune_clears_what_was_built_in_an_older_way(
    bundle: Bundle, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run(capsys, *build(bundle, "--backend", "onnxruntime"))
    assert run(capsys, "prune")["removed"] == []
    kind = type(BACKENDS["onnxruntime"])
    monkeypatch.setattr(kind, "revision", BACKENDS["onnxruntime"].revision + 1)
    run(capsys, *build(bundle, "--backend", "onnxruntime"))
    assert len(list(cache.records())) == 2
    assert len(run(capsys, "prune")["removed"]) == 1
    (record,) = (record for _, record in cache.records())
    assert record.revision == BACKENDS["onnxruntime"].revision


def with_twin(bundle: Bundle, slope: float, folder: Path) -> Bundle:
    """The same model with an int8 twin beside it, or what passes for one: its hash is what matters here."""
    twin = line(folder / f"twin-{slope}", slope).model
    return write_bundle(folder / "line", bundle.manifest, {**files(bundle), INT8: twin})


def files(bundle: Bundle) -> dict[str, Path | bytes]:
    return {name: (bundle.folder / name).read_bytes() for name in bundle.manifest.files if name != INT8}


def test_prune_clears_the_engines_of_a_twin_that_was_replaced(
    bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    int8 = ("--backend", "onnxruntime", "--precision", "int8")
    here = [with_twin(bundle, 2.0, tmp_path)]
    monkeypatch.setattr(engines_cli, "bundles", lambda names, *, offline: here)
    run(capsys, *build(here[0], "--backend", "onnxruntime"))
    (old,) = run(capsys, *build(here[0], *int8))
    assert run(capsys, "prune")["removed"] == []
    here[0] = with_twin(bundle, 2.001, tmp_path)
    (new,) = run(capsys, *build(here[0], *int8))
    assert run(capsys, "prune")["removed"] == [Path(old["path"]).name]
    assert {row["precision"] for row in run(capsys, "list")} == {"fp32", "int8"}
    here[0] = write_bundle(here[0].folder, bundle.manifest, files(bundle))
    assert run(capsys, "prune")["removed"] == [Path(new["path"]).name], "without a twin nothing loads it"


def test_prune_clears_an_int8_engine_of_nobody_knows_which_twin(
    bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    here = with_twin(bundle, 2.0, tmp_path)
    monkeypatch.setattr(engines_cli, "bundles", lambda names, *, offline: [here])
    (built,) = run(capsys, *build(here, "--backend", "onnxruntime", "--precision", "int8"))
    path = Path(built["path"]) / "engine.json"
    before = {name: value for name, value in json.loads(path.read_text()).items() if name != "twin_sha256"}
    path.write_text(json.dumps(before))
    assert run(capsys, "prune")["removed"] == [Path(built["path"]).name]


def test_a_build_waits_for_the_one_that_is_under_way(bundle: Bundle, home: Path) -> None:
    folder = home / "engines" / cache.key(bundle, BACKENDS["onnxruntime"], EngineSpec())
    with locked(folder.with_name(f".{folder.name}.lock")):
        process = subprocess.Popen(
            [sys.executable, "-m", "ecmf.models_cli", "engines", *build(bundle, "--backend", "onnxruntime")],
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "COLUMNS": "200"},
        )
        assert process.stderr is not None
        for told in process.stderr:
            if "waiting for another process" in told:
                break
        else:
            pytest.fail("the second build did not wait")
        assert not folder.exists()
    process.communicate(timeout=120)
    assert process.returncode == 0
    assert len(list(cache.records())) == 1


def test_tune_keeps_the_fastest_and_auto_takes_it(bundle: Bundle, capsys: pytest.CaptureFixture[str]) -> None:
    told = run(capsys, "tune", "--offline", "--bundle", str(bundle.folder))
    able = [row for row in told["rows"] if row["ms"] is not None]
    (chosen,) = [row for row in told["rows"] if row["chosen"]]
    assert {row["backend"] for row in able} == {"openvino", "onnxruntime"}
    assert chosen["ms"] == min(row["ms"] for row in able)
    assert all(row["reason"] for row in told["rows"] if row["ms"] is None)
    engine = open_engine(bundle)
    assert (engine.backend, engine.precision) == (chosen["backend"], chosen["precision"])


def test_the_list_marks_what_was_found_to_be_fastest(
    bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    for backend in CPU:
        run(capsys, *build(bundle, "--backend", backend))
    assert not any(row["chosen"] for row in run(capsys, "list"))
    for backend in CPU:
        keep(bundle, backend)
        assert [row["backend"] for row in run(capsys, "list") if row["chosen"]] == [backend]
    assert main(["engines", "list"]) == 0
    shown = capsys.readouterr().out
    record = next(cache.records())[1]
    assert "fastest here" in shown and record.identity.rpartition(" on ")[2] in shown


def test_a_new_model_of_the_same_name_makes_the_old_engine_stale(tmp_path: Path) -> None:
    first, second = line(tmp_path / "a"), line(tmp_path / "b", slope=3.0)
    for model in (first, second):
        engine = open_engine(model, backend="onnxruntime")
        x = np.ones((1, 3), np.float32)
        assert np.allclose(engine.run({"x": x})["y"], (2 if model is first else 3) * x + 1)
    assert len(list(cache.records())) == 2
