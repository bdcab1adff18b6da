"""The graph that a backend compiles: a bundle's own, or the same in another number format."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ecmf.bundle import INT8, Bundle
from ecmf.engines.base import Precision, Unsuitable
from ecmf.errors import BundleError, need

DYNAMIC = "DynamicQuantizeLinear"
"""Marks a graph with int8 weights whose activations are quantized as it runs: only ONNX Runtime is fast at that."""
DELICATE = frozenset({"ReduceMean", "ReduceSum", "Pow", "Sqrt", "Reciprocal", "Div", "Range", "IsNaN"})
"""Kept in float32 by `narrowed`: sums and squares leave float16's range, and these cost next to nothing."""
TINY = float(np.finfo(np.float16).smallest_normal)


def path_of(bundle: Bundle, precision: Precision) -> Path:
    """The file that holds the graph: the calibrated twin for int8. Raises Unsuitable when there is none."""
    if precision != "int8":
        return bundle.model
    if INT8 not in bundle.manifest.files:
        raise Unsuitable(
            f"{bundle.id} has no int8 graph; python -m train.quantize makes one for face and scene"
        )
    return bundle.folder / INT8


def read(bundle: Bundle, precision: Precision, *, floating: bool = True) -> Any:
    """The ONNX model of ``bundle`` in ``precision``'s own number types; float32 at its inputs and outputs.

    ``floating``: replace int8 weights with run-time quantization by float ones, which is what compilers take.
    Raises Unsuitable for a graph that is not ONNX or has no int8 twin, BundleError for a broken one.
    """
    path = path_of(bundle, precision)
    if path.suffix != ".onnx":
        raise Unsuitable(f"{bundle.id} is a TensorFlow Lite graph, which only OpenVINO reads")
    onnx = need("onnx", "live")
    try:
        model = onnx.load(path)
    except (OSError, ValueError, onnx.onnx_cpp2py_export.checker.ValidationError) as error:
        raise BundleError(f"{path} is no ONNX graph ({error}); pull or export it again") from None
    except need("google.protobuf.message", "live").DecodeError:
        raise BundleError(f"{path} is no ONNX graph; pull or export it again") from None
    if floating:
        model = with_float_weights(model)
    if precision in ("fp16", "bf16"):
        model = narrowed(model, precision)
    return model


def quantizes_as_it_runs(path: Path) -> bool:
    """Whether the ONNX file has nodes that quantize activations at run time."""
    return path.suffix == ".onnx" and DYNAMIC.encode() in path.read_bytes()


