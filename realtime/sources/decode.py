"""Files to pictures and 16 kHz sound on the file's own time line, by FFmpeg (PyAV)."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecmf.errors import SourceError, need
from realtime.sources.base import SAMPLE_RATE
from realtime.sources.timeline import TimeLine

log = logging.getLogger("ecmf.sources")

GAP_S = 0.1
"""Sound that is missing, or there twice, for longer than this is put in its place; shorter is rounding of stamps."""

SILENCE_S = 10.0
"""It is made in pieces of this length, however long the gap is."""

STATED = ("matroska,webm", "mov,mp4,m4a,3gp,3g2,mj2", "avi", "flac", "wav")
"""Formats whose header says how long they are; of the others FFmpeg guesses it from their rate or last stamps."""

ONE_THREAD = 1920 * 1088
"""Pixels of a frame that one thread decodes in time."""

WEB = "http,https,tcp,tls,crypto"


@dataclass(frozen=True)
class Contents:
    """What a file holds."""

    width: int
    height: int
    fps: float
    """All 0 when there is no picture track."""
    rate: int
    """Samples a second of the sound track, 0 when there is none."""
    duration_s: float | None
    """As the header says it; None where there is none that does."""


def inspect(path: str, title: str) -> Contents:
    """Open ``path``, decode the first picture and the first sound, and say what there is.

    Raises SourceError when the file cannot be opened or none of its tracks can be decoded.
    """
    with _open(path, title) as container:
        picture, sound = _video(container), _audio(container)
        if picture is None and sound is None:
            raise SourceError(
                f"{title} has neither pictures nor sound; give a video, a picture or a sound file"
            )
        fps = 0.0 if picture is None else _fps(picture)
        rate = 0 if sound is None else int(sound.codec_context.sample_rate)
        stated = container.duration is not None and container.format.name in STATED
        duration = container.duration / 1e6 if stated else None
    first = next(pictures(path, title), None)
    if next(sounds(path, title), None) is None:
        rate = 0
    if first is None:
        if not rate:
            raise SourceError(f"{title} cannot be decoded: it is damaged or not a media file")
        return Contents(0, 0, 0.0, rate, duration)
    height, width = first.image().shape[:2]
    return Contents(width, height, fps, rate, duration)


def length_s(path: str, title: str) -> float:
    """Exact playing time, the longer of picture and sound, from the packets (nothing is decoded)."""
    end_s = 0.0
    with _open(path, title) as container:
        for packet in _packets(container, title):
            if packet.pts is None:
                continue
            lasts = float((packet.duration or 0) * packet.time_base)
            if not lasts and packet.stream.type == "video":
                lasts = 1 / _fps(packet.stream)
            end_s = max(end_s, float(packet.pts * packet.time_base) + lasts)
    return end_s


@dataclass(frozen=True)
class Decoded:
    """A decoded frame that is not yet turned into a picture, which costs as much again."""

    media_s: float
    frame: Any
    ratio: float
    """Width of a pixel over its height."""

    def image(self) -> NDArray[np.uint8]:
        """uint8[height, width, 3] BGR, upright, pixels square."""
        width = max(1, round(self.frame.width * self.ratio))
        image = self.frame.to_ndarray(format="bgr24", width=width, height=self.frame.height)
        turns = round(self.frame.rotation / 90) % 4
        return np.ascontiguousarray(np.rot90(image, turns) if turns else image)


def pictures(path: str, title: str) -> Iterator[Decoded]:
    """Yield the frames in order of presentation.

    Times grow strictly. A damaged frame is left out, a damaged end is the end; both are logged.
    """
    with _open(path, title) as container:
        track = _video(container)
        if track is None:
            return
        step_s, ratio = 1 / _fps(track), float(track.sample_aspect_ratio or 1)
        last_s: float | None = None
        for frame in _decoded(container, track, title):
            media_s = frame.time if frame.time is not None else -1.0
            if last_s is not None and media_s <= last_s:
                media_s = last_s + step_s
            last_s = max(0.0, media_s)
            yield Decoded(last_s, frame, ratio)


def sounds(path: str, title: str) -> Iterator[NDArray[np.float32]]:
    """Yield float32[n] mono at 16 kHz: unbroken from media time 0, silence where the file has none."""
    soxr = need("soxr", "live")
    with _open(path, title) as container:
        track = _audio(container)
        if track is None:
            return
        rate = int(track.codec_context.sample_rate)
        convert = None if rate == SAMPLE_RATE else soxr.ResampleStream(rate, SAMPLE_RATE, 1, dtype="float32")
        position = 0
        for time_s, samples in _mono(container, track, rate, title):
            stamped = None if time_s is None else round(time_s * rate)
            for piece in _in_place(samples, position, stamped, rate):
                position += len(piece)
                ready = piece if convert is None else convert.resample_chunk(piece)
                if len(ready):
                    yield ready
        if convert is not None:
            yield convert.resample_chunk(np.zeros(0, np.float32), last=True)


def _in_place(
    samples: NDArray[np.float32], position: int, stamped: int | None, rate: int
) -> Iterator[NDArray[np.float32]]:
    """``samples``, stamped for sample ``stamped``, made to follow sample ``position``: what is missing before them is
    silence, what was there before is cut off."""
    ahead = 0 if stamped is None else stamped - position
    if abs(ahead) <= GAP_S * rate and position:
        ahead = 0
    piece = round(SILENCE_S * rate)
    for begin in range(0, ahead, piece):
        yield np.zeros(min(piece, ahead - begin), np.float32)
    yield samples[max(0, -ahead) :]


def _open(path: str, title: str) -> Any:
    av = need("av", "live")
    try:
        # A playlist or a crafted file must not make us reach for the network or for other protocols.
        reach = WEB if path.startswith(("http://", "https://")) else "file"
        return av.open(path, options={"protocol_whitelist": reach}, metadata_errors="replace")
    except av.error.FFmpegError as error:
        raise SourceError(f"{title} cannot be decoded: {error.strerror or error}") from None


def _video(container: Any) -> Any:
    av = need("av", "live")
    for track in container.streams.video:
        cover = track.disposition & av.stream.Disposition.attached_pic
        if not cover and track.codec_context is not None:
            # Pictures are decoded while the last one is being looked at; only the largest need more than a thread.
            track.codec_context.thread_count = 1 if track.width * track.height <= ONE_THREAD else 0
            return track
    return None


def _audio(container: Any) -> Any:
    return next((track for track in container.streams.audio if track.codec_context is not None), None)


def _fps(track: Any) -> float:
    return float(track.average_rate or track.guessed_rate or 25)


def _packets(container: Any, title: str) -> Iterator[Any]:
    """The packets of the tracks that are played, in the file's order, on a time line that begins at 0."""
    av = need("av", "live")
    tracks = [track for track in (_video(container), _audio(container)) if track is not None]
    line = TimeLine((container.start_time or 0) / 1e6)
    try:
        for packet in container.demux(tracks):
            line.place(packet)
            yield packet
    except av.error.FFmpegError as error:
        log.warning("%s is damaged and ends early: %s", title, error.strerror or error)


def _decoded(container: Any, track: Any, title: str) -> Iterator[Any]:
    av = need("av", "live")
    damaged = 0
    for packet in _packets(container, title):
        if packet.stream.index != track.index:
            continue
        try:
            yield from packet.decode()
        except av.error.FFmpegError:
            damaged += 1
    if damaged:
        log.warning("%s: %d damaged %s packets were left out", title, damaged, track.type)


def _mono(
    container: Any, track: Any, rate: int, title: str
) -> Iterator[tuple[float | None, NDArray[np.float32]]]:
    """(stamp of the first sample or None, float32[n]) at ``rate``, channels mixed down."""
    av = need("av", "live")
    mixer: Any = None
    layout = None
    for frame in _decoded(container, track, title):
        found = (frame.format.name, frame.layout.name, frame.sample_rate)
        if found != layout:
            mixer, layout = av.AudioResampler(format="fltp", layout="mono", rate=rate), found
        time_s = frame.time
        for mixed in mixer.resample(frame):
            yield time_s, mixed.to_ndarray()[0]
            time_s = None
