"""The tracks of a network connection: its pictures, the latest only, and its sound, all of it."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from ecmf.errors import need
from ecmf.vad import GAP_NS
from realtime.sources.base import SAMPLE_NS, SAMPLE_RATE, AudioBlock, Frame
from realtime.sources.stamps import ArrivalStamps
from realtime.watch_picture import PictureWatch
from realtime.watch_sound import SoundWatch
from realtime.window import LatestFrame

if TYPE_CHECKING:
    from realtime.health import CameraState, MicrophoneState
    from realtime.sources.network import NetworkMedia

BLOCKS_WAITING = 100
"""Blocks of sound that may wait for their reader, some two seconds."""
FOLLOWED = 32
"""Packets over which a sender's converter is followed that counts a little faster or slower than its clock: rounding
of the stamps is averaged away, and 200 ppm leave less than a millisecond."""


class _Track:
    """What pictures and sound of one connection have in common."""

    def __init__(self, media: NetworkMedia) -> None:
        self._media = media

    @property
    def name(self) -> str:
        return self._media.title

    @property
    def lost(self) -> str | None:
        return self._media.lost

    @property
    def returns(self) -> int:
        return self._media.returns

    def close(self) -> None:
        self._media.close()


class NetworkVideo(_Track):
    """Pictures of a connection, the latest only."""

    def __init__(self, media: NetworkMedia, track: Any) -> None:
        super().__init__(media)
        self.width, self.height = int(track.width or 0), int(track.height or 0)
        self.fps = float(track.average_rate or track.guessed_rate or 0)
        self.watch = PictureWatch()
        self._latest: LatestFrame[tuple[Any, int]] = LatestFrame()
        self._before = 0
        """Frames that came while nobody listened yet."""

    @property
    def lost_ns(self) -> int:
        """When its loss was last noticed, on the monotonic clock; 0: never."""
        return self._media.lost_ns

    @property
    def dropped(self) -> int:
        """Frames that came while the last one was still being handed on."""
        return self._latest.dropped - self._before

    def put(self, picture: Any, read_ns: int, arrivals: ArrivalStamps | None) -> None:
        """Alone, a frame is stamped on arrival (some servers make their times up); with sound, as both were sent."""
        stamp_ns = read_ns
        if arrivals is not None and picture.time is not None:
            sent_ns = round(picture.time * 1e9)
            stamp_ns = arrivals.stamp(sent_ns, sent_ns, read_ns)
        self._latest.put((picture, stamp_ns))

    def frames(self, stop: threading.Event) -> Iterator[Frame]:
        index, lost_ns = 0, self.lost_ns
        self._before = self._latest.dropped
        while not stop.is_set():
            got = self._latest.take(0.2)
            if lost_ns != self.lost_ns:
                lost_ns = self.lost_ns
                self.watch.lose()
            if got is None:
                continue
            picture, stamp_ns = got
            image = np.ascontiguousarray(picture.to_ndarray(format="bgr24"))
            self.height, self.width = image.shape[:2]
            yield self.watch.see(Frame(image, stamp_ns, stamp_ns, "read", None, index))
            index += 1

    def condition(self) -> CameraState:
        """How it is doing now; any thread may ask."""
        away = None if self.lost is None else "reconnecting" if self._media.opening else "lost"
        return self.watch.condition(self.width, self.height, dropped=self.dropped, away=away)


class NetworkAudio(_Track):
    """Sound of a connection, all of it as long as it is taken within about two seconds."""

    def __init__(self, media: NetworkMedia, track: Any) -> None:
        super().__init__(media)
        self.rate = int(track.codec_context.sample_rate)
        self.overflows = 0
        self.watch = SoundWatch(self.rate)
        self._blocks: queue.Queue[AudioBlock] = queue.Queue(BLOCKS_WAITING)
        self.restart()

    def restart(self) -> None:
        """Sound is missing: what follows has a time of its own and must not be smeared into what came before."""
        av, soxr = need("av", "live"), need("soxr", "live")
        self._mixer = av.AudioResampler(format="fltp", layout="mono", rate=self.rate)
        self._resampler = soxr.ResampleStream(self.rate, SAMPLE_RATE, 1, dtype="float32")
        self._own = ArrivalStamps()
        self._begin_ns: int | None = None
        """On the stream's time line, of the first sample since the restart."""
        self._taken = 0
        self._given = 0

    def put(self, sound: Any, read_ns: int, arrivals: ArrivalStamps | None) -> None:
        sent_ns = None if sound.time is None else round(sound.time * 1e9)
        if sent_ns is not None and self._begin_ns is not None:
            apart_ns = sent_ns - self._reached_ns()
            if abs(apart_ns) > GAP_NS:
                self.restart()
            else:
                self._begin_ns += apart_ns // FOLLOWED
        if self._begin_ns is None:
            self._begin_ns = sent_ns or 0
        for mixed in self._mixer.resample(sound):
            samples = self.watch.hear(mixed.to_ndarray()[0])
            self._taken += len(samples)
            ready = self._resampler.resample_chunk(samples)
            start_ns = self._begin_ns + self._given * SAMPLE_NS
            start_ns = (arrivals or self._own).stamp(start_ns, self._reached_ns(), read_ns)
            if not len(ready):
                continue
            self._given += len(ready)
            block = AudioBlock(ready, start_ns, start_ns + len(ready) * SAMPLE_NS, "read", None)
            try:
                self._blocks.put_nowait(block)
            except queue.Full:
                self.overflows += 1

    def _reached_ns(self) -> int:
        """The end of what was taken, on the stream's time line."""
        return (self._begin_ns or 0) + self._taken * 1_000_000_000 // self.rate

    def blocks(self, stop: threading.Event) -> Iterator[AudioBlock]:
        # What came while nobody listened yet is old, and no overflow.
        with contextlib.suppress(queue.Empty):
            while True:
                self._blocks.get_nowait()
        self.overflows = 0
        while not stop.is_set():
            try:
                yield self._blocks.get(timeout=0.2)
            except queue.Empty:
                continue

    def condition(self) -> MicrophoneState:
        """How it is doing now; any thread may ask. A stream's own clock is followed, so no drift is told."""
        from msgspec.structs import replace

        now = self.watch.condition(self.rate, self.overflows, None)
        return now if self.lost is None else replace(now, state="lost")
