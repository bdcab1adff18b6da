"""Given `ecmf-models engines`, what is built is listed with its proof, found again, tuned and cleared away."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ecmf import golden
from ecmf.bundle import Bundle, Manifest, Port, write_bundle
from ecmf.engines import cache, contest, tuned
from ecmf.engines.base import EngineSpec
from ecmf.engines.choose import BACKENDS, CPU, open_engine
from ecmf.fetch import locked
from ecmf.models_cli import main

onnx = pytest.importorskip("onnx")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of this test's own."""
    folder = tmp_path / "cache"
    folder.mkdir()
    monkeypatch.setenv("ECMF_CACHE", str(folder))
    return folder


def line(folder: Path, slope: float = 2.0) -> Bundle:
    """slope * x + 1 over a free batch, with a golden input."""
    from onnx import TensorProto, helper

    values = (("slope", slope), ("one", 1.0))
    constants = [helper.make_tensor(name, TensorProto.FLOAT, [1], [value]) for name, value in values]
    nodes = [helper.make_node("Mul", ["x", "slope"], ["d"]), helper.make_node("Add", ["d", "one"], ["y"])]
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, ["batch", 3]) for n in "xy")
    graph = helper.make_graph(nodes, "line", [x], [y], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    ports = (Port("x", "float32", ("batch", 3)),), (Port("y", "float32", ("batch", 3)),)
    sample = np.array([[1, 2, 3]], np.float32)
    files: dict[str, Path | bytes] = {
        "model.onnx": model.SerializeToString(),
        "golden.json": golden.write([{"inputs": {"x": sample}, "outputs": {"y": slope * sample + 1}}]),
    }
    return write_bundle(folder, Manifest("line", "1", *ports, "test"), files)


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


def keep(bundle: Bundle, backend: str, spec: EngineSpec | None = None) -> None:
    """As if this backend had been measured to be fastest."""
    spec = spec or EngineSpec()
    other = next(name for name in CPU if name != backend)
    choice = tuned.Choice(backend, "fp32", 0.1, {other: "slower here (9.00 ms)"})
    tuned.store({tuned.key(bundle, spec, None): choice})


def test_the_first_start_on_a_machine_measures_and_the_next_ones_know(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = open_engine(bundle)
    choice = tuned.choice(bundle, EngineSpec())
    assert choice is not None and choice.backend == first.backend and choice.ms > 0
    assert {record.backend for _, record in cache.records()} == set(CPU)

    def again(*arguments: object) -> None:
        raise AssertionError("measured a second time")

    monkeypatch.setattr(contest, "fastest_ms", again)
    second = open_engine(bundle)
    assert (second.backend, second.fallback) == (first.backend, first.fallback)


@pytest.mark.parametrize("fastest", CPU)
def test_the_fastest_that_was_measured_runs_and_says_what_it_beat(
    bundle: Bundle, fastest: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        contest, "fastest_ms", lambda engines, inputs: [1.0 if e.backend == fastest else 2.5 for e in engines]
    )
    engine = open_engine(bundle)
    assert engine.backend == fastest and engine.fallback
    slower = f"openvino: slower here (2.50 ms; {fastest} takes 1.00 ms)"
    assert (slower in engine.fallback) is (fastest == "onnxruntime")


@pytest.mark.parametrize(
    ("openvino_ms", "onnxruntime_ms", "chosen"),
    [
        (9.8, 10.0, "onnxruntime"),
        (9.0, 10.0, "openvino"),
        (0.45, 0.5, "onnxruntime"),
        (0.35, 0.5, "openvino"),
    ],
)
def test_a_tie_goes_to_onnx_runtime(
    bundle: Bundle,
    openvino_ms: float,
    onnxruntime_ms: float,
    chosen: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    times = {"openvino": openvino_ms, "onnxruntime": onnxruntime_ms}
    monkeypatch.setattr(contest, "fastest_ms", lambda engines, inputs: [times[e.backend] for e in engines])
    assert open_engine(bundle).backend == chosen


class Sleeper:
    """An engine that waits ``wall_ms``, or computes that long, in turn with another."""

    backend, precision, fallback = "test", "fp32", None

    def __init__(self, clock: dict[str, float], wall_s: float, here_s: float) -> None:
        self._clock, self._wall_s, self._here_s = clock, wall_s, here_s

    def run(self, inputs: object) -> dict[str, Any]:
        self._clock["wall"] += self._wall_s
        self._clock["here"] += self._here_s
        return {}


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ((4.0, 3.0), (9.0, 2.0), [4000.0, 9000.0]),  # the second computes elsewhere: wall time counts
        ((9.0, 3.0), (4.0, 2.0), [3000.0, 2000.0]),
    ],
)
def test_processor_time_counts_where_engines_compute_in_the_calling_thread(
    first: tuple[float, float],
    second: tuple[float, float],
    expected: list[float],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = {"wall": 0.0, "here": 0.0}
    monkeypatch.setattr(contest.time, "perf_counter", lambda: clock["wall"])
    monkeypatch.setattr(contest.time, "thread_time", lambda: clock["here"])
    engines: Any = [Sleeper(clock, *first), Sleeper(clock, *second)]
    assert contest.fastest_ms(engines, [{}]) == expected


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


def test_shapes_threads_and_precision_are_measured_apart(bundle: Bundle) -> None:
    open_engine(bundle)
    for spec in (EngineSpec(threads=2), EngineSpec(shapes={"x": (1, 3)})):
        assert tuned.choice(bundle, spec) is None
        open_engine(bundle, threads=spec.threads, shapes=spec.shapes)
        assert tuned.choice(bundle, spec) is not None
    assert tuned.choice(bundle, EngineSpec(), "fp32") is None


def test_a_choice_made_on_another_machine_is_not_used(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    for backend in CPU:
        keep(bundle, backend)
        assert open_engine(bundle).backend == backend
    monkeypatch.setattr(tuned, "fingerprint", lambda: {"processor": "another"})
    assert tuned.choice(bundle, EngineSpec()) is None


@pytest.mark.parametrize("content", ["", "{", "[]", '{"machine": 1}'])
def test_a_broken_choice_file_is_measured_again(bundle: Bundle, content: str) -> None:
    keep(bundle, "openvino")
    tuned.file().write_text(content)
    assert tuned.choice(bundle, EngineSpec()) is None
    engine = open_engine(bundle)
    choice = tuned.choice(bundle, EngineSpec())
    assert choice is not None and choice.backend == engine.backend


def test_an_asked_for_precision_is_not_overruled_by_tuning(bundle: Bundle) -> None:
    spec = EngineSpec()
    tuned.store({tuned.key(bundle, spec, None): tuned.Choice("openvino", "bf16", 0.1)})
    assert open_engine(bundle, precision="fp32").precision == "fp32"


def test_a_chosen_backend_that_fails_gives_way_to_the_other(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(bundle, "onnxruntime")
    monkeypatch.setattr(type(BACKENDS["onnxruntime"]), "probe", lambda self: (False, "it is gone"))
    assert open_engine(bundle).backend == "openvino"


def test_a_new_model_of_the_same_name_makes_the_old_engine_stale(tmp_path: Path) -> None:
    first, second = line(tmp_path / "a"), line(tmp_path / "b", slope=3.0)
    for model in (first, second):
        engine = open_engine(model, backend="onnxruntime")
        x = np.ones((1, 3), np.float32)
        assert np.allclose(engine.run({"x": x})["y"], (2 if model is first else 3) * x + 1)
    assert len(list(cache.records())) == 2
