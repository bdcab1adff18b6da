"""A file played like a device: its pictures and its sound come out on one clock, each when it is due."""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ecmf.errors import SourceError
from realtime.clock import Clock
from realtime.sources import decode
from realtime.sources.base import BLOCK, SAMPLE_NS, SAMPLE_RATE, AudioBlock, AudioSource, Frame, VideoSource
from realtime.sources.network import NetworkMedia, is_address
from realtime.sources.picture import Picture, is_picture
from realtime.sources.playback import Playback
from realtime.watch_picture import PictureWatch
from realtime.watch_sound import SoundWatch

if TYPE_CHECKING:
    from realtime.health import CameraState, MicrophoneState

log = logging.getLogger("ecmf.sources")


LATE_NS = 100_000_000
"""Frames later than this are thinned out until the decoder has caught up."""
SPARSE_NS = 200_000_000
"""To one in this much media time."""


@dataclass(frozen=True)
class Media:
    """What was opened; picture and sound share one clock."""

    name: str
    video: VideoSource | None
    audio: AudioSource | None
    duration_s: float | None
    """Of one pass, as far as known."""

    def samples(self, stop: threading.Event) -> Iterator[Frame | AudioBlock]:
        """Everything in order of the end of its capture, from one thread: what --fast reads."""
        tracks: list[Iterator[Frame | AudioBlock]] = []
        if self.video is not None:
            tracks.append(iter(self.video.frames(stop)))
        if self.audio is not None:
            tracks.append(iter(self.audio.blocks(stop)))
        return heapq.merge(*tracks, key=lambda sample: sample.end_ns)

    def close(self) -> None:
        for source in (self.video, self.audio):
            if source is not None:
                source.close()


class FileVideo:
    """The picture track of a file as a camera: a decoder that falls behind drops frames, as a camera does."""

    def __init__(
        self, location: str, name: str, contents: decode.Contents, playback: Playback, loop: int | None
    ) -> None:
        self.name = name
        self.width, self.height, self.fps = contents.width, contents.height, contents.fps
        self._location = location
        self._playback = playback
        self._loop = loop
        self.dropped = 0
        self._watch = PictureWatch(still=True)

    def frames(self, stop: threading.Event) -> Iterator[Frame]:
        index = 0
        shown_ns: int | None = None
        for loop_ns in _loop_starts(self._loop):
            for decoded in decode.pictures(self._location, self.name):
                if self._loop is not None and decoded.media_s * SAMPLE_RATE >= self._loop:
                    break
                stamp_ns = self._playback.stamp_ns(loop_ns + round(decoded.media_s * 1e9))
                late = self._playback.behind_ns(stamp_ns) > LATE_NS
                if late and shown_ns is not None and stamp_ns - shown_ns < SPARSE_NS:
                    self.dropped += 1
                    continue
                image = decoded.image()
                if not self._playback.wait(stamp_ns, stop):
                    return
                yield self._watch.see(Frame(image, stamp_ns, stamp_ns, "file", decoded.media_s, index))
                index += 1
                shown_ns = stamp_ns
            if index == 0:
                raise SourceError(f"{self.name}: no picture can be decoded any more; was the file changed?")

    def condition(self) -> CameraState:
        """How it is doing now; any thread may ask."""
        return self._watch.condition(self.width, self.height, dropped=self.dropped)

    def close(self) -> None:
        pass


class FileAudio:
    """The sound track of a file as a microphone: blocks of 32 ms, each released when its end is reached."""

    overflows = 0

    def __init__(
        self,
        location: str,
        name: str,
        contents: decode.Contents,
        playback: Playback,
        loop: int | None,
        end: int | None,
    ) -> None:
        self.name = name
        self.rate = contents.rate
        self._location = location
        self._playback = playback
        self._loop = loop
        self._end = end
        self._watch = SoundWatch(SAMPLE_RATE)

    def blocks(self, stop: threading.Event) -> Iterator[AudioBlock]:
        position = 0
        for samples in _blocks(self._looped()):
            if self._end is not None:
                samples = samples[: self._end - position]
            if not len(samples):
                return
            start_ns = self._playback.stamp_ns(position * SAMPLE_NS)
            end_ns = start_ns + len(samples) * SAMPLE_NS
            if not self._playback.wait(end_ns, stop):
                return
            samples = self._watch.hear(samples)
            media = position if self._loop is None else position % self._loop
            yield AudioBlock(samples, start_ns, end_ns, "file", media / SAMPLE_RATE)
            position += len(samples)

    def condition(self) -> MicrophoneState:
        """How it is doing now; any thread may ask."""
        return self._watch.condition(self.rate, self.overflows, None)

    def close(self) -> None:
        pass

    def _looped(self) -> Iterator[NDArray[np.float32]]:
        for _ in _loop_starts(self._loop):
            left = self._loop
            for samples in decode.sounds(self._location, self.name):
                if left is not None:
                    samples = samples[:left]
                    left -= len(samples)
                yield samples
            if left:
                yield np.zeros(left, np.float32)


