"""A camera with an address (RTSP, HTTP MJPEG …): opened once, picture and sound from the one connection."""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from ecmf.errors import SourceError, need
from realtime.sources.base import SAMPLE_NS, SAMPLE_RATE, AudioBlock, Frame
from realtime.sources.returning import RETRY_S
from realtime.sources.stamps import ArrivalStamps
from realtime.watch_picture import PictureWatch
from realtime.watch_sound import SoundWatch
from realtime.window import GAP_NS, LatestFrame

if TYPE_CHECKING:
    from realtime.health import CameraState, MicrophoneState

log = logging.getLogger("ecmf.sources")

OPEN_S = 5.0
READ_S = 1.5
"""Without data for that long a server is gone."""
BLOCKS_WAITING = 100
"""Blocks of sound that may wait for their reader, some two seconds."""

OPTIONS = {
    "rtsp_transport": "tcp",  # UDP loses packets, and a lost packet is a torn face
    "flags": "low_delay",
    "analyzeduration": "500000",
    "probesize": "500000",
    "fpsprobesize": "0",
    "protocol_whitelist": "http,https,tcp,tls,crypto,rtsp,rtsps,rtp,srtp,udp,rtmp,httpproxy",
}


def is_address(text: str) -> bool:
    """Whether ``text`` is a URL of something on a network."""
    return "://" in text and not text.startswith("file://")


def without_password(address: str) -> str:
    """``address`` as it may be shown."""
    scheme, _, rest = address.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"


class NetworkMedia:
    """One connection; a thread reads it as fast as it delivers, so that nothing grows old in the server's queue.

    When the server goes away the thread connects again until it is back; meanwhile ``lost`` says why.
    """

    def __init__(self, address: str, *, video: bool = True, audio: bool = True) -> None:
        """Connect. Raises SourceError when the server does not answer or sends nothing that is asked for."""
        self.title = without_password(address)
        self.lost: str | None = None
        """Why nothing comes, None while something does."""
        self.lost_ns = 0
        """When that was last noticed."""
        self.returns = 0
        self.opening = False
        """Whether it is being connected to again."""
        self._address = address
        self._ended = threading.Event()
        self._container = self._connect()
        seconds = self._container.duration
        self.duration_s: float | None = seconds / 1e6 if seconds else None
        """None for a live stream."""
        streams = self._container.streams
        self.video = NetworkVideo(self, streams.video[0]) if video and streams.video else None
        self.audio = NetworkAudio(self, streams.audio[0]) if audio and streams.audio else None
        if self.video is None and self.audio is None:
            self._container.close()
            wanted = " or ".join(what for what, on in (("pictures", video), ("sound", audio)) if on)
            raise SourceError(f"{self.title} sends no {wanted}")
        self._reader = threading.Thread(target=self._run, name=f"read {self.title}", daemon=True)

    def start(self) -> NetworkMedia:
        """Begin to read."""
        self._reader.start()
        return self

    def close(self) -> None:
        """Stop reading; the reader closes the connection itself, at the latest after its read timeout."""
        self._ended.set()
        if not self._reader.ident:
            self._container.close()

    def _connect(self) -> Any:
        av = need("av", "live")
        try:
            return av.open(self._address, options=OPTIONS, timeout=(OPEN_S, READ_S))
        except av.error.ExitError:
            raise SourceError(f"{self.title} does not answer; is the server running?") from None
        except (av.error.FFmpegError, OSError) as error:
            reason = getattr(error, "strerror", None) or error
            raise SourceError(f"{self.title} cannot be opened: {reason}; is the server running?") from None

    def _run(self) -> None:
        while not self._ended.is_set():
            reason = self._read()
            self._container.close()
            if self._ended.is_set():
                return
            self.lost, self.lost_ns = f"{self.title} stopped delivering: {reason}", time.monotonic_ns()
            if self.video is not None:
                self.video.watch.lose()
            log.warning("%s; waiting for its return", self.lost)
            if not self._reconnect():
                return

    def _reconnect(self) -> bool:
        while not self._ended.wait(RETRY_S):
            self.opening = True
            try:
                self._container = self._connect()
            except SourceError:
                self.opening = False
                continue
            if self.audio is not None:
                self.audio.restart()
            return True
        return False

    def _read(self) -> str:
        """Read until the connection ends or breaks, and say why it did."""
        av = need("av", "live")
        streams = self._container.streams
        tracks: dict[int, NetworkVideo | NetworkAudio] = {}
        if self.video is not None and streams.video:
            streams.video[0].codec_context.thread_count = 1
            tracks[streams.video[0].index] = self.video
        if self.audio is not None and streams.audio:
            tracks[streams.audio[0].index] = self.audio
        arrivals = ArrivalStamps() if len(tracks) == 2 else None
        try:
            for packet in self._container.demux(*(streams[index] for index in tracks)):
                if self._ended.is_set():
                    return "it was closed"
                read_ns = time.monotonic_ns()
                try:
                    decoded = packet.decode()
                except av.error.InvalidDataError:
                    continue  # a torn frame; the next is on its way
                if decoded and self.lost is not None:
                    self.lost, self.opening, self.returns = None, False, self.returns + 1
                    log.warning("%s is back", self.title)
                for each in decoded:
                    tracks[packet.stream.index].put(each, read_ns, arrivals)
        except av.error.ExitError:
            return f"nothing came for {READ_S} s"
        except (av.error.FFmpegError, OSError) as error:
            return str(getattr(error, "strerror", None) or error)
        return "the server ended the stream"


