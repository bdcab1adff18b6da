"""Given a bundle and a cache in any state, the right engine runs; a broken cache is never trusted."""

import gc
import json
import logging
import os
import threading
import time
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ecmf.bundle import Bundle, Manifest, Port, write_bundle
from ecmf.engines import cache, graph
from ecmf.engines.base import EngineSpec
from ecmf.engines.choose import BACKENDS, open_engine
from ecmf.errors import EngineError, UsageError

onnx = pytest.importorskip("onnx")

HERE = ("openvino", "onnxruntime")
"""Backends that run on any machine."""


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bundle:
    """A tiny graph, 2x + 1, with a dynamic batch; engines are kept in this test's own folder."""
    monkeypatch.setenv("ECMF_CACHE", str(tmp_path / "cache"))
    from onnx import TensorProto, helper

    constants = [helper.make_tensor(n, TensorProto.FLOAT, [1], [v]) for n, v in (("two", 2.0), ("one", 1.0))]
    nodes = [helper.make_node("Mul", ["x", "two"], ["d"]), helper.make_node("Add", ["d", "one"], ["y"])]
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, ["batch", 3]) for n in "xy")
    graph = helper.make_graph(nodes, "line", [x], [y], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    ports = (Port("x", "float32", ("batch", 3)),), (Port("y", "float32", ("batch", 3)),)
    return write_bundle(
        tmp_path / "line", Manifest("line", "1", *ports, "test"), {"model.onnx": model.SerializeToString()}
    )


X = np.arange(6, dtype=np.float32).reshape(2, 3)


@pytest.mark.parametrize("backend", HERE)
def test_every_backend_computes_the_graph_twice_from_one_build(bundle: Bundle, backend: str) -> None:
    for _ in range(2):
        assert np.allclose(open_engine(bundle, backend=backend).run({"x": X})["y"], 2 * X + 1)
    ((_, record),) = cache.records()
    assert record.backend == backend and record.size > 0


@pytest.mark.parametrize("backend", HERE)
@pytest.mark.parametrize("damage", ["truncate", "flip", "empty", "record"])
def test_a_damaged_engine_is_built_again(
    bundle: Bundle, backend: str, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    open_engine(bundle, backend=backend)
    ((folder, _),) = cache.records()
    path = folder / "engine.bin"
    content = path.read_bytes()
    match damage:
        case "truncate":
            path.write_bytes(content[: len(content) // 2])
        case "flip":
            path.write_bytes(bytes([content[0] ^ 255]) + content[1:])
        case "empty":
            path.write_bytes(b"")
        case "record":
            (folder / "engine.json").write_text("{")
    with caplog.at_level(logging.WARNING):
        engine = open_engine(bundle, backend=backend)
    assert np.allclose(engine.run({"x": X})["y"], 2 * X + 1)
    assert "built again" in caplog.text
    ((_, record),) = cache.records()
    assert cache.sha256_of(path) == record.engine_sha256


@pytest.mark.parametrize("lost", ["engine.bin", "engine.json"])
def test_building_makes_up_for_a_lost_file(bundle: Bundle, lost: str) -> None:
    spec = EngineSpec()
    folder, _ = cache.build(BACKENDS["onnxruntime"], bundle, spec)
    (folder / lost).unlink()
    again, record = cache.build(BACKENDS["onnxruntime"], bundle, spec)
    assert again == folder and cache.sha256_of(folder / "engine.bin") == record.engine_sha256


def rewrite(folder: Path, **changed: object) -> None:
    record = json.loads((folder / "engine.json").read_text("utf-8"))
    (folder / "engine.json").write_text(json.dumps(record | changed), "utf-8")


@pytest.mark.parametrize("backend", HERE)
@pytest.mark.parametrize("keep", [0, 40, 0.5, 0.95])
def test_an_engine_that_its_backend_refuses_is_built_again(
    bundle: Bundle, backend: str, keep: float, caplog: pytest.LogCaptureFixture
) -> None:
    """Given a truncated file whose record says that it is whole, so that the backend itself has to notice."""
    open_engine(bundle, backend=backend)
    ((folder, _),) = cache.records()
    path = folder / "engine.bin"
    whole = path.read_bytes()
    path.write_bytes(whole[: keep if isinstance(keep, int) else round(keep * len(whole))])
    rewrite(folder, engine_sha256=cache.sha256_of(path))
    with caplog.at_level(logging.WARNING):
        engine = open_engine(bundle, backend=backend)
    assert np.allclose(engine.run({"x": X})["y"], 2 * X + 1)
    assert "built again" in caplog.text
    assert len(path.read_bytes()) > 0.9 * len(whole)


@pytest.mark.parametrize("backend", HERE)
@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"identity": "onnxruntime 0.1 on another processor"}, "is of onnxruntime 0.1 on another processor"),
        ({"model_sha256": "0" * 64, "bundle": "circle-1+00000000"}, "another model, circle-1"),
        ({"surplus": 1}, "surplus"),
    ],
)
def test_an_engine_of_elsewhere_in_this_ones_place_is_built_again(
    bundle: Bundle, backend: str, changed: dict[str, object], told: str, caplog: pytest.LogCaptureFixture
) -> None:
    open_engine(bundle, backend=backend)
    ((folder, _),) = cache.records()
    rewrite(folder, **changed)
    with caplog.at_level(logging.WARNING):
        engine = open_engine(bundle, backend=backend)
    assert np.allclose(engine.run({"x": X})["y"], 2 * X + 1)
    assert told in caplog.text and "built again" in caplog.text


