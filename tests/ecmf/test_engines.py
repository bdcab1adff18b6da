"""Given a bundle and a cache in any state, the right engine runs; a broken cache is never trusted."""

import logging
from pathlib import Path

import numpy as np
import pytest

from ecmf.bundle import Bundle, Manifest, Port, write_bundle
from ecmf.engines import cache
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


def test_another_version_or_device_gets_its_own_engine(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = BACKENDS["onnxruntime"]
    open_engine(bundle, backend="onnxruntime")
    monkeypatch.setattr(type(backend), "identity", lambda self: "onnxruntime-99.0-other")
    open_engine(bundle, backend="onnxruntime")
    assert {record.identity for _, record in cache.records()} >= {"onnxruntime-99.0-other"}
    assert len(list(cache.records())) == 2


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


def test_a_wrong_input_is_an_engine_error(bundle: Bundle) -> None:
    for backend in HERE:
        with pytest.raises(EngineError):
            open_engine(bundle, backend=backend).run({"z": X})


def test_openvino_ties_no_model_to_a_core(bundle: Bundle) -> None:
    engine = open_engine(bundle, backend="openvino")
    compiled = engine._request.get_compiled_model()  # type: ignore[attr-defined]
    assert compiled.get_property("ENABLE_CPU_PINNING") is False
    assert compiled.get_property("INFERENCE_NUM_THREADS") == 1