class NetworkVideo:
    """Pictures of a connection, the latest only."""

    def __init__(self, media: NetworkMedia, track: Any) -> None:
        self.width, self.height = int(track.width or 0), int(track.height or 0)
        self.fps = float(track.average_rate or track.guessed_rate or 0)
        self.watch = PictureWatch()
        self._media = media
        self._latest: LatestFrame[tuple[Any, int]] = LatestFrame()

    @property
    def name(self) -> str:
        return self._media.title

    @property
    def lost(self) -> str | None:
        return self._media.lost

    @property
    def returns(self) -> int:
        return self._media.returns

    @property
    def dropped(self) -> int:
        """Frames that came while the last one was still being handed on."""
        return self._latest.dropped

    def put(self, picture: Any, read_ns: int, arrivals: ArrivalStamps | None) -> None:
        """Alone, a frame is stamped on arrival (some servers make their times up); with sound, as both were sent."""
        stamp_ns = read_ns
        if arrivals is not None and picture.time is not None:
            sent_ns = round(picture.time * 1e9)
            stamp_ns = arrivals.stamp(sent_ns, sent_ns, read_ns)
        self._latest.put((picture, stamp_ns))

    def frames(self, stop: threading.Event) -> Iterator[Frame]:
        index = 0
        while not stop.is_set():
            got = self._latest.take(0.2)
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

    def close(self) -> None:
        self._media.close()


class NetworkAudio:
    """Sound of a connection, all of it as long as it is taken within about two seconds."""

    def __init__(self, media: NetworkMedia, track: Any) -> None:
        self.rate = int(track.codec_context.sample_rate)
        self.overflows = 0
        self.watch = SoundWatch(self.rate)
        self._media = media
        self._blocks: queue.Queue[AudioBlock] = queue.Queue(BLOCKS_WAITING)
        self.restart()

    @property
    def name(self) -> str:
        return self._media.title

    @property
    def lost(self) -> str | None:
        return self._media.lost

    @property
    def returns(self) -> int:
        return self._media.returns

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
        if sent_ns is not None and self._begin_ns is not None and abs(sent_ns - self._reached_ns()) > GAP_NS:
            self.restart()
        if self._begin_ns is None:
            self._begin_ns = sent_ns or 0
        for mixed in self._mixer.resample(sound):
            samples = mixed.to_ndarray()[0]
            self.watch.hear(samples)
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

    def close(self) -> None:
        self._media.close()