def test_another_version_or_device_gets_its_own_engine(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = BACKENDS["onnxruntime"]
    open_engine(bundle, backend="onnxruntime")
    monkeypatch.setattr(type(backend), "identity", lambda self: "onnxruntime-99.0-other")
    open_engine(bundle, backend="onnxruntime")
    assert {record.identity for _, record in cache.records()} >= {"onnxruntime-99.0-other"}
    assert len(list(cache.records())) == 2


def test_another_way_of_building_gets_its_own_engine(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = BACKENDS["onnxruntime"]
    before = cache.key(bundle, backend, EngineSpec())
    monkeypatch.setattr(type(backend), "revision", backend.revision + 1)
    assert cache.key(bundle, backend, EngineSpec()) != before


def test_an_engine_of_another_int8_twin_is_another(bundle: Bundle) -> None:
    backend, spec = BACKENDS["onnxruntime"], EngineSpec("int8")
    twins = [
        replace(
            bundle, manifest=replace(bundle.manifest, files={**bundle.manifest.files, graph.INT8: sha256})
        )
        for sha256 in ("1" * 64, "2" * 64)
    ]
    first, second = (cache.key(twin, backend, spec) for twin in twins)
    assert first != second
    assert len({cache.key(twin, backend, EngineSpec()) for twin in twins}) == 1, "fp32 does not read it"


def test_an_unwritable_cache_is_a_warning(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    blocker = tmp_path / "blocker"
    blocker.write_text("a file where the folder should be")
    monkeypatch.setenv("ECMF_CACHE", str(blocker))
    with caplog.at_level(logging.WARNING):
        engine = open_engine(bundle)
    assert np.allclose(engine.run({"x": X})["y"], 2 * X + 1)
    assert "cannot keep engines" in caplog.text


def test_an_interrupted_build_leaves_nothing(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(self: object, bundle: Bundle, spec: EngineSpec, target: Path) -> None:
        target.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(type(BACKENDS["onnxruntime"]), "build", interrupted)
    with pytest.raises(KeyboardInterrupt):
        open_engine(bundle, backend="onnxruntime")
    left = [p for p in (cache.cache_dir() / "engines").rglob("*") if not p.name.endswith(".lock")]
    assert left == []


def test_an_unknown_backend_names_the_known(bundle: Bundle) -> None:
    with pytest.raises(UsageError, match="openvino"):
        open_engine(bundle, backend="magic")


@pytest.mark.parametrize("backend", HERE)
@pytest.mark.parametrize(
    "inputs",
    [
        {"z": X},
        {"x": X.reshape(3, 2)},
        {"x": X.astype(np.int64)},
        {"x": np.zeros((2, 3, 1), np.float32)},
        {"x": np.array([["a", "b", "c"]])},
    ],
    ids=["name", "shape", "type", "rank", "text"],
)
def test_an_engine_that_fails_in_the_middle_is_an_engine_error_and_goes_on(
    bundle: Bundle, backend: str, inputs: dict[str, NDArray[Any]]
) -> None:
    engine = open_engine(bundle, backend=backend)
    with pytest.raises(EngineError, match=backend):
        engine.run(inputs)
    assert np.allclose(engine.run({"x": X})["y"], 2 * X + 1)


@pytest.mark.parametrize("backend", HERE)
def test_an_answer_stays_when_the_next_one_is_computed(bundle: Bundle, backend: str) -> None:
    engine = open_engine(bundle, backend=backend)
    mine = X.copy()
    first = engine.run({"x": mine})["y"]
    mine[:] = 7
    assert np.allclose(engine.run({"x": mine[:1]})["y"], 15)
    assert np.allclose(first, 2 * X + 1)


@pytest.mark.parametrize("backend", HERE)
def test_many_callers_share_what_is_loaded_and_none_sees_anothers_answers(
    bundle: Bundle, backend: str
) -> None:
    engines: list[Any] = [open_engine(bundle, backend=backend) for _ in range(9)]
    held = {id(e._session if backend == "onnxruntime" else e._compiled) for e in engines}
    assert len(held) <= (1 if backend == "onnxruntime" else len(os.sched_getaffinity(0)))
    wrong: list[int] = []
    together = threading.Barrier(len(engines))

    def work(number: int) -> None:
        mine = np.full((number + 1, 3), number, np.float32)
        together.wait()
        for _ in range(50):
            if not np.array_equal(engines[number].run({"x": mine})["y"], 2 * mine + 1):
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(len(engines))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_model_in_which_somebody_hangs_is_loaded_anew(bundle: Bundle) -> None:
    engines: list[Any] = [open_engine(bundle, backend="openvino") for _ in range(8)]
    for engine in engines:
        engine._running[0] = time.monotonic() - 60.0  # as if its run had never returned
    fresh: Any = open_engine(bundle, backend="openvino")
    assert all(fresh._compiled is not engine._compiled for engine in engines) and not fresh.stuck
    assert np.allclose(fresh.run({"x": X})["y"], 2 * X + 1)
    assert not fresh.stuck and not fresh._running


def test_what_nobody_uses_any_more_is_not_kept(bundle: Bundle) -> None:
    first = open_engine(bundle, backend="openvino")
    second: Any = open_engine(bundle, backend="openvino")
    gone = weakref.ref(first)
    del first, second
    gc.collect()
    assert gone() is None


def test_openvino_ties_no_model_to_a_core(bundle: Bundle) -> None:
    engine = open_engine(bundle, backend="openvino")
    compiled = engine._request.get_compiled_model()  # type: ignore[attr-defined]
    assert compiled.get_property("ENABLE_CPU_PINNING") is False
    assert compiled.get_property("INFERENCE_NUM_THREADS") == 1
