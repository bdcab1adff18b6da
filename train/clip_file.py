"""Decode a labelled clip, whatever it is: video, sound, a picture or a text file."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecmf.errors import DataError, need

RATE = 16000
FRAMES_PER_S = 5.0
"""Of a video that are looked at: the face tracker still follows, and neighbours say much the same."""
TEXT = frozenset({".txt", ".text"})
PICTURES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp"})

TINY, FACE = 100, 240
"""Pixels: a picture whose shorter side has fewer is enlarged until it has that many."""


@dataclass(frozen=True)
class Media:
    """What a clip holds."""

    frames: tuple[tuple[float, NDArray[np.uint8]], ...]
    """(seconds from the start, uint8[H, W, 3] BGR), FRAMES_PER_S; one at 0 for a picture."""
    audio: NDArray[np.float32]
    """float32[n], mono, 16 kHz; empty without sound."""
    text: str
    """Content of a text file, else empty."""

    @property
    def seconds(self) -> float:
        last = self.frames[-1][0] if self.frames else 0.0
        return max(last, len(self.audio) / RATE)


def open_clip(path: Path, content: bytes | str | None = None) -> Media:
    """Read ``path``, or ``content`` under that name: an encoded file, or the text itself.

    Raises DataError for what is damaged, empty or none of the four kinds.
    """
    if isinstance(content, str) or path.suffix.lower() in TEXT:
        return Media((), np.zeros(0, np.float32), _text(path, content))
    cv2 = need("cv2", "live")
    if path.suffix.lower() in PICTURES if content is not None else cv2.haveImageReader(str(path)):
        encoded = np.fromfile(path, np.uint8) if content is None else np.frombuffer(content, np.uint8)
        picture = cv2.imdecode(encoded, cv2.IMREAD_COLOR) if len(encoded) else None
        if picture is None:
            raise DataError(f"{path.name} cannot be read: it is a damaged picture")
        return Media(((0.0, _roomy(picture)),), np.zeros(0, np.float32), "")
    frames = tuple(_frames(path, content))
    audio = _audio(path, content)
    if not frames and not len(audio):
        raise DataError(f"{path.name} cannot be read: it has neither pictures nor sound that can be decoded")
    return Media(frames, audio, "")


def _roomy(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A tiny picture is a cut-out face (FER2013): enlarged, with the border that the face finder needs."""
    side = min(picture.shape[:2])
    if side >= TINY:
        return picture
    cv2 = need("cv2", "live")
    scale = -(-FACE // side)
    large = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
    room = side * scale // 2
    framed: NDArray[np.uint8] = cv2.copyMakeBorder(large, room, room, room, room, cv2.BORDER_CONSTANT)
    return framed


def _text(path: Path, content: bytes | str | None) -> str:
    try:
        found = path.read_bytes() if content is None else content
        text = " ".join((found if isinstance(found, str) else found.decode("utf-8-sig")).split())
    except UnicodeDecodeError as error:
        raise DataError(f"{path.name} is not UTF-8 text: {error.reason} at byte {error.start}") from None
    if not text:
        raise DataError(f"{path.name} is empty")
    return text


def _frames(path: Path, content: bytes | None) -> Iterator[tuple[float, NDArray[np.uint8]]]:
    av = need("av", "live")
    due = 0.0
    try:
        with av.open(str(path) if content is None else io.BytesIO(content)) as container:
            if not container.streams.video:
                return
            track = container.streams.video[0]
            track.codec_context.thread_count = 1
            start_s = (container.start_time or 0) / 1e6
            for number, frame in enumerate(container.decode(track)):
                at_s = max(0.0, frame.time - start_s) if frame.time is not None else number / _fps(track)
                if at_s + 1e-6 >= due:
                    due = at_s + 1 / FRAMES_PER_S
                    turned = np.rot90(frame.to_ndarray(format="bgr24"), round(frame.rotation / 90) % 4)
                    yield at_s, np.ascontiguousarray(turned)
    except (av.FFmpegError, OSError) as error:
        raise DataError(f"{path.name} cannot be decoded: {_reason(error)}") from None


def _audio(path: Path, content: bytes | None) -> NDArray[np.float32]:
    av = need("av", "live")
    resampler = av.AudioResampler(format="flt", layout="mono", rate=RATE)
    try:
        with av.open(str(path) if content is None else io.BytesIO(content)) as container:
            if not container.streams.audio:
                return np.zeros(0, np.float32)
            parts = [part for frame in container.decode(audio=0) for part in resampler.resample(frame)]
            parts += resampler.resample(None)
    except (av.FFmpegError, OSError) as error:
        raise DataError(f"{path.name} cannot be decoded: {_reason(error)}") from None
    pieces = [part.to_ndarray().reshape(-1) for part in parts]
    return np.concatenate(pieces) if pieces else np.zeros(0, np.float32)


def _fps(track: Any) -> float:
    return float(track.average_rate or track.guessed_rate or 25)


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
