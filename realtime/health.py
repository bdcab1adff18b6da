"""The condition of the parts, as a health message tells it: workers, engines, camera, microphone, load."""

from __future__ import annotations

from typing import Literal

from ecmf.errors import need
from realtime.fields import Count, Positive, finite
from realtime.sources.base import CaptureClock

need("msgspec", "live")

import msgspec  # noqa: E402  (its absence has been said in one clear line)


class LeftOut(msgspec.Struct, frozen=True, kw_only=True):
    """Engines that come before the one that runs, and why they do not run."""

    engines: tuple[str, ...]
    """Names of the backends."""
    reason: str
    """Why, for people."""
    slower: bool = False
    """Whether they could run and another is faster: a choice, where all else is a lack or a fault."""


class EngineUse(msgspec.Struct, frozen=True, kw_only=True):
    """Which backend computes a branch."""

    backend: str
    """Name of the backend, e.g. openvino."""
    precision: str
    """fp32, fp16, bf16 or int8."""
    fallback: str | None = None
    """Why this is not the first choice; null when it is, and in estimates: health tells."""
    left_out: tuple[LeftOut, ...] | None = None
    """The same in parts; null in estimates, and where there is no order of engines."""

    def brief(self) -> EngineUse:
        """Without the reasons, which would be half of what is sent many times a second."""
        return EngineUse(backend=self.backend, precision=self.precision)


class WorkerState(msgspec.Struct, frozen=True, kw_only=True):
    """How one worker thread is doing."""

    alive: bool
    """Whether it runs; one without a sign of life for long is replaced, which counts as a restart."""
    rate_hz: Positive
    """Samples it finished per second, over the last seconds."""
    drops: dict[str, Count]
    """Samples dropped since the start, by cause."""
    queue_age_ms: Positive | None = None
    """Longest that a sample waited for it in the last second; null for who takes none from others, or is not loaded."""
    restarts: Count = 0
    """Times it was restarted."""
    reason: str | None = None
    """Why it is off or was restarted last, for people."""

    def __post_init__(self) -> None:
        finite("rate_hz", self.rate_hz, low=0)
        if self.queue_age_ms is not None:
            finite("queue_age_ms", self.queue_age_ms, low=0)


class CameraState(msgspec.Struct, frozen=True, kw_only=True):
    """How the camera is doing. A video source tells it by a method ``condition()``, which any thread may call."""

    state: Literal["ok", "frozen", "black", "lost", "reconnecting"]
    """frozen: the same picture again and again; black: nothing to see; lost: gone; reconnecting: gone, and being
    opened again."""
    fps: Positive
    """Frames a second that really come, over the last seconds."""
    drops: Count
    """Frames that the camera or its driver lost since the start."""
    width: Count
    """Pixels of the frames; 0 while unknown."""
    height: Count
    """Pixels of the frames; 0 while unknown."""
    clock: CaptureClock
    """What stamps its frames."""
    faults: dict[str, Count] = {}
    """How often it was frozen, black or lost since the start."""

    def __post_init__(self) -> None:
        finite("fps", self.fps, low=0)


class MicrophoneState(msgspec.Struct, frozen=True, kw_only=True):
    """How the microphone is doing. An audio source tells it by a method ``condition()``, which any thread may call."""

    state: Literal["ok", "silent", "clipped", "lost"]
    """silent: not even noise comes; clipped: it is turned up too far; lost: gone."""
    rate_hz: Positive
    """Samples a second of the device, before resampling."""
    overflows: Count
    """Times that sound was lost because nobody took it."""
    drift_ppm: float | None = None
    """How much faster than the machine's clock the device counts; null while unknown."""
    faults: dict[str, Count] = {}
    """How often it was silent, clipped, lost or broken (samples that are no numbers) since the start, or counted at a
    wrong rate."""

    def __post_init__(self) -> None:
        finite("rate_hz", self.rate_hz, low=0)
        if self.drift_ppm is not None:
            finite("drift_ppm", self.drift_ppm)


class LoadState(msgspec.Struct, frozen=True, kw_only=True):
    """How busy the machine is with this, and what is done less often so that what is published stays fresh."""

    cores: Positive
    """Processor cores used over the last seconds."""
    level: Count
    """0: nothing is reduced. Each step reduces one more, in a fixed order: scene, words, face."""
    reduced: list[str] = []
    """What is done less often now, for people."""

    def __post_init__(self) -> None:
        finite("cores", self.cores, low=0)
