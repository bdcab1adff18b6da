"""Tensors out of a legacy torch checkpoint, without torch and without letting the pickle run anything.

Layout (torch/serialization.py, `_legacy_save`): five pickles (magic number, protocol, system info, the object, the
storage keys), then per storage key an int64 element count and the raw little-endian elements.
"""

from __future__ import annotations

import io
import pickle
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from ecmf.errors import WeightError

MAGIC = 0x1950A86A20F9469CFC6C
_DTYPES = {"FloatStorage": np.dtype("<f4"), "LongStorage": np.dtype("<i8")}


@dataclass(frozen=True)
class _Storage:
    key: str
    dtype: np.dtype[Any]
    count: int


@dataclass(frozen=True)
class _Tensor:
    """A view on a storage; offset, shape and strides in elements."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def _tensor(storage: _Storage, offset: int, shape: Any, strides: Any, *_: object) -> _Tensor:
    return _Tensor(storage, offset, tuple(shape), tuple(strides))


class _Reader(pickle.Unpickler):
    """Knows only names that describe data; every other global is refused."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _tensor
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is not data")

    def persistent_load(self, pid: Any) -> Any:
        kind, dtype, key, _device, count, view = pid
        if kind != "storage" or view is not None:
            raise pickle.UnpicklingError(f"unknown reference {kind!r}")
        return _Storage(key, dtype, count)


def read_tensors(path: Path) -> dict[str, NDArray[Any]]:
    """Every tensor of a legacy checkpoint of a flat state dict, contiguous. Raises WeightError for anything else."""
    try:
        with path.open("rb") as file:
            if _Reader(file).load() != MAGIC:
                raise pickle.UnpicklingError("it has no torch magic number")
            for _ in range(2):
                _Reader(file).load()
            state = _Reader(file).load()
            if not isinstance(state, dict) or not all(isinstance(value, _Tensor) for value in state.values()):
                raise pickle.UnpicklingError("it holds more than named tensors")
            keys = _Reader(file).load()
            dtypes = {tensor.storage.key: tensor.storage.dtype for tensor in state.values()}
            storages = {key: _elements(file, dtypes[key]) for key in keys}
        return {name: _view(tensor, storages[tensor.storage.key]) for name, tensor in state.items()}
    except (pickle.UnpicklingError, EOFError, KeyError, TypeError, ValueError) as error:
        raise WeightError(f"{path} is not a checkpoint this importer reads: {error}") from None


def _elements(file: BinaryIO | io.BufferedReader, dtype: np.dtype[Any]) -> NDArray[Any]:
    count = int.from_bytes(file.read(8), "little")
    raw = file.read(count * dtype.itemsize)
    return np.frombuffer(raw, dtype, count)


def _view(tensor: _Tensor, storage: NDArray[Any]) -> NDArray[Any]:
    last = tensor.offset + sum((n - 1) * s for n, s in zip(tensor.shape, tensor.strides, strict=True))
    if min(tensor.shape, default=1) < 1 or min(tensor.strides, default=0) < 0 or not 0 <= last < storage.size:
        raise ValueError(f"tensor {tensor.shape} lies outside its storage of {storage.size} elements")
    strides = [stride * storage.itemsize for stride in tensor.strides]
    start = storage[tensor.offset :]
    view = np.lib.stride_tricks.as_strided(start, tensor.shape, strides, writeable=False)
    return np.array(view, order="C")
