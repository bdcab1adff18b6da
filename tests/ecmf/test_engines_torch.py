"""Given a bundle, torch computes the same from its graph, eagerly and compiled."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ecmf import golden
from ecmf.bundle import SHIPPED, Bundle, Manifest, Port, load_bundle, write_bundle
from ecmf.engines import parity, torch_graph
from ecmf.engines.aoti import AotiBackend
from ecmf.engines.base import EngineSpec, Unsuitable
from ecmf.engines.profiles import profiles
from ecmf.errors import EngineError

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")


@pytest.fixture
def line(tmp_path: Path) -> Bundle:
    """2x + 1 over a free batch."""
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


@pytest.mark.parametrize(
    "name",
    [
        "face",
        pytest.param("text", marks=pytest.mark.slow),
        pytest.param("scene", marks=pytest.mark.slow),
        pytest.param("speech", marks=pytest.mark.slow),
    ],
)
def test_torch_computes_what_the_graph_says(
    bundle: Callable[..., Bundle], weight: Callable[[str], Path], name: str
) -> None:
    for media in ("demo-smile", "demo-face", "demo-speech-short", "face-landmarker"):
        weight(media)
    if name == "scene":
        model = bundle("scene", "efficientnet-lite0")
    elif name == "speech":
        model = bundle("speech-tiny.en", "whisper-tiny.en")
    else:
        model = load_bundle(SHIPPED / name)
    module, reference = torch_graph.module(model), parity.Reference(model)
    sample = golden.inputs(model)[0]
    with torch.no_grad():
        found = module(*(torch.from_numpy(sample[port.name].copy()) for port in model.manifest.inputs))
    expected = reference.run(sample)
    for port, tensor in zip(model.manifest.outputs, found, strict=True):
        assert parity.relative_error(tensor.numpy(), expected[port.name]) < 1e-4


@pytest.mark.slow
def test_words_of_any_number_stay_a_free_size_when_exported() -> None:
    text = load_bundle(SHIPPED / "text")
    (profile,) = profiles(text, EngineSpec())
    exported, examples = torch_graph.program(text, EngineSpec(), profile, "cpu")
    sample = golden.inputs(text)[0]
    assert sample["ids"].shape != tuple(examples[0].shape)
    with torch.no_grad():
        found = exported.module()(*(torch.from_numpy(sample[port.name]) for port in text.manifest.inputs))
    expected = parity.Reference(text).run(sample)["embedding"]
    assert parity.relative_error(found[0].numpy(), expected) < 1e-4


@pytest.mark.slow
def test_a_compiled_package_runs_every_profile_and_refuses_other_shapes(line: Bundle, tmp_path: Path) -> None:
    backend, spec = AotiBackend("cpu"), EngineSpec(sizes={"batch": (1, 4)})
    backend.build(line, spec, tmp_path / "engine")
    engine = backend.load(tmp_path / "engine", line, spec)
    for batch in (1, 4):
        x = np.arange(3 * batch, dtype=np.float32).reshape(batch, 3)
        assert np.allclose(engine.run({"x": x})["y"], 2 * x + 1)
    with pytest.raises(EngineError, match="no profile"):
        engine.run({"x": np.zeros((2, 3), np.float32)})
    with pytest.raises(EngineError, match="missing"):
        engine.run({"z": np.zeros((1, 3), np.float32)})


def test_a_truncated_package_is_an_engine_error(line: Bundle, tmp_path: Path) -> None:
    path = tmp_path / "engine"
    path.write_bytes(b"PK\x03\x04 half a package")
    with pytest.raises(EngineError, match="cannot load"):
        AotiBackend("cpu").load(path, line, EngineSpec())


def test_an_operator_that_is_not_covered_is_named(tmp_path: Path) -> None:
    from onnx import TensorProto, helper

    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 3]) for n in "xy")
    graph = helper.make_graph([helper.make_node("Hardmax", ["x"], ["y"])], "odd", [x], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    ports = (Port("x", "float32", (1, 3)),), (Port("y", "float32", (1, 3)),)
    odd = write_bundle(
        tmp_path / "odd", Manifest("odd", "1", *ports, "test"), {"model.onnx": model.SerializeToString()}
    )
    with pytest.raises(Unsuitable, match="Hardmax"):
        torch_graph.module(odd)
