"""Network cameras that fail, with ffmpeg behind a real HTTP or RTSP connection on loopback.

Judged by the capture stamps and by when a loss was noticed, not by how long the test waits.
"""

from __future__ import annotations

import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from clips import write_clap
from mjpeg_server import MjpegServer
from network_camera import Watcher, serve, wait_until
from rtsp_server import RtspServer

from realtime.sources.camera import open_camera
from realtime.sources.network_tracks import NetworkVideo

pytestmark = pytest.mark.slow

NOTICED_NS = 2_000_000_000
BACK_NS = 3_000_000_000


@pytest.fixture
def watch() -> Iterator[Callable[[str], tuple[NetworkVideo, Watcher]]]:
    watchers: list[Watcher] = []

    def begin(address: str) -> tuple[NetworkVideo, Watcher]:
        camera = open_camera(address)
        assert isinstance(camera, NetworkVideo)
        watchers.append(Watcher(camera))
        return camera, watchers[-1]

    yield begin
    for watcher in watchers:
        watcher.end()


def first_after(watcher: Watcher, moment_ns: int) -> int:
    """Capture time of the first frame after ``moment_ns``, waited for."""
    wait_until(lambda: watcher.frames and watcher.frames[-1].start_ns > moment_ns, 30)
    return next(frame.start_ns for frame in watcher.frames if frame.start_ns > moment_ns)


@pytest.mark.parametrize("death", [signal.SIGKILL, signal.SIGSTOP])
def test_an_http_camera_that_dies_is_noticed_and_its_return_too(
    tmp_path: Path, death: int, watch: Callable[[str], tuple[NetworkVideo, Watcher]]
) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    clip = write_clap(tmp_path / "clap.mkv", seconds=2.4, sound=False, fps=30)
    server = serve(clip, port)
    try:
        camera, watcher = watch(f"http://127.0.0.1:{port}/camera")
        wait_until(lambda: len(watcher.frames) > 20, 30)
        died_ns = time.monotonic_ns()
        server.send_signal(death)
        wait_until(lambda: camera.lost_ns > died_ns, 30)
        assert camera.lost_ns - died_ns <= NOTICED_NS
        assert camera.condition().state in ("lost", "reconnecting")
        server.kill()
        server.wait()
        server = serve(clip, port)
        back_ns = time.monotonic_ns()
        assert first_after(watcher, back_ns) - back_ns <= BACK_NS
        assert camera.condition().state != "lost" and camera.returns >= 1
        assert camera.condition().faults["lost"] >= 1
    finally:
        server.kill()
        server.wait()
    assert [frame.index for frame in watcher.frames] == list(range(len(watcher.frames)))


@pytest.mark.parametrize("death", ["power cut", "silence"])
def test_an_rtsp_camera_that_dies_is_noticed_and_its_return_too(
    tmp_path: Path, death: str, watch: Callable[[str], tuple[NetworkVideo, Watcher]]
) -> None:
    """Its encoder may hang while the connection stays."""
    clip = write_clap(tmp_path / "clap.mkv", seconds=2.4, sound=False, fps=25, size=(320, 240))
    server = RtspServer(clip, tmp_path)
    again = None
    try:
        camera, watcher = watch(server.address)
        wait_until(lambda: len(watcher.frames) > 20, 30)
        assert server.described == 1  # never opened twice to look what it is
        if death == "power cut":
            died_ns = server.stop()
        else:
            died_ns = time.monotonic_ns()
            server.encoder.send_signal(signal.SIGSTOP)
        wait_until(lambda: camera.lost_ns > died_ns, 30)
        assert camera.lost_ns - died_ns <= NOTICED_NS
        if death == "silence":
            server.stop()
        again = RtspServer(clip, tmp_path, server.port)
        back_ns = time.monotonic_ns()
        assert first_after(watcher, back_ns) - back_ns <= BACK_NS
        assert camera.condition().faults["lost"] >= 1
    finally:
        server.stop()
        if again is not None:
            again.stop()


def test_a_frozen_sensor_behind_an_h264_encoder_is_said_and_nothing_of_it_looks_fresh(
    tmp_path: Path, demo_multi_face: Path, watch: Callable[[str], tuple[NetworkVideo, Watcher]]
) -> None:
    picture = cv2.resize(cv2.imread(str(demo_multi_face)), (320, 240))
    cv2.imwrite(str(tmp_path / "still.png"), picture)
    still = ("-loop", "1", "-framerate", "25", "-t", "4", "-i", str(tmp_path / "still.png"))
    subprocess.run(["ffmpeg", "-v", "error", *still, "-c:v", "ffv1", str(tmp_path / "still.mkv")], check=True)
    server = RtspServer(tmp_path / "still.mkv", tmp_path)
    try:
        camera, watcher = watch(server.address)
        # The encoder needs some groups of pictures until they come again to the bit.
        wait_until(lambda: sum(frame.repeated for frame in watcher.frames[-30:]) == 30, 30)
        assert camera.condition().state == "frozen"
        assert time.monotonic_ns() - watcher.frames[-1].end_ns > 500_000_000
    finally:
        server.stop()


def test_a_camera_that_shows_one_picture_again_and_again_is_frozen_until_it_moves(
    watch: Callable[[str], tuple[NetworkVideo, Watcher]],
) -> None:
    """MJPEG on HTTP, 60 frames a second, then 2, then another size: the rate that really comes is told."""
    server = MjpegServer()
    for brightness in (10, 60, 110):
        server.show(brightness)
    camera, watcher = watch(server.address)
    try:
        show(server, watcher, fps=60, seconds=1.2, brightness=lambda n: 130)
        assert camera.condition().state == "frozen"
        assert watcher.frames[-1].repeated and time.monotonic_ns() - watcher.frames[-1].end_ns > 1e9
        show(server, watcher, fps=60, seconds=1.0, brightness=lambda n: 140 + n % 90)
        assert camera.condition().state == "ok" and not watcher.frames[-1].repeated
        show(server, watcher, fps=20, seconds=1.0, brightness=lambda n: 12)
        assert camera.condition().state == "black"
        show(server, watcher, fps=2, seconds=7.0, brightness=lambda n: 60 + n, size=(96, 64))
        condition = camera.condition()
        assert condition.state == "ok" and condition.fps == pytest.approx(2, abs=0.3)
        assert (condition.width, condition.height) == (96, 64)
        assert condition.faults["frozen"] >= 1 and condition.faults["black"] == 1
        assert server.requests == 1
    finally:
        server.stop()


def show(
    server: MjpegServer,
    watcher: Watcher,
    *,
    fps: float,
    seconds: float,
    brightness: Callable[[int], int],
    size: tuple[int, int] = (64, 48),
) -> None:
    """Send pictures at that pace, and wait until the last has come."""
    start, count, pause = time.monotonic(), round(fps * seconds), threading.Event()
    for n in range(count):
        pause.wait(max(0.0, start + n / fps - time.monotonic()))
        sent_ns = server.show(brightness(n), size)
    last = brightness(count - 1)
    came = watcher.frames
    wait_until(
        lambda: (
            came
            and came[-1].image.shape[1::-1] == size
            and abs(float(np.mean(came[-1].image)) - last) < 2
            and watcher.read_ns >= sent_ns
        ),
        30,
    )
