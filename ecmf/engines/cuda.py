"""NVIDIA's driver through ctypes: a GPU's name, memory, a stream and a graph. Needs libcuda.so.1 and nothing else."""

from __future__ import annotations

import ctypes
import functools
from ctypes import byref, c_char, c_int, c_size_t, c_uint, c_void_p
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecmf.errors import EngineError

LIBRARY = "libcuda.so.1"
_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_*
_NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING
_RELAXED = 2  # CU_STREAM_CAPTURE_MODE_RELAXED: other threads may allocate meanwhile


@dataclass(frozen=True)
class Device:
    name: str
    capability: tuple[int, int]
    """Compute capability, e.g. (8, 6)."""

    @property
    def target(self) -> str:
        """As a build's target, e.g. sm_86."""
        return f"sm_{self.capability[0]}{self.capability[1]}"


@functools.cache
def _driver() -> Any:
    """The library, initialized. Raises OSError without a driver, EngineError without a GPU."""
    library = ctypes.CDLL(LIBRARY)
    _check(library, library.cuInit(0), "cuInit")
    return library


def _check(library: Any, code: int, what: str) -> None:
    if code:
        text = ctypes.c_char_p()
        library.cuGetErrorString(code, byref(text))
        said = text.value.decode() if text.value else "unknown error"
        raise EngineError(f"CUDA: {what}: {said} ({code})")


def call(what: str, *arguments: Any) -> None:
    """Call a function of the driver. Raises EngineError with the driver's words."""
    library = _driver()
    _check(library, getattr(library, what)(*arguments), what)


def find() -> tuple[Device | None, str]:
    """The first GPU, or None and the reason. Never raises."""
    try:
        count = c_int()
        call("cuDeviceGetCount", byref(count))
        if not count.value:
            return None, "no NVIDIA GPU"
        return device(), ""
    except OSError:
        return None, f"no NVIDIA GPU ({LIBRARY} is not installed)"
    except EngineError as error:
        return None, f"no usable NVIDIA GPU ({error})"


@functools.cache
def device() -> Device:
    """The first GPU. Raises EngineError, OSError."""
    handle, major, minor = c_int(), c_int(), c_int()
    name = (c_char * 128)()
    call("cuDeviceGet", byref(handle), 0)
    call("cuDeviceGetName", name, len(name), handle)
    call("cuDeviceGetAttribute", byref(major), _MAJOR, handle)
    call("cuDeviceGetAttribute", byref(minor), _MINOR, handle)
    return Device(name.value.decode(), (major.value, minor.value))


@functools.cache
def _context() -> c_void_p:
    """The primary context, which CUDA's runtime and TensorRT use too."""
    handle, context = c_int(), c_void_p()
    call("cuDeviceGet", byref(handle), 0)
    call("cuDevicePrimaryCtxRetain", byref(context), handle)
    return context


def enter() -> None:
    """Make the GPU current in this thread."""
    call("cuCtxSetCurrent", _context())


class Buffer:
    """Memory on the GPU with a pinned twin on the host, so that copies need no staging."""

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.size = max(int(np.prod(shape)) * dtype.itemsize, 1)
        self.device, self._pinned = c_void_p(), c_void_p()
        call("cuMemAlloc_v2", byref(self.device), c_size_t(self.size))
        call("cuMemHostAlloc", byref(self._pinned), c_size_t(self.size), c_uint(0))
        memory: Any = (c_char * self.size).from_address(self._pinned.value or 0)
        count = int(np.prod(shape))
        self.host: NDArray[Any] = np.frombuffer(memory, dtype, count).reshape(shape)

    @property
    def address(self) -> int:
        """Of the memory on the GPU."""
        return self.device.value or 0

    def upload(self, stream: Stream) -> None:
        """Host to GPU, in the stream's order."""
        call("cuMemcpyHtoDAsync_v2", self.device, self._pinned, c_size_t(self.size), stream.handle)

    def download(self, stream: Stream) -> None:
        """GPU to host, in the stream's order."""
        call("cuMemcpyDtoHAsync_v2", self._pinned, self.device, c_size_t(self.size), stream.handle)


class Stream:
    """A queue of work on the GPU that does not wait for others."""

    def __init__(self) -> None:
        self.handle = c_void_p()
        call("cuStreamCreate", byref(self.handle), c_uint(_NON_BLOCKING))

    def wait(self) -> None:
        """Until everything queued is done. Raises EngineError when it failed."""
        call("cuStreamSynchronize", self.handle)

    def begin(self) -> None:
        """From here on, record instead of run."""
        call("cuStreamBeginCapture_v2", self.handle, c_int(_RELAXED))

    def end(self) -> Graph:
        """What was recorded, ready to launch."""
        recorded, graph = c_void_p(), c_void_p()
        call("cuStreamEndCapture", self.handle, byref(recorded))
        try:
            call("cuGraphInstantiateWithFlags", byref(graph), recorded, ctypes.c_ulonglong(0))
        finally:
            call("cuGraphDestroy", recorded)
        return Graph(graph)

    def abandon(self) -> None:
        """Leave recording after a failure; the stream can be used again."""
        recorded = c_void_p()
        if _driver().cuStreamEndCapture(self.handle, byref(recorded)) == 0 and recorded.value:
            call("cuGraphDestroy", recorded)


class Graph:
    """Recorded work that one call launches."""

    def __init__(self, handle: c_void_p) -> None:
        self._handle = handle

    def launch(self, stream: Stream) -> None:
        """Queue it."""
        call("cuGraphLaunch", self._handle, stream.handle)
