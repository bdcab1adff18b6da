"""What every source gives: pictures and sound, each with the time it was captured."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from ecmf.errors import SourceError

if TYPE_CHECKING:
    from realtime.health import CameraState, MicrophoneState

SAMPLE_RATE = 16_000
"""Of all sound after its source, samples a second."""

SAMPLE_NS = 1_000_000_000 // SAMPLE_RATE
"""Exact: 62,500 ns."""

BLOCK = 512
"""Samples in a block, 32 ms: one step of the voice activity detector."""

CaptureClock = Literal["exposure", "adc", "read", "file"]
"""Where a stamp comes from: the camera driver, the microphone's converter, the moment a read call returned
(the fallback when the driver's stamps are implausible), or a file's own time line."""


class SourceLost(SourceError):
    """A source that worked is gone (unplugged, server stopped); opening it again may bring it back."""


@dataclass(frozen=True, eq=False, slots=True)
class Frame:
    """One picture."""

    image: NDArray[np.uint8]
    """uint8[height, width, 3], BGR, contiguous; the consumer's own, the source never writes to it again."""
    start_ns: int
    end_ns: int
    """Capture interval on the source's clock: monotonic, or media time with --fast; equal for a picture
    of a file, which is an instant."""
    clock: CaptureClock
    media_s: float | None
    """Seconds from the start of the file (of the current loop); None for a device."""
    index: int
    """Counts from 0 for each opening of the source, without gaps."""
    repeated: bool = False
    """Whether it is the frame before once more, to the bit: a frozen camera, or one that sends more often than it
    captures. Its capture interval is that of the first of these, so what is read from it is as old as it is."""


@dataclass(frozen=True, eq=False, slots=True)
class AudioBlock:
    """A stretch of sound; the next one of the same source starts where it ends, unless sound was lost."""

    samples: NDArray[np.float32]
    """float32[n], mono, 16 kHz, in [-1, 1]."""
    start_ns: int
    end_ns: int
    """Capture interval of the first and of the end of the last sample."""
    clock: CaptureClock
    media_s: float | None
    """Of the first sample, seconds from the start of the file (of the current loop); None for a device."""


class VideoDevice(Protocol):
    """One opened camera, or something that behaves like one."""

    @property
    def name(self) -> str: ...

    @property
    def width(self) -> int:
        """Pixels, of the frames as delivered; 0 while unknown."""

    @property
    def height(self) -> int: ...

    @property
    def fps(self) -> float:
        """Nominal frames a second; 0 while unknown."""

    def frames(self, stop: threading.Event) -> Iterator[Frame]:
        """Yield frames as they are captured, until the source ends or ``stop`` is set.

        Raises SourceLost when the source worked and is gone, SourceError when it never worked.
        To be called once, by one thread.
        """

    def close(self) -> None:
        """Release the device or file; safe to call twice, and from another thread."""


class VideoSource(VideoDevice, Protocol):
    """A camera that is watched."""

    def condition(self) -> CameraState:
        """How it is doing now; any thread may ask."""


class AudioSource(Protocol):
    """A microphone, or something that behaves like one."""

    @property
    def name(self) -> str: ...

    @property
    def rate(self) -> int:
        """Samples a second before resampling, as the device or file has them."""

    @property
    def overflows(self) -> int:
        """How often sound was lost because nobody took it in time."""

    def blocks(self, stop: threading.Event) -> Iterator[AudioBlock]:
        """Yield blocks as they are captured, until the source ends or ``stop`` is set; errors as above."""

    def condition(self) -> MicrophoneState:
        """How it is doing now; any thread may ask."""

    def close(self) -> None:
        """Release the device or file; safe to call twice, and from another thread."""