def open_media(
    path: str | Path,
    *,
    video: bool = True,
    audio: bool = True,
    loop: bool = False,
    pace: Clock | None,
    playback: Playback | None = None,
    end_s: float | None = None,
) -> Media:
    """Open a video, sound or picture file, or an address: of a recording, or of a live stream with its own pace.

    ``pace`` is the clock to play by; None plays as fast as it is read, lossless, on media time from 0
    (--fast). ``loop`` starts again at the end, without a gap in time. A picture repeats while it is paced,
    else it is shown once. ``playback`` joins files on one time line; ``end_s`` cuts the sound there.
    Raises SourceError for a file that is missing, empty, cannot be decoded or has nothing of what is asked.
    """
    playback = playback or Playback(pace)
    if is_address(str(path)):
        return _open_address(str(path), video, audio, loop, playback, end_s)
    path = Path(str(path).removeprefix("file://"))
    _check(path)
    title = f"source {path}"
    if is_picture(path):
        if not video:
            raise SourceError(f"{title} is a picture, and pictures are switched off; nothing is left to play")
        return Media(path.name, Picture(path, playback, repeat=loop or playback.paced), None, None)
    return _open_recording(str(path), path.name, title, video, audio, loop, playback, end_s)


def _open_recording(
    location: str,
    name: str,
    title: str,
    video: bool,
    audio: bool,
    loop: bool,
    playback: Playback,
    end_s: float | None,
) -> Media:
    contents = decode.inspect(location, title)
    samples = max(1, round(decode.length_s(location, title) * SAMPLE_RATE)) if loop else None
    end = None if end_s is None else round(end_s * SAMPLE_RATE)
    shown = FileVideo(location, name, contents, playback, samples) if video and contents.width else None
    heard = FileAudio(location, name, contents, playback, samples, end) if audio and contents.rate else None
    if shown is None and heard is None:
        missing = "sound" if audio else "pictures"
        raise SourceError(f"{title} has no {missing}, and the rest is switched off; nothing is left to play")
    return Media(name, shown, heard, contents.duration_s)


def _open_address(
    address: str, video: bool, audio: bool, loop: bool, playback: Playback, end_s: float | None
) -> Media:
    live = NetworkMedia(address, video=video, audio=audio)
    if live.duration_s is not None:
        live.close()
        return _open_recording(address, live.title, live.title, video, audio, loop, playback, end_s)
    if not playback.paced:
        live.close()
        raise SourceError(f"{live.title} is a live stream, which --fast cannot hurry; leave --fast out")
    live.start()
    return Media(live.title, live.video, live.audio, None)


def _check(path: Path) -> None:
    try:
        if path.is_dir():
            raise SourceError(f"source {path} is a folder; give one video, picture or sound file")
        if not path.exists():
            remedy = "ecmf-live --demo plays the demonstration" if str(path) == "demo" else "check the path"
            raise SourceError(f"source {path} does not exist; {remedy}")
        if not path.is_file():
            hint = "a camera is given as --camera N" if path.is_char_device() else "write it to a file first"
            raise SourceError(f"source {path} is no file, and it is to be read more than once; {hint}")
        if path.stat().st_size == 0:
            raise SourceError(f"source {path} is empty")
        with path.open("rb"):
            pass
    except OSError as error:
        raise SourceError(f"source {path} cannot be read: {error.strerror}") from None


def _loop_starts(loop: int | None) -> Iterator[int]:
    """Nanoseconds at which each pass begins: only 0 without a loop, whose length is in samples."""
    if loop is None:
        return iter((0,))
    return (turn * loop * SAMPLE_NS for turn in itertools.count())


def _blocks(pieces: Iterator[NDArray[np.float32]]) -> Iterator[NDArray[np.float32]]:
    """The same samples in blocks of BLOCK; only the last may be shorter."""
    rest = np.zeros(0, np.float32)
    for piece in pieces:
        rest = np.concatenate([rest, piece])
        whole = len(rest) // BLOCK * BLOCK
        for begin in range(0, whole, BLOCK):
            yield rest[begin : begin + BLOCK].copy()
        rest = rest[whole:]
    if len(rest):
        yield rest
