"""ONNX operators in torch's terms: the ones that the bundles use, each as ``run(torch, attributes, *inputs)``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ecmf.engines.base import Unsuitable


def _dtype(torch: Any, kind: int) -> Any:
    names = {1: "float32", 6: "int32", 7: "int64", 9: "bool", 10: "float16", 16: "bfloat16"}
    return getattr(torch, names[kind])


def _tensor(torch: Any, value: Any, like: Any) -> Any:
    """Integers kept as Python numbers become a tensor beside another one."""
    return torch.as_tensor(value, device=like.device) if isinstance(value, int | list) else value


def _is_plain(*values: Any) -> bool:
    return not any(hasattr(value, "device") for value in values if value is not None)


def _arithmetic(name: str) -> Callable[..., Any]:
    def run(torch: Any, attributes: Mapping[str, Any], a: Any, b: Any) -> Any:
        if _is_plain(a, b):
            return _each(name, a, b)
        a, b = _tensor(torch, a, b), _tensor(torch, b, a)
        if name == "div" and not a.is_floating_point():
            return torch.div(a, b, rounding_mode="trunc")
        return getattr(torch, name)(a, b)

    return run


def _each(name: str, a: Any, b: Any) -> Any:
    """Integer arithmetic on sizes and lists of them."""
    table: dict[str, Callable[[Any, Any], Any]] = {
        "add": lambda x, y: x + y,
        "sub": lambda x, y: x - y,
        "mul": lambda x, y: x * y,
        "div": lambda x, y: x // y,
    }
    if isinstance(a, list) or isinstance(b, list):
        count = max(len(v) for v in (a, b) if isinstance(v, list))
        left, right = (v if isinstance(v, list) else [v] * count for v in (a, b))
        return [table[name](x, y) for x, y in zip(left, right, strict=True)]
    return table[name](a, b)


def _conv(torch: Any, attributes: Mapping[str, Any], x: Any, weight: Any, bias: Any = None) -> Any:
    spatial = weight.dim() - 2
    pads = attributes.get("pads", [0] * 2 * spatial)
    before, after = pads[:spatial], pads[spatial:]
    stride, dilation = attributes.get("strides", [1] * spatial), attributes.get("dilations", [1] * spatial)
    if before != after:
        ends = [end for pair in zip(before[::-1], after[::-1], strict=True) for end in pair]
        x, before = torch.nn.functional.pad(x, ends), [0] * spatial
    convolve = torch.nn.functional.conv1d if spatial == 1 else torch.nn.functional.conv2d
    return convolve(x, weight, bias, stride, before, dilation, attributes.get("group", 1))


def _gemm(torch: Any, attributes: Mapping[str, Any], a: Any, b: Any, c: Any = None) -> Any:
    a = a.mT if attributes.get("transA") else a
    b = b.mT if attributes.get("transB") else b
    y = attributes.get("alpha", 1.0) * (a @ b)
    return y if c is None else y + attributes.get("beta", 1.0) * c


def _slice(
    torch: Any,
    attributes: Mapping[str, Any],
    x: Any,
    starts: Any,
    ends: Any,
    axes: Any = None,
    steps: Any = None,
) -> Any:
    if isinstance(x, list):
        return x[starts[0] : ends[0] : steps[0] if steps else 1]
    for index, (start, end) in enumerate(zip(_flat(starts), _flat(ends), strict=True)):
        axis = axes[index] if axes else index
        step = steps[index] if steps else 1
        if step == -1 and start == -1 and end < -(2**31):
            x = x.flip(axis)
            continue
        if step < 0:
            raise Unsuitable("torch backends reverse a whole axis, not a part of one")
        where = [slice(None)] * x.dim()
        where[axis] = slice(start, end if end < 2**31 else None, step)
        x = x[tuple(where)]
    return x


def _gather_nd(torch: Any, attributes: Mapping[str, Any], x: Any, indices: Any) -> Any:
    if attributes.get("batch_dims", 0):
        raise Unsuitable("torch backends do not cover GatherND with batch dimensions")
    return x[tuple(indices[..., k] for k in range(indices.shape[-1]))]


def _flat(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _gather(torch: Any, attributes: Mapping[str, Any], x: Any, indices: Any) -> Any:
    if isinstance(x, list):
        return [x[i] for i in indices] if isinstance(indices, list) else x[int(indices)]
    axis = attributes.get("axis", 0)
    if isinstance(indices, int):
        return x.select(axis, indices)
    if isinstance(indices, list):
        indices = torch.as_tensor(indices, device=x.device)
    if axis == 0 and x.dim() == 2:
        return torch.nn.functional.embedding(indices, x)
    axis %= x.dim()
    chosen = torch.index_select(x, axis, indices.reshape(-1))
    return chosen.reshape(*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :])


def _reshape(torch: Any, attributes: Mapping[str, Any], x: Any, shape: Sequence[Any]) -> Any:
    keep = not attributes.get("allowzero", 0)
    return x.reshape(
        [x.shape[i] if keep and isinstance(n, int) and n == 0 else n for i, n in enumerate(shape)]
    )


def _shape(torch: Any, attributes: Mapping[str, Any], x: Any) -> list[Any]:
    return list(x.shape)[attributes.get("start", 0) : attributes.get("end")]


def _unsqueeze(torch: Any, attributes: Mapping[str, Any], x: Any, axes: Any = None) -> Any:
    axes = axes if axes is not None else attributes["axes"]
    if _is_plain(x):
        return [x]
    for axis in sorted(a % (x.dim() + len(_flat(axes))) for a in _flat(axes)):
        x = x.unsqueeze(axis)
    return x


def _squeeze(torch: Any, attributes: Mapping[str, Any], x: Any, axes: Any = None) -> Any:
    if isinstance(x, list):
        return x[0]
    axes = axes if axes is not None else attributes.get("axes")
    return x.squeeze(tuple(_flat(axes))) if axes is not None else x.squeeze()


def _concat(torch: Any, attributes: Mapping[str, Any], *parts: Any) -> Any:
    if _is_plain(*parts):
        return [n for part in parts for n in _flat(part)]
    return torch.cat(parts, attributes["axis"])


def _reduce(name: str) -> Callable[..., Any]:
    def run(torch: Any, attributes: Mapping[str, Any], x: Any, axes: Any = None) -> Any:
        axes = axes if axes is not None else attributes.get("axes") or list(range(x.dim()))
        return getattr(torch, name)(x, _flat(axes), bool(attributes.get("keepdims", 1)))

    return run


def _clip(torch: Any, attributes: Mapping[str, Any], x: Any, low: Any = None, high: Any = None) -> Any:
    if low is not None:
        x = torch.maximum(x, low)
    return x if high is None else torch.minimum(x, high)


def _cast(torch: Any, attributes: Mapping[str, Any], x: Any) -> Any:
    return x if _is_plain(x) else x.to(_dtype(torch, attributes["to"]))


def _layer_norm(torch: Any, attributes: Mapping[str, Any], x: Any, scale: Any, shift: Any = None) -> Any:
    axis = attributes.get("axis", -1) % x.dim()
    return torch.nn.functional.layer_norm(x, x.shape[axis:], scale, shift, attributes.get("epsilon", 1e-5))


def _average_pool(torch: Any, attributes: Mapping[str, Any], x: Any) -> Any:
    kernel = attributes["kernel_shape"]
    pads = attributes.get("pads", [0, 0, 0, 0])
    count = bool(attributes.get("count_include_pad", 0))
    return torch.nn.functional.avg_pool2d(
        x, kernel, attributes.get("strides", [1, 1]), pads[:2], bool(attributes.get("ceil_mode", 0)), count
    )


def _expand(torch: Any, attributes: Mapping[str, Any], x: Any, shape: Sequence[Any]) -> Any:
    return x * torch.ones(list(shape), dtype=x.dtype, device=x.device)


def _resize(
    torch: Any, attributes: Mapping[str, Any], x: Any, roi: Any, scales: Any, sizes: Any = None
) -> Any:
    mode = attributes.get("mode", b"nearest").decode()
    where = attributes.get("coordinate_transformation_mode", b"half_pixel").decode()
    known = mode == "nearest" or (mode == "linear" and where in ("half_pixel", "pytorch_half_pixel"))
    if sizes is None or not known or attributes.get("antialias"):
        raise Unsuitable(f"torch backends do not resize by {mode}, {where} here, or by a factor")
    size = [int(n) for n in sizes[2:]]
    if mode == "nearest":
        return torch.nn.functional.interpolate(x, size=size, mode="nearest")
    return torch.nn.functional.interpolate(x, size=size, mode="bilinear", align_corners=False)


OPERATORS: dict[str, Callable[..., Any]] = {
    "Add": _arithmetic("add"),
    "AveragePool": _average_pool,
    "Cast": _cast,
    "Clip": _clip,
    "Concat": _concat,
    "Constant": lambda torch, attributes: None,
    "Conv": _conv,
    "Div": _arithmetic("div"),
    "Erf": lambda torch, attributes, x: torch.erf(x),
    "Exp": lambda torch, attributes, x: torch.exp(x),
    "Expand": _expand,
    "Flatten": lambda torch, attributes, x: x.flatten(attributes.get("axis", 1)),
    "Gather": _gather,
    "GatherND": _gather_nd,
    "Gelu": lambda torch, attributes, x: torch.nn.functional.gelu(
        x, approximate=attributes.get("approximate", b"none").decode()
    ),
    "Gemm": _gemm,
    "GlobalAveragePool": lambda torch, attributes, x: x.mean((2, 3), keepdim=True),
    "Greater": lambda torch, attributes, a, b: a > b,
    "Identity": lambda torch, attributes, x: x,
    "LayerNormalization": _layer_norm,
    "LeakyRelu": lambda torch, attributes, x: torch.nn.functional.leaky_relu(
        x, attributes.get("alpha", 0.01)
    ),
    "Log": lambda torch, attributes, x: torch.log(x),
    "MatMul": lambda torch, attributes, a, b: a @ b,
    "Mul": _arithmetic("mul"),
    "Neg": lambda torch, attributes, x: -x,
    "Not": lambda torch, attributes, x: torch.logical_not(x),
    "Pow": _arithmetic("pow"),
    "ReduceMean": _reduce("mean"),
    "ReduceSum": _reduce("sum"),
    "Relu": lambda torch, attributes, x: torch.relu(x),
    "Reshape": _reshape,
    "Resize": _resize,
    "Shape": _shape,
    "Sigmoid": lambda torch, attributes, x: torch.sigmoid(x),
    "Slice": _slice,
    "Softmax": lambda torch, attributes, x: torch.softmax(x, attributes.get("axis", -1)),
    "Softplus": lambda torch, attributes, x: torch.nn.functional.softplus(x),
    "Sqrt": lambda torch, attributes, x: torch.sqrt(x),
    "Squeeze": _squeeze,
    "Sub": _arithmetic("sub"),
    "Tanh": lambda torch, attributes, x: torch.tanh(x),
    "Transpose": lambda torch, attributes, x: x.permute(attributes["perm"]),
    "Unsqueeze": _unsqueeze,
    "Where": lambda torch, attributes, condition, a, b: torch.where(condition, a, b),
}