def with_float_weights(model: Any) -> Any:
    """A copy whose int8 weights are float32 again and whose activations are not quantized at all.

    Undoes the patterns of ONNX Runtime's ``quantize_dynamic`` (products of MatMulInteger, and look-ups in a quantized
    table) and int8 weights that the graph itself casts to float. What it computes differs from the original by the
    rounding of activations that it leaves out, and not at all where there is none.
    """
    onnx = need("onnx", "live")
    helper, numpy_helper = onnx.helper, onnx.numpy_helper
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    weights = {i.name: i for i in graph.initializer}
    makers = {name: node for node in graph.node for name in node.output}
    users: dict[str, list[Any]] = {}
    for node in graph.node:
        for name in node.input:
            users.setdefault(name, []).append(node)

    def value(name: str) -> Any:
        return numpy_helper.to_array(weights[name])

    def floats(name: str, table: Any) -> str:
        graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(table, np.float32), name))
        return name

    known: set[str] = set()
    replaced: dict[str, Any] = {}  # output of a node -> the node that takes its place
    for node in graph.node:
        if node.op_type == "MatMulInteger":
            cast = users[node.output[0]][0]
            product = users[cast.output[0]][0]
            scales = makers[next(name for name in product.input if name != cast.output[0])]
            scale = value(next(name for name in scales.input if name in weights))
            zero = value(node.input[3]).astype(np.float32) if len(node.input) > 3 else np.float32(0)
            table = floats(
                f"{product.output[0]}.weight", (value(node.input[1]).astype(np.float32) - zero) * scale
            )
            source = makers[node.input[0]].input[0]
            replaced[product.output[0]] = helper.make_node(
                "MatMul", [source, table], [product.output[0]], name=product.name
            )
        elif node.op_type == "DequantizeLinear" and node.input[0] in makers:
            look_up = makers[node.input[0]]
            if look_up.op_type == "Gather" and look_up.input[0] in weights:
                scale, zero = value(node.input[1]), value(node.input[2]).astype(np.float32)
                source = look_up.input[0]
                table = floats(f"{node.output[0]}.weight", (value(source).astype(np.float32) - zero) * scale)
                new = helper.make_node(
                    "Gather", [table, look_up.input[1]], [node.output[0]], name=look_up.name
                )
                new.attribute.extend(look_up.attribute)
                replaced[node.output[0]] = new
        elif node.op_type == "Cast" and node.attribute[0].i == onnx.TensorProto.FLOAT:
            source = node.input[0]
            look_up = makers.get(source)
            if look_up is not None and look_up.op_type == "Gather":
                source = look_up.input[0]
            if source not in weights or value(source).dtype not in (np.int8, np.uint8):
                continue
            if f"{source}.float" not in known:
                known.add(floats(f"{source}.float", value(source)))
            name = node.output[0]
            if look_up is None:
                replaced[name] = helper.make_node("Identity", [f"{source}.float"], [name], name=node.name)
            else:
                new = helper.make_node(
                    "Gather", [f"{source}.float", look_up.input[1]], [name], name=look_up.name
                )
                new.attribute.extend(look_up.attribute)
                replaced[name] = new
    nodes = [replaced.get(node.output[0], node) for node in graph.node]
    _keep(graph, _needed(nodes, {o.name for o in graph.output}))
    del graph.value_info[:]
    return result


def _needed(nodes: list[Any], wanted: set[str]) -> list[Any]:
    """Those of ``nodes``, in order, that lead to the ``wanted`` tensors."""
    kept = []
    for node in reversed(nodes):
        if wanted & set(node.output):
            kept.append(node)
            wanted |= set(node.input)
    return kept[::-1]


def _keep(graph: Any, nodes: list[Any]) -> None:
    """Replace the nodes, and drop the weights that none of them reads."""
    del graph.node[:]
    graph.node.extend(nodes)
    read_names = {name for node in nodes for name in node.input}
    kept = [i for i in graph.initializer if i.name in read_names]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def narrowed(model: Any, precision: Precision) -> Any:
    """A copy that computes in float16 or bfloat16 between float32 inputs and outputs; DELICATE nodes stay float32.

    For a graph whose float tensors are all float32. TensorRT 11 has no precision flags: types say it all.
    """
    onnx = need("onnx", "live")
    helper, wide = onnx.helper, onnx.TensorProto.FLOAT
    narrow = onnx.TensorProto.FLOAT16 if precision == "fp16" else onnx.TensorProto.BFLOAT16
    model = onnx.shape_inference.infer_shapes(model)
    graph = model.graph
    known = {v.name: v.type.tensor_type.elem_type for v in (*graph.value_info, *graph.input, *graph.output)}
    known |= {i.name: i.data_type for i in graph.initializer}
    known |= {
        n.output[0]: n.attribute[0].t.data_type
        for n in graph.node
        if n.op_type == "Constant" and n.attribute[0].name == "value"
    }
    floats = {name for name, kind in known.items() if kind == wide}
    # Float32 all the same: what an operator takes in float32 only, and what a delicate one reads or gives.
    fixed = {
        name
        for node in graph.node
        if node.op_type in ("Resize", "QuantizeLinear", "DequantizeLinear")
        for name in node.input[1:]
    }
    tiny = _tiny(graph, onnx.numpy_helper) if precision == "fp16" else set()
    _narrow_constants(graph, floats - fixed - tiny, narrow, onnx.numpy_helper)
    nodes: list[Any] = []
    cast = _caster(nodes, helper, {wide: "wide", narrow: "narrow"})
    outputs = {o.name: f"{o.name}.{precision}" for o in graph.output if o.name in floats}
    inputs = {i.name: cast(i.name, narrow) for i in graph.input if i.name in floats}
    names = {**inputs, **outputs}
    for node in graph.node:
        delicate = (node.op_type in DELICATE or not tiny.isdisjoint(node.input)) and any(
            name in floats for name in (*node.input, *node.output)
        )
        node.input[:] = [
            cast(names.get(name, name), wide) if delicate and name in floats - tiny else names.get(name, name)
            for name in node.input
        ]
        _retarget(node, wide, narrow)
        made = [names.get(name, name) for name in node.output]
        if delicate:
            node.output[:] = [
                f"{m}.wide" if o in floats else m for o, m in zip(node.output, made, strict=True)
            ]
            nodes.append(node)
            for wide_name, name in zip(node.output, made, strict=True):
                if wide_name != name:
                    nodes.append(helper.make_node("Cast", [wide_name], [name], to=narrow))
        else:
            node.output[:] = made
            nodes.append(node)
    for name, inner in outputs.items():
        nodes.append(helper.make_node("Cast", [inner], [name], to=wide))
    del graph.node[:]
    graph.node.extend(nodes)
    del graph.value_info[:]
    return model


