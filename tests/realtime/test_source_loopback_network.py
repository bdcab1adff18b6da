"""A network camera without hardware: ffmpeg serves it."""

from __future__ import annotations

import itertools
import shutil
import socket
import subprocess
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from clips import write_clap

from realtime.clock import SystemClock
from realtime.sources.base import Frame, VideoSource
from realtime.sources.camera import open_camera
from realtime.sources.file import open_media

pytestmark = pytest.mark.slow


SKEW_S = 0.045
"""What people begin to notice between lips and voice (ITU-R BT.1359)."""


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


LISTENING, CONNECTED = "0A", "01"  # as in /proc/net/tcp


MJPEG = ("-an", "-c:v", "mjpeg", "-q:v", "3", "-f", "mpjpeg")


WITH_SOUND = ("-c:v", "mpeg2video", "-b:v", "2M", "-c:a", "mp2", "-f", "mpegts")


def serve(clip: Path, port: int, how: tuple[str, ...] = MJPEG) -> subprocess.Popen[bytes]:
    """ffmpeg as a network camera that serves one client, in real time."""
    if shutil.which("ffmpeg") is None:
        pytest.skip("ffmpeg is not installed")
    server = subprocess.Popen(
        [
            *("ffmpeg", "-v", "error", "-re", "-stream_loop", "-1", "-i", str(clip)),
            *(*how, "-listen", "1", f"http://127.0.0.1:{port}/camera"),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    for _ in range(1000):
        # Who waits for the server's return may be connected before it is seen listening.
        connections = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()]
        if any(
            each[1].endswith(f":{port:04X}") and each[3] in (LISTENING, CONNECTED) for each in connections
        ):
            return server
        time.sleep(0.02)
    server.kill()
    pytest.fail("ffmpeg does not listen")


def wait_until(happened: object, seconds: float) -> float:
    """Seconds until ``happened()``; fails after ``seconds``."""
    assert callable(happened)
    start = time.monotonic()
    while not happened():
        assert time.monotonic() - start < seconds
        time.sleep(0.005)
    return time.monotonic() - start


class Watcher(threading.Thread):
    """Reads a camera and keeps when frames came."""

    def __init__(self, camera: VideoSource) -> None:
        super().__init__(daemon=True)
        self.stop = threading.Event()
        self.frames: list[Frame] = []
        self.read_ns = 0
        """When the latest frame came."""
        self._camera = camera
        self.start()

    def run(self) -> None:
        for frame in self._camera.frames(self.stop):
            self.frames.append(frame)
            self.read_ns = time.monotonic_ns()

    def end(self) -> None:
        self.stop.set()
        self.join(timeout=10)
        self._camera.close()


def test_a_network_camera_keeps_its_pace(tmp_path: Path, port: int) -> None:
    # Longer than the time in which a picture that comes again is taken for a frozen camera's.
    server = serve(write_clap(tmp_path / "clap.mkv", seconds=2.4, clap_s=0.5, sound=False, fps=25), port)
    watcher = Watcher(open_camera(f"http://127.0.0.1:{port}/camera"))
    try:
        wait_until(
            lambda: watcher.frames and watcher.frames[-1].start_ns - watcher.frames[0].start_ns > 11e9, 60
        )
    finally:
        watcher.end()
        server.kill()
        server.wait()
    flashes = [frame.start_ns / 1e9 for frame in watcher.frames if frame.image.mean() > 128]
    # The first of them may have waited for the connection to be made.
    assert len(flashes) >= 4
    assert np.abs(np.diff(flashes[1:]) - 2.4).max() <= SKEW_S


def test_picture_and_sound_of_one_connection_stay_together(tmp_path: Path, port: int) -> None:
    server = serve(write_clap(tmp_path / "clap.mkv", seconds=2.4, clap_s=0.5, fps=30), port, WITH_SOUND)
    media = open_media(f"http://127.0.0.1:{port}/camera", pace=SystemClock())
    assert media.video is not None and media.audio is not None
    watcher, clicks = Watcher(media.video), []
    try:
        for block in itertools.takewhile(lambda _: len(clicks) < 4, media.audio.blocks(watcher.stop)):
            loud = np.flatnonzero(np.abs(block.samples) > 0.1)
            if len(loud) and (not clicks or block.start_ns / 1e9 - clicks[-1] > 0.5):
                clicks.append(block.start_ns / 1e9 + loud[0] / 16_000)
        time.sleep(0.5)
    finally:
        watcher.end()
        server.kill()
        server.wait()
    flashes = [frame.start_ns / 1e9 for frame in watcher.frames if frame.image.mean() > 128]
    skews = [min((flash - click for flash in flashes), key=abs) for click in clicks]
    # A busy machine misses a flash now and then, and the first may have been sent before anybody looked; what pulls
    # picture and sound apart would be in every pair.
    assert sorted(map(abs, skews))[len(skews) // 2 - 1] <= SKEW_S, skews
