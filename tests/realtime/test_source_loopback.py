"""Real devices without hardware: PortAudio on a private PulseAudio, ffmpeg as a network camera."""

from __future__ import annotations

import itertools
import json
import shutil
import socket
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from clips import write_clap
from loopback import skip_without_pulseaudio, sound_card
from mjpeg_server import MjpegServer

from realtime.clock import SystemClock
from realtime.sources.base import Frame, VideoSource
from realtime.sources.camera import open_camera
from realtime.sources.file import open_media

pytestmark = pytest.mark.slow

RATE = 48_000
SKEW_S = 0.045
"""What people begin to notice between lips and voice (ITU-R BT.1359)."""

LISTEN = """
import json, sys, threading
import numpy as np
from realtime.devices import devices
from realtime.sources.camera import open_camera
from realtime.sources.microphone import open_microphone
stop = threading.Event()
microphone, camera = open_microphone(None), open_camera(sys.argv[1])
flashes, clicks, samples, clocks = [], [], 0, set()

def watch():
    for frame in camera.frames(stop):
        if frame.image.mean() > 128:
            flashes.append(frame.start_ns / 1e9)

watcher = threading.Thread(target=watch)
watcher.start()
threading.Timer(float(sys.argv[2]), stop.set).start()
for block in microphone.blocks(stop):
    samples += len(block.samples)
    clocks.add(block.clock)
    loud = np.flatnonzero(np.abs(block.samples) > 0.1)
    if len(loud) and (not clicks or block.start_ns / 1e9 - clicks[-1] > 0.2):
        clicks.append(block.start_ns / 1e9 + loud[0] / 16000)
watcher.join()
microphone.close()
camera.close()
print(json.dumps(dict(clicks=clicks, flashes=flashes, samples=samples, clocks=sorted(clocks),
                      microphones=devices()["microphones"])))
"""

STAY = """
import json, sys, threading
from realtime.sources.microphone import open_microphone
from realtime.window import AudioRing
stop, ring = threading.Event(), AudioRing(5)
microphone = open_microphone(None)

def record():
    for block in microphone.blocks(stop):
        ring.write(block)

recorder = threading.Thread(target=record)
recorder.start()
assert ring.wait(8000, 20)
print("heard", flush=True)
while microphone.lost is None:
    stop.wait(0.01)
print("lost", flush=True)
while microphone.lost is not None:
    stop.wait(0.01)
assert ring.wait(ring.written + 8000, 20)
print("back", flush=True)
sys.stdin.readline()
stop.set()
recorder.join()
microphone.close()
print(json.dumps(dict(returns=microphone.returns, gaps=ring.gaps, lost=microphone.lost)))
"""


