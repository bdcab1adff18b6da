"""A camera at an address: opened once, read again when it returns, its password kept."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest
from mjpeg_server import MjpegServer

from ecmf.errors import SourceError
from realtime.sources import network
from realtime.sources.base import Frame, VideoSource
from realtime.sources.camera import open_camera
from realtime.sources.network import NetworkMedia, without_password


def bright(frame: Frame) -> int:
    return round(float(frame.image.mean()))


def read_until(source: VideoSource, stop: threading.Event, brightness: int) -> Frame:
    return next(frame for frame in source.frames(stop) if abs(bright(frame) - brightness) <= 1)


def test_an_address_is_opened_once_and_stamped_when_it_is_read() -> None:
    server, stop = MjpegServer(), threading.Event()
    for _ in range(3):
        server.show(10)
    camera = open_camera(server.address)
    try:
        sent_ns = server.show(200)
        frame = read_until(camera, stop, 200)
        assert frame.clock == "read" and frame.start_ns == frame.end_ns >= sent_ns and frame.media_s is None
        server.show(90, size=(96, 64))
        frame = read_until(camera, stop, 90)
        assert frame.image.shape == (64, 96, 3) == (camera.height, camera.width, 3)
        assert server.requests == 1
    finally:
        stop.set()
        camera.close()
        server.stop()


def test_a_server_that_returns_is_read_again(caplog: pytest.LogCaptureFixture) -> None:
    server, stop = MjpegServer(), threading.Event()
    for _ in range(3):
        server.show(10)
    camera = open_camera(server.address)
    try:
        server.stop()
        again = MjpegServer(server.port)
        for _ in range(3):
            again.show(150)
        read_until(camera, stop, 150)
        assert "stopped delivering" in caplog.text and "is back" in caplog.text
        again.stop()
    finally:
        stop.set()
        camera.close()


def test_an_address_where_nothing_answers_is_one_clear_line() -> None:
    server = MjpegServer()
    server.stop()
    with pytest.raises(SourceError, match=r"cannot be opened: Connection refused; is the server running\?"):
        open_camera(server.address)


class Connection:
    """A stream with sound whose format changes while it is read, and then with nothing at all."""

    duration = None

    def __init__(self, *layouts: str) -> None:
        self._layouts = layouts
        track = SimpleNamespace(index=0, codec_context=SimpleNamespace(sample_rate=48_000))
        self.streams = type("Streams", (list,), {"video": [], "audio": [track] if layouts else []})([track])

    def demux(self, *tracks: Any) -> Iterator[Any]:
        assert tracks
        for layout in self._layouts:
            channels = 2 if layout == "stereo" else 1
            sound = av.AudioFrame.from_ndarray(np.zeros((1, 4800 * channels), np.int16), "s16", layout)
            sound.sample_rate = 48_000
            yield SimpleNamespace(decode=lambda sound=sound: [sound], stream=tracks[0])

    def close(self) -> None:
        pass


def test_a_stream_that_changes_what_it_sends_is_connected_to_again(monkeypatch: pytest.MonkeyPatch) -> None:
    connections = [Connection("stereo", "mono"), Connection(), Connection("mono")]
    lost: list[str | None] = []

    def connect(media: NetworkMedia) -> Connection:
        lost.append(media.lost)
        if len(connections) == 1:
            media.close()
        return connections.pop(0)

    monkeypatch.setattr(network, "RETRY_S", 0.0)
    monkeypatch.setattr(NetworkMedia, "_connect", connect)
    media = NetworkMedia("rtsp://host/a").start()
    media._reader.join(30)
    assert not media._reader.is_alive() and not connections
    assert "not match" in str(lost[1]) and "nothing that is asked for" in str(lost[2])
    assert media.audio is not None and media.audio.condition().faults == {"lost": 2}


def test_passwords_are_not_shown() -> None:
    assert without_password("rtsp://me:secret@10.0.0.2:554/a") == "rtsp://10.0.0.2:554/a"
    assert without_password("http://10.0.0.2/a") == "http://10.0.0.2/a"
    assert without_password("http://10.0.0.2/a?user=me&pwd=secret@1") == "http://10.0.0.2/a"
