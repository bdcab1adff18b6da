"""A network camera without hardware: ffmpeg serves it, a thread watches."""

from __future__ import annotations

import shutil
import subprocess
import threading
import time
from pathlib import Path

import pytest

from realtime.sources.base import Frame, VideoSource

LISTENING, CONNECTED = "0A", "01"  # as in /proc/net/tcp


MJPEG = ("-an", "-c:v", "mjpeg", "-q:v", "3", "-f", "mpjpeg")


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
