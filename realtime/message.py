"""Message v1: what goes over the wire, one JSON object each, checked when it is made and when it is read.

`message.schema.json` is generated from these structs (`python -m realtime.schema`); the sentence under a
field is its description there. Additive changes keep ``v``; others raise it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray

from ecmf.cue import MODALITIES
from ecmf.errors import EcmfError, need
from realtime.fields import (
    SUM_TOLERANCE,
    Count,
    Positive,
    Probabilities,
    Reason,
    Unit,
    finite,
    sums_to_one,
    unit,
)
from realtime.health import CameraState, EngineUse, LoadState, MicrophoneState, WorkerState
from realtime.sources.base import CaptureClock

need("msgspec", "live")

import msgspec  # noqa: E402  (its absence has been said in one clear line)
from msgspec import Meta  # noqa: E402

Trigger = Literal["face", "scene", "voice", "text", "tick"]
Latency = Annotated[dict[str, float], Meta(extra_json_schema={"required": ["total"]})]


class WireError(EcmfError):
    """A message that is not what this version reads."""


class ModalityState(msgspec.Struct, frozen=True, kw_only=True):
    """What one modality contributes to an estimate."""

    present: bool
    """Whether the fusion used it."""
    weight: Unit = 0.0
    """Share in the fusion; the present ones sum to 1, an absent one has 0."""
    age_ms: float | None = None
    """From the end of its capture to the publication; null when it was never there."""
    quality: Unit | None = None
    """How much the cue can be trusted; null when it was never there."""
    probs: Probabilities | None = None
    """What this modality alone says; null when absent, and for the scene, which is context only."""
    reason: Reason | None = None
    """Why it is absent: off, starting, stale, no_face, no_frame, no_voice, no_words, no_person, low_confidence, or
    other_person, where it belongs to somebody else in view. Null when present."""

    def __post_init__(self) -> None:
        unit("weight", self.weight)
        if self.age_ms is not None:
            finite("age_ms", self.age_ms)
        if self.quality is not None:
            unit("quality", self.quality)
        if self.probs is not None:
            sums_to_one("probs", self.probs)
        if self.present and self.reason is not None:
            raise ValueError(f"a present modality has no reason, found {self.reason!r}")
        if not self.present and (self.weight != 0 or self.reason is None):
            raise ValueError(
                f"an absent modality has weight 0 and a reason, found {self.weight} and {self.reason}"
            )


class Modalities(msgspec.Struct, frozen=True, kw_only=True):
    """All four, always."""

    face: ModalityState
    """The person's face."""
    scene: ModalityState
    """The whole picture; context, never enough alone."""
    voice: ModalityState
    """How it is said."""
    text: ModalityState
    """What is said."""

    def __post_init__(self) -> None:
        states = (self.face, self.scene, self.voice, self.text)
        if any(state.present for state in states):
            total = sum(state.weight for state in states)
            if abs(total - 1) > SUM_TOLERANCE:
                raise ValueError(f"weights of the present modalities sum to {total}, expected 1")

    def items(self) -> Iterable[tuple[str, ModalityState]]:
        """Name and state, in the order of ``ecmf.cue.MODALITIES``."""
        return ((name, getattr(self, name)) for name in MODALITIES)


class Stamped(msgspec.Struct, frozen=True, kw_only=True):
    """What every message carries. ``seq``, ``t_publish_ns`` and ``wall`` are set when it is published."""

    v: Literal[1] = 1
    """Version of the message format."""
    run: str
    """Id of this process's run."""
    source: str
    """Name of the source, as in the topic."""
    seq: Count = 0
    """Counts up by one within a topic and run."""
    t_publish_ns: int = 0
    """Just before sending, on the monotonic clock of the publishing machine: CLOCK_MONOTONIC, which is Python's
    time.monotonic_ns(), Node's process.hrtime.bigint() and, in seconds, Lab Streaming Layer's local_clock()."""
    wall: str = ""
    """Wall time of the publication, RFC 3339 in UTC. The wall time of a capture is wall - (t_publish_ns -
    t_capture_ns), but not with --fast, where time is that of the file."""


class Estimate(Stamped, frozen=True, kw_only=True, tag_field="type", tag="emotion"):
    """The expressed emotion of one person at one moment."""

    person: int | None
    """Anonymous track id within this run; null for a voice without a visible person."""
    bbox: tuple[float, float, float, float] | None
    """Face box x, y, width, height in pixels of the frame, from its upper left corner; health.camera has its size."""
    t_capture_ns: int
    """End of the capture of the sample that triggered this estimate, on the clock of t_publish_ns; with --fast the
    time from the start of the file."""
    clock: CaptureClock
    """What stamped that sample: the camera driver, the sound converter, the returning read call, a file."""
    t_media_s: float | None
    """Time of that sample in its file, seconds from the start, where a loop begins anew; null for a device, and where
    no sample came."""
    trigger: Trigger
    """The cue that caused this estimate; tick when none came for a while."""
    label: str | None
    """Most probable label of the smoothed distribution, with hysteresis; null together with a reason."""
    confidence: Unit | None
    """Smoothed probability of the label."""
    reason: Reason | None
    """Why there is no label: no_person, starting, stale or low_confidence."""
    raw: Probabilities | None
    """Fused probabilities of this moment."""
    smoothed: Probabilities | None
    """The same, smoothed over time."""
    modalities: Modalities
    """What each of the four contributes."""
    latency_ms: Latency | None
    """total: publication minus capture, so that wall minus this is the wall time of the capture. Besides, how
    long the sample waited for a worker (wait), and compute time per stage, where publish is that of the estimate
    before. Null when annotating with --fast."""
    model: str
    """Id of the fusion head's bundle."""
    engine: dict[str, EngineUse]
    """Backend and precision per branch."""

    def __post_init__(self) -> None:
        told = [value is not None for value in (self.label, self.confidence, self.raw, self.smoothed)]
        if any(told) != all(told) or all(told) != (self.reason is None):
            raise ValueError(
                "label, confidence, raw and smoothed are all given, or all null together with a reason"
            )
        if self.label is not None and self.confidence is not None and self.raw and self.smoothed:
            unit("confidence", self.confidence)
            sums_to_one("raw", self.raw)
            sums_to_one("smoothed", self.smoothed)
            if self.label not in self.smoothed:
                raise ValueError(f"label {self.label!r} is not among {list(self.smoothed)}")
        elif self.label is not None:
            raise ValueError("raw and smoothed name no label")
        if self.t_media_s is not None:
            finite("t_media_s", self.t_media_s)
        for number in self.bbox or ():
            finite("bbox", number)
        for stage, milliseconds in (self.latency_ms or {}).items():
            finite(f"latency_ms.{stage}", milliseconds)


