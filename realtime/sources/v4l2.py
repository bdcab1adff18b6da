"""What cameras there are and what they can do, asked of the kernel (linux/videodev2.h)."""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

QUERYCAP, CAPABILITY = 0x80685600, struct.Struct("=16s32s32sIII12x")
ENUM_FMT, FORMAT = 0xC0405602, struct.Struct("=III32sII12x")
ENUM_FRAMESIZES, SIZE = 0xC02C564A, struct.Struct("=IIIIIIIII8x")
ENUM_FRAMEINTERVALS, INTERVAL = 0xC034564B, struct.Struct("=IIIIIIIIIII8x")

VIDEO_CAPTURE = 0x1
HAS_DEVICE_CAPS = 0x8000_0000
BUFFER_VIDEO_CAPTURE = 1
DISCRETE = 1

USUAL_SIZES = ((320, 240), (640, 360), (640, 480), (800, 600), (1280, 720), (1920, 1080), (3840, 2160))
"""Named for a camera that scales to any size within limits."""

Ioctl = Callable[[int, int, bytearray], object]


@dataclass(frozen=True)
class CameraFormat:
    """One way in which a camera can deliver."""

    pixels: str
    """FourCC: MJPG, YUYV, …"""
    width: int
    height: int
    fps: float
    """The highest at that size; 0 when the driver does not say."""


@dataclass(frozen=True)
class CameraInfo:
    """A camera that the kernel knows."""

    number: int
    """Of /dev/videoN."""
    name: str
    path: str
    links: tuple[str, ...]
    """Lasting names, below /dev/v4l/by-id and by-path."""
    formats: tuple[CameraFormat, ...]


def cameras(dev: Path = Path("/dev"), ioctl: Ioctl | None = None) -> list[CameraInfo]:
    """All video inputs by number; one that may not be opened is listed without formats, one that goes away left out."""
    if ioctl is None:
        import fcntl

        ioctl = fcntl.ioctl
    links = _links(dev)
    found = []
    numbered = (path for path in dev.glob("video*") if path.name[5:].isdigit())
    for path in sorted(numbered, key=lambda path: int(path.name[5:])):
        names = tuple(sorted(links.get(path.name, ())))
        try:
            handle = os.open(path, os.O_RDWR | os.O_NONBLOCK)
        except OSError as error:
            name = f"cannot be opened: {error.strerror}"
            found.append(CameraInfo(int(path.name[5:]), name, str(path), names, ()))
            continue
        try:
            name_or_none = _name(handle, ioctl)
            if name_or_none is None:
                continue
            formats = tuple(_formats(handle, ioctl))
            found.append(CameraInfo(int(path.name[5:]), name_or_none, str(path), names, formats))
        except OSError:
            continue  # it was pulled out while it was asked
        finally:
            os.close(handle)
    return found


def faster_as_jpeg(formats: tuple[CameraFormat, ...], width: int, height: int, fps: float) -> bool:
    """Whether MJPG gives more frames a second (up to ``fps``) at that size than the uncompressed formats.

    Uncompressed is preferred where it is as fast: it saves decoding. Where nothing is known, MJPG is the better bet.
    """

    def best(compressed: bool) -> float:
        rates = [
            min(each.fps or fps, fps)
            for each in formats
            if (each.width, each.height) == (width, height)
            and (each.pixels in ("MJPG", "JPEG")) == compressed
        ]
        return max(rates, default=0.0)

    jpeg, plain = best(True), best(False)
    return jpeg > plain + 0.5 if jpeg or plain else True


def _links(dev: Path) -> dict[str, list[str]]:
    links: dict[str, list[str]] = {}
    for folder in ("by-id", "by-path"):
        for link in (dev / "v4l" / folder).glob("*"):
            links.setdefault(link.resolve().name, []).append(f"{folder}/{link.name}")
    return links


def _name(handle: int, ioctl: Ioctl) -> str | None:
    """The card's name, None for a node that gives no pictures (metadata, output)."""
    answer = bytearray(CAPABILITY.size)
    try:
        ioctl(handle, QUERYCAP, answer)
    except OSError:
        return None
    _, card, _, _, of_card, of_node = CAPABILITY.unpack(answer)
    if not (of_node if of_card & HAS_DEVICE_CAPS else of_card) & VIDEO_CAPTURE:
        return None
    return _text(card)


def _formats(handle: int, ioctl: Ioctl) -> Iterator[CameraFormat]:
    for described in _enumerate(handle, ioctl, ENUM_FMT, FORMAT, BUFFER_VIDEO_CAPTURE):
        code = described[4]
        pixels = _text(struct.pack("=I", code))
        for width, height in _sizes(handle, ioctl, code):
            yield CameraFormat(pixels, width, height, _fps(handle, ioctl, code, width, height))


def _sizes(handle: int, ioctl: Ioctl, code: int) -> Iterator[tuple[int, int]]:
    for _, _, kind, *size in _enumerate(handle, ioctl, ENUM_FRAMESIZES, SIZE, code):
        if kind != DISCRETE:
            min_width, max_width, _, min_height, max_height, _ = size
            for width, height in USUAL_SIZES:
                if min_width <= width <= max_width and min_height <= height <= max_height:
                    yield width, height
            return
        yield size[0], size[1]


def _fps(handle: int, ioctl: Ioctl, code: int, width: int, height: int) -> float:
    rates = [0.0]
    for entry in _enumerate(handle, ioctl, ENUM_FRAMEINTERVALS, INTERVAL, code, width, height):
        # Discrete: the interval; stepwise: the shortest comes first, and the rest are ranges.
        seconds, parts = entry[5], entry[6]
        if seconds:
            rates.append(parts / seconds)
        if entry[4] != DISCRETE:
            break
    return round(max(rates), 3)


def _enumerate(
    handle: int, ioctl: Ioctl, request: int, layout: struct.Struct, *fixed: int
) -> Iterator[tuple[int, ...]]:
    """Ask for entry 0, 1, … until the driver says that there is no more (EINVAL)."""
    index = 0
    while True:
        question = struct.pack(f"={1 + len(fixed)}I", index, *fixed)
        answer = bytearray(question.ljust(layout.size, b"\0"))
        try:
            ioctl(handle, request, answer)
        except OSError as error:
            if error.errno in (errno.EINVAL, errno.ENOTTY):
                return
            raise
        yield layout.unpack(answer)
        index += 1


def _text(raw: bytes) -> str:
    return raw.partition(b"\0")[0].decode("utf-8", "replace").strip()
