"""A network camera without hardware: ffmpeg serves it."""

from __future__ import annotations

import itertools
import socket
import time
from pathlib import Path

import numpy as np
import pytest
from clips import write_clap
from network_camera import Watcher, serve, wait_until

from realtime.clock import SystemClock
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


WITH_SOUND = ("-c:v", "mpeg2video", "-b:v", "2M", "-c:a", "mp2", "-f", "mpegts")


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
