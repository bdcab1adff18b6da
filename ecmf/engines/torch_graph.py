"""An ONNX graph as a torch module, so that torch's own compilers (and plain torch) can run every bundle.

Bundles carry ONNX; `torch.export` needs a module. This one walks the graph once while it is traced; what remains is
a flat program of torch operators. Shapes are kept as Python integers; tracing makes them static or symbolic sizes.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ecmf.bundle import Bundle
from ecmf.engines import graph
from ecmf.engines.base import EngineSpec, Precision, Unsuitable
from ecmf.engines.profiles import Profile
from ecmf.engines.torch_operators import OPERATORS
from ecmf.errors import need


def module(bundle: Bundle, precision: Precision = "fp32") -> Any:
    """The graph as a ``torch.nn.Module``: inputs in the manifest's order in, a tuple of outputs in its order out.

    Raises Unsuitable for an operator that is not covered.
    """
    torch = need("torch", "train")
    onnx = need("onnx", "live")
    model = graph.read(bundle, precision)
    unknown = sorted({node.op_type for node in model.graph.node} - OPERATORS.keys())
    if unknown:
        raise Unsuitable(f"{bundle.id} uses {', '.join(unknown)}, which torch backends do not cover here")

    class Walk(torch.nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self._constants: dict[str, str] = {}
            self._lists: dict[str, Any] = {}
            for tensor in model.graph.initializer:
                self._keep(tensor.name, onnx.numpy_helper.to_array(tensor), tensor.data_type)
            for node in model.graph.node:
                if node.op_type == "Constant":
                    values = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
                    value = values["value"] if "value" in values else next(iter(values.values()))
                    is_tensor = isinstance(value, onnx.TensorProto)
                    array = onnx.numpy_helper.to_array(value) if is_tensor else np.asarray(value)
                    self._keep(node.output[0], array, value.data_type if is_tensor else 0)
            self._nodes = [
                (n.op_type, list(n.input), list(n.output), _attributes(n, onnx))
                for n in model.graph.node
                if n.op_type != "Constant"
            ]

        def _keep(self, name: str, array: Any, kind: int) -> None:
            if array.dtype.kind == "i" and array.ndim <= 1:
                self._lists[name] = array.tolist()  # shapes, axes, indices
            elif kind == onnx.TensorProto.BFLOAT16:
                self._buffer(name, torch.from_numpy(np.array(array, np.float32)).to(torch.bfloat16))
            else:
                self._buffer(name, torch.from_numpy(np.array(array)))

        def _buffer(self, name: str, tensor: Any) -> None:
            slot = f"c{len(self._constants)}"
            self._constants[name] = slot
            self.register_buffer(slot, tensor)

        def forward(self, *inputs: Any) -> tuple[Any, ...]:
            values: dict[str, Any] = dict(self._lists)
            values |= {name: getattr(self, slot) for name, slot in self._constants.items()}
            values |= zip((port.name for port in bundle.manifest.inputs), inputs, strict=True)
            for kind, read, made, attributes in self._nodes:
                arguments = [values[name] if name else None for name in read]
                values[made[0]] = OPERATORS[kind](torch, attributes, *arguments)
            return tuple(values[port.name] for port in bundle.manifest.outputs)

    return Walk().eval()


def program(bundle: Bundle, spec: EngineSpec, profile: Profile, device: str) -> tuple[Any, tuple[Any, ...]]:
    """An ExportedProgram for one profile, and example inputs. Dynamic sizes stay dynamic. Raises Unsuitable."""
    torch = need("torch", "train")
    walk = module(bundle, spec.precision).to(device)
    examples, dynamic = [], []
    names: dict[tuple[int, int], Any] = {}
    for port in bundle.manifest.inputs:
        low, usual, high = profile[port.name]
        dtype = getattr(torch, port.dtype)
        examples.append(torch.ones(usual, dtype=dtype, device=device))
        free = {}
        for axis, (least, most) in enumerate(zip(low, high, strict=True)):
            if least != most:
                size = str(port.shape[axis])
                names.setdefault((least, most), torch.export.Dim(size, min=max(least, 2), max=most))
                free[axis] = names[least, most]
        dynamic.append(free)
    shapes = (tuple(dynamic),) if any(dynamic) else None
    with torch.no_grad():
        exported = torch.export.export(walk, tuple(examples), dynamic_shapes=shapes, strict=False)
    return exported, tuple(examples)


def _attributes(node: Any, onnx: Any) -> dict[str, Any]:
    return {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
