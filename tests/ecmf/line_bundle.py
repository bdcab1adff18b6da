"""A tiny model to build engines of, and a choice of engine as if it had been measured."""

from pathlib import Path

import numpy as np

from ecmf import golden
from ecmf.bundle import Bundle, Manifest, Port, write_bundle
from ecmf.engines import tuned
from ecmf.engines.base import EngineSpec
from ecmf.engines.choose import CPU


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


def keep(bundle: Bundle, backend: str, spec: EngineSpec | None = None) -> None:
    """As if this backend had been measured to be fastest."""
    spec = spec or EngineSpec()
    other = next(name for name in CPU if name != backend)
    choice = tuned.Choice(backend, "fp32", 0.1, {other: "slower here (9.00 ms)"})
    tuned.store({tuned.key(bundle, spec, None): choice})
