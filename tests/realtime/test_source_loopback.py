"""A real microphone without hardware: PortAudio on a private PulseAudio."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from loopback import skip_without_pulseaudio, sound_card
from mjpeg_server import MjpegServer

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
