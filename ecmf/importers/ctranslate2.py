"""Reads the weights out of a CTranslate2 `model.bin`: lengths checked, arrays only, nothing executed."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ecmf.errors import WeightError

_DTYPES = {0: "<f4", 1: "i1", 2: "<i2", 3: "<i4", 4: "<f2"}
_VERSIONS = range(4, 8)
_MAX_RANK = 8


class _Cursor:
    """Bounds-checked little-endian reads."""

    def __init__(self, data: memoryview, path: Path) -> None:
        self._data = data
        self._at = 0
        self._path = path

    def take(self, size: int) -> memoryview:
        piece = self._data[self._at : self._at + size]
        if len(piece) != size:
            raise WeightError(f"{self._path} ends at byte {len(self._data)}, inside a record; fetch it again")
        self._at += size
        return piece

    def number(self, layout: str) -> int:
        return int(struct.unpack("<" + layout, self.take(struct.calcsize(layout)))[0])

    def text(self) -> str:
        raw = bytes(self.take(self.number("H")))
        try:
            return raw.rstrip(b"\0").decode("utf-8")
        except UnicodeDecodeError:
            raise WeightError(f"{self._path} is not a CTranslate2 model: a name is not text") from None


def read_variables(path: Path) -> tuple[str, dict[str, NDArray[np.generic]]]:
    """Return the model's specification name and its variables as stored (float16 and int8 stay so).

    Layout: u32 version, string specification, u32 revision, u32 count, then per variable: string name, u8
    rank, u32 dimensions, u8 type, u32 bytes, data. A string is u16 length, bytes, NUL (CTranslate2
    `model_spec.py`). Aliases at the end of the file are not needed and not read.
    Raises WeightError for a file that is cut short, inconsistent, or of a version this reader does not know.
    """
    cursor = _Cursor(memoryview(path.read_bytes()), path)
    version = cursor.number("I")
    if version not in _VERSIONS:
        raise WeightError(
            f"{path} has format version {version}, expected {_VERSIONS.start} to {_VERSIONS.stop - 1}; "
            "convert the model with a current ct2-transformers-converter"
        )
    specification = cursor.text()
    cursor.number("I")  # revision of the specification; its changes do not touch the encoder
    variables: dict[str, NDArray[np.generic]] = {}
    for _ in range(cursor.number("I")):
        name = cursor.text()
        rank = cursor.number("B")
        if rank > _MAX_RANK:
            raise WeightError(f"{path}: {name!r} claims {rank} dimensions; fetch the file again")
        shape = tuple(cursor.number("I") for _ in range(rank))
        kind = cursor.number("B")
        size = cursor.number("I")
        if kind not in _DTYPES:
            raise WeightError(f"{path}: {name!r} has unknown type {kind}; use float32, float16 or int8")
        dtype = np.dtype(_DTYPES[kind])
        if int(np.prod(shape, dtype=np.int64)) * dtype.itemsize != size:
            raise WeightError(f"{path}: {name!r} of shape {shape} has {size} bytes; fetch it again")
        variables[name] = np.frombuffer(cursor.take(size), dtype).reshape(shape)
    return specification, variables


def as_float32(variables: dict[str, NDArray[np.generic]], name: str) -> NDArray[np.float32]:
    """One variable as float32; integer weights are divided by the scale stored with them (one, or one a row).

    Raises WeightError when the variable, or the scale of an integer weight, is missing.
    """
    if name not in variables:
        raise WeightError(f"the CTranslate2 model has no {name!r}; is it the expected kind of model?")
    stored = variables[name]
    if stored.dtype.kind == "f":
        return stored.astype(np.float32)
    scale = variables.get(f"{name}_scale")
    if scale is None:
        raise WeightError(f"{name!r} is stored as {stored.dtype} without a scale; convert the model again")
    rows = scale.astype(np.float32).reshape(-1, *[1] * (stored.ndim - 1))
    return (stored.astype(np.float32) / rows).astype(np.float32)