def _tiny(graph: Any, numpy_helper: Any) -> set[str]:
    """Constants that float16 would lose, such as the 1e-9 that keeps a division or a logarithm finite."""
    found = set()
    for name, proto in _constants(graph):
        value = numpy_helper.to_array(proto)
        if value.dtype == np.float32 and value.size == 1 and 0 < abs(value.item()) < TINY:
            found.add(name)
    return found


def _caster(nodes: list[Any], helper: Any, words: Mapping[int, str]) -> Callable[[str, int], str]:
    """A function that adds a cast of a tensor to a type, once, and returns the name of what comes out."""
    done: set[str] = set()

    def cast(name: str, to: int) -> str:
        made = f"{name}.as_{words[to]}"
        if made not in done:
            done.add(made)
            nodes.append(helper.make_node("Cast", [name], [made], to=to))
        return made

    return cast


def _narrow_constants(graph: Any, names: set[str], kind: int, numpy_helper: Any) -> None:
    for tensor in _constants(graph):
        name, proto = tensor
        if name in names:
            proto.CopyFrom(_narrow_tensor(proto, kind, numpy_helper))


def _constants(graph: Any) -> Iterator[tuple[str, Any]]:
    for proto in graph.initializer:
        yield proto.name, proto
    for node in graph.node:
        if node.op_type == "Constant":
            for attribute in node.attribute:
                if attribute.name == "value":
                    yield node.output[0], attribute.t


def _narrow_tensor(proto: Any, kind: int, numpy_helper: Any) -> Any:
    """In float16, clipped to its range (masks use huge numbers), or bfloat16, rounded to nearest even."""
    onnx = need("onnx", "live")
    value = numpy_helper.to_array(proto)
    if kind == onnx.TensorProto.FLOAT16:
        top = np.finfo(np.float16).max
        return numpy_helper.from_array(np.clip(value, -top, top).astype(np.float16), proto.name)
    bits = np.ascontiguousarray(value, np.float32).view(np.uint32).astype(np.uint64)
    rounded = ((bits + 0x7FFF + ((bits >> np.uint64(16)) & np.uint64(1))) >> np.uint64(16)).astype(np.uint16)
    return onnx.TensorProto(
        name=proto.name, data_type=kind, dims=value.shape, raw_data=rounded.astype("<u2").tobytes()
    )


def _retarget(node: Any, wide: int, narrow: int) -> None:
    """Casts to float32 inside the graph become casts to the narrow type; constants made of shapes likewise."""
    for attribute in node.attribute:
        if node.op_type == "Cast" and attribute.name == "to" and attribute.i == wide:
            attribute.i = narrow
