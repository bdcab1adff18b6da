"""A camera with an address (RTSP, HTTP MJPEG …): opened once, picture and sound from the one connection."""

from __future__ import annotations

import logging
import threading
import time
from typing import Any

from ecmf.errors import SourceError, need
from realtime.sources.network_tracks import NetworkAudio, NetworkVideo
from realtime.sources.returning import RETRY_S
from realtime.sources.stamps import ArrivalStamps

log = logging.getLogger("ecmf.sources")

OPEN_S = 5.0
READ_S = 1.5
"""Without data for that long a server is gone."""
SILENCE = f"nothing came for {READ_S} s"

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
    """``address`` as it may be shown: without user and password, and without a query, which may hold them too."""
    scheme, _, rest = address.partition("?")[0].partition("://")
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
        except av.error.ProtocolNotFoundError:
            raise SourceError(
                f"{self.title} has a scheme that is not known; rtsp, http and rtmp are"
            ) from None
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
            log.warning("%s; waiting for its return", self.lost)
            if self.audio is not None:
                self.audio.watch.faults["lost"] += 1
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
        if not tracks:
            return "it has nothing that is asked for any more"
        arrivals = ArrivalStamps() if len(tracks) == 2 else None
        read_ns = time.monotonic_ns()
        try:
            for packet in self._container.demux(*(streams[index] for index in tracks)):
                if self._ended.is_set():
                    return "it was closed"
                before_ns, read_ns = read_ns, time.monotonic_ns()
                if read_ns - before_ns >= READ_S * 1e9:
                    # A parser that held back a last picture gives it up after the timeout, before the error.
                    return SILENCE
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
            return SILENCE
        except (av.error.FFmpegError, OSError, ValueError) as error:
            # ValueError: the sound has another format now.
            return str(getattr(error, "strerror", None) or error)
        return "the server ended the stream"