def test_a_clap_is_seen_and_heard_at_the_same_time(tmp_path: Path) -> None:
    """A click through PortAudio and a flash through HTTP, each with the time at which it really was: the click as an
    independent recorder of the same sound (`parec`) has it, the flash when it was sent. So a busy machine, which shows
    the flash late, does not count; how far the two stamps are off in different ways is the skew."""
    skip_without_pulseaudio()
    seconds = 10.0
    server = MjpegServer()
    with sound_card(tmp_path) as environment:
        listener = subprocess.Popen(
            [sys.executable, "-c", LISTEN, server.address, str(seconds)],
            env={**environment, "PYTHONPATH": str(Path(__file__).parents[2])},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        raw = [f"--rate={RATE}", "--channels=1", "--format=s16le", "--latency-msec=20", "--raw"]
        recorder = subprocess.Popen(
            ["parec", "-d", "vspk.monitor", *raw], env=environment, stdout=subprocess.PIPE
        )
        player = subprocess.Popen(["pacat", "-d", "vspk", *raw], env=environment, stdin=subprocess.PIPE)
        ears = Ears(recorder, server)
        try:
            _play_clicks(player, listener, server)
            output, errors = listener.communicate(timeout=60)
        finally:
            for process in (listener, player, recorder):
                process.terminate()
                process.wait()
            server.stop()
    assert errors == ""
    found = json.loads(output)
    assert any(each["default"] for each in found["microphones"])
    assert found["samples"] > 16_000 * (seconds - 4)
    # Which of the two depends on how PulseAudio groups its buffers; both must be right.
    assert set(found["clocks"]) <= {"adc", "read"}
    seen, heard = off(found["flashes"], ears.flashes), off(found["clicks"], ears.clicks)
    assert len(seen) >= 3 and len(heard) >= 3, (seen, heard)
    skew = statistics.median(seen) - statistics.median(heard)
    assert abs(skew) <= SKEW_S, (seen, heard)


def off(stamps: list[float], truth: list[float]) -> list[float]:
    """How late each was stamped that was stamped at all; a busy camera may skip a flash."""
    nearest = [min((stamp - true for stamp in stamps), key=abs, default=9.0) for true in truth]
    return [late for late in nearest if abs(late) < 0.5]


def test_a_microphone_that_goes_away_comes_back(tmp_path: Path) -> None:
    skip_without_pulseaudio()
    with sound_card(tmp_path) as environment:
        listener = subprocess.Popen(
            [sys.executable, "-c", STAY],
            env={**environment, "PYTHONPATH": str(Path(__file__).parents[2])},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert listener.stdout is not None
        assert listener.stdout.readline() == "heard\n"
    try:
        assert listener.stdout.readline() == "lost\n"
        with sound_card(tmp_path):
            assert listener.stdout.readline() == "back\n"
            output, _ = listener.communicate("stop\n", timeout=30)
    finally:
        listener.kill()
        listener.wait()
    told = json.loads(output)
    assert (told["returns"], told["lost"]) == (1, None)
    # The time without sound; PulseAudio's plugin may falter once more when it begins.
    assert 1 <= told["gaps"] <= 2


def _play_clicks(
    player: subprocess.Popen[bytes], listener: subprocess.Popen[str], server: MjpegServer
) -> None:
    """Silence with a click every 1.5 s, and dark frames at 25 a second, until the listener has enough."""
    assert player.stdin is not None
    start, sent = time.monotonic(), 0
    while listener.poll() is None:
        piece = np.zeros(480, np.int16)
        if sent % 150 == 149:
            piece[:96] = 20_000
        player.stdin.write(piece.tobytes())
        player.stdin.flush()
        if sent % 4 == 0:
            server.show(16)
        sent += 1
        time.sleep(max(0.0, start + sent * 0.01 - time.monotonic()))


class Ears(threading.Thread):
    """Hears the clicks, shows a flash for each, and knows when both really were (seconds, monotonic)."""

    def __init__(self, recorder: subprocess.Popen[bytes], server: MjpegServer) -> None:
        super().__init__(daemon=True)
        self.flashes: list[float] = []
        self._recorder, self._server = recorder, server
        self._clicks: list[int] = []
        self._begin = float("inf")
        """When the recording began: pieces are only ever read late."""
        self.start()

    @property
    def clicks(self) -> list[float]:
        return [self._begin + sample / RATE for sample in self._clicks]

    def run(self) -> None:
        assert self._recorder.stdout is not None
        taken = 0
        while piece := self._recorder.stdout.read(480):  # 5 ms
            samples = np.frombuffer(piece, np.int16)
            self._begin = min(self._begin, time.monotonic() - (taken + len(samples)) / RATE)
            loud = np.flatnonzero(np.abs(samples.astype(int)) > 3_000)
            if len(loud) and (not self._clicks or taken - self._clicks[-1] > RATE / 5):
                self._clicks.append(taken + int(loud[0]))
                # Each another one: the same flash within two seconds would be a frozen camera's.
                self.flashes.append(self._server.show(255 - 5 * len(self.flashes)) / 1e9)
            taken += len(samples)


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