class Word(msgspec.Struct, frozen=True, kw_only=True):
    """A committed word; it never changes again."""

    text: str
    """As it was heard."""
    t_start_ns: int
    """Start of the word, on the clock of t_capture_ns."""
    t_end_ns: int
    """End of the word, on the clock of t_capture_ns."""


class Transcript(Stamped, frozen=True, kw_only=True, tag_field="type", tag="transcript"):
    """What is being said; on the wire only when the user asks for it."""

    person: int | None
    """Whom the words are attributed to; null when that is unknown."""
    utterance: Count
    """Number of the utterance in this run."""
    text: str
    """All committed words of the utterance so far."""
    partial: str
    """What comes next as it seems now, with its blank before it where it needs one, so that text + partial reads on;
    may still change."""
    words: list[Word]
    """The words committed since the message before."""
    final: bool
    """Whether the utterance has ended."""
    cues: str | None = None
    """Emotional cues that the language model reads in the whole utterance, likeliest first; the ended utterance is
    published a second time with them. Null before that, and without a language model."""
    t_capture_ns: int
    """End of the sound this was read from; clock as in an estimate."""
    clock: CaptureClock
    """What stamped that sound."""
    t_media_s: float | None
    """Media time of that sound; null for a device."""

    def __post_init__(self) -> None:
        if self.t_media_s is not None:
            finite("t_media_s", self.t_media_s)


class Health(Stamped, frozen=True, kw_only=True, tag_field="type", tag="health"):
    """How the whole is doing, once a second."""

    uptime_s: Positive
    """Since the pipeline started."""
    workers: dict[str, WorkerState]
    """Per worker: camera, microphone, face, scene, speech, voice, text, enrichment, fusion …"""
    engine: dict[str, EngineUse]
    """Backend and precision per branch, and why it is not the first choice."""
    clocks: dict[str, CaptureClock]
    """What stamps the picture and the sound."""
    camera: CameraState | None = None
    """How the camera is doing; null without one, or where the source cannot tell."""
    microphone: MicrophoneState | None = None
    """How the microphone is doing; null without one, or where the source cannot tell."""
    load: LoadState | None = None
    """Processor use and what is reduced because of it; null when not measured."""
    skew_ms: float | None = None
    """Capture time of the newest sound minus that of the newest picture, median of the last seconds; null while one
    of them is missing."""
    notes: list[str] = []
    """What is off or degraded and why, for people."""

    def __post_init__(self) -> None:
        finite("uptime_s", self.uptime_s, low=0)
        if self.skew_ms is not None:
            finite("skew_ms", self.skew_ms)


Message = Estimate | Transcript | Health

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Message)


def encode(message: Message) -> bytes:
    """One UTF-8 JSON object without a newline. NaN cannot occur: a struct that holds one cannot be made."""
    return _encoder.encode(message)


def decode(payload: bytes) -> Message:
    """Read one message; fields this version does not know are ignored. Raises WireError."""
    try:
        return _decoder.decode(payload)
    except msgspec.ValidationError as error:
        raise WireError(f"not a message of version 1: {error}; both ends need the same version") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise WireError(f"not JSON: {error}; is this an ecmf-live publisher?") from None


def topic(message: Message) -> str:
    """``emotion/<source>/`` and so on; the slash at the end keeps cam1 from matching cam10."""
    return f"{message.__struct_config__.tag}/{message.source}/"


def distribution(labels: Sequence[str], probs: NDArray[np.floating]) -> Probabilities:
    """Label -> probability from ``float[labels]``, in four decimals that still sum to 1.

    Raises ValueError for a value that is not finite, a negative one, or a sum of 0.
    """
    values: list[float] = np.asarray(probs).tolist()
    total = sum(values)
    if len(values) != len(labels) or not 0 < total < math.inf or min(values) < 0:  # NaN is not above 0 either
        raise ValueError(f"not probabilities of {list(labels)}: {values}")
    rounded = [round(value / total, 4) for value in values]
    most = rounded.index(max(rounded))
    rounded[most] = round(rounded[most] + 1 - sum(rounded), 4)
    return dict(zip(labels, rounded, strict=True))


def rfc3339(unix_ns: int) -> str:
    """Wall time in UTC with milliseconds, e.g. 2026-11-21T12:00:00.250Z."""
    milliseconds = unix_ns // 1_000_000
    return f"{_second(milliseconds // 1000)}.{milliseconds % 1000:03d}Z"


@lru_cache(maxsize=2)
def _second(unix_s: int) -> str:
    return datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%dT%H:%M:%S")
