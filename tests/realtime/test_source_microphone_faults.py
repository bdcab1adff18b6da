"""Microphones that fail: a real PortAudio input made of PulseAudio null sinks, each heard in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from loopback import skip_without_pulseaudio, sound_card

pytestmark = pytest.mark.slow

HEAR = """
import json, sys, threading
import numpy as np
from msgspec.structs import asdict
from realtime.sources.microphone import open_microphone
channel = int(sys.argv[1]) or None
microphone, stop = open_microphone(None, channel=channel), threading.Event()
held, heard, last_ns = np.zeros(0, np.float32), [], 0

def listen():
    global held, last_ns
    for block in microphone.blocks(stop):
        held = np.concatenate([held, block.samples])[-8000:]
        last_ns = block.end_ns

threading.Thread(target=listen, daemon=True).start()
import time
for line in sys.stdin:
    spectrum = np.abs(np.fft.rfft(held * np.hanning(len(held)))) if len(held) == 8000 else np.zeros(9)
    tone = float(spectrum[5:].argmax() + 5) * 2 if spectrum.max() > 1 else 0.0
    print(json.dumps(dict(asdict(microphone.condition()), tone=tone, returns=microphone.returns,
                          fresh=time.monotonic_ns() - last_ns < 500_000_000)), flush=True)
stop.set()
microphone.close()
"""


class Ear:
    """The listening process: asked, it tells its condition and the strongest tone of the last half second."""

    def __init__(self, environment: dict[str, str], channel: int = 0) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", HEAR, str(channel)],
            env={**environment, "PYTHONPATH": str(Path(__file__).parents[2])},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def ask(self) -> dict[str, object]:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write("?\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, self._process.stderr and self._process.stderr.read()
        return dict(json.loads(line))

    def until(self, seconds: float = 30.0, **wanted: object) -> dict[str, object]:
        """Ask until the answer has these values; fails with the last one after ``seconds``."""
        end = time.monotonic() + seconds
        while True:
            told = self.ask()
            if all(told[name] == value for name, value in wanted.items()):
                return told
            assert time.monotonic() < end, told
            time.sleep(0.1)

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


@contextmanager
def playing(
    environment: dict[str, str], sound: np.ndarray, sink: str = "vspk", channels: int = 1
) -> Iterator[None]:
    """``sound``, float in [-1, 1] at 48 kHz, over and over."""
    player = subprocess.Popen(
        ["pacat", "-d", sink, "--rate=48000", f"--channels={channels}", "--format=float32le", "--raw"],
        env=environment,
        stdin=subprocess.PIPE,
    )
    feeder = subprocess.Popen(
        [sys.executable, "-c", "import sys\nb = open(sys.argv[1], 'rb').read()\nwhile 1: sys.stdout.buffer.write(b)",
         str(_written(environment, sound))],
        stdout=player.stdin,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield
    finally:
        for each in (feeder, player):
            each.kill()
            each.wait()


def _written(environment: dict[str, str], sound: np.ndarray) -> Path:
    path = Path(environment["HOME"]) / f"{abs(hash(sound.tobytes()))}.raw"
    path.write_bytes(sound.astype("<f4").tobytes())
    return path


def tone(hz: float, level: float = 0.3) -> np.ndarray:
    return level * np.sin(2 * np.pi * hz * np.arange(48_000) / 48_000)


def run(environment: dict[str, str], *words: str) -> None:
    subprocess.run(["pactl", *words], env=environment, check=True, stdout=subprocess.DEVNULL)


@pytest.fixture
def card(tmp_path: Path) -> Iterator[dict[str, str]]:
    skip_without_pulseaudio()
    with sound_card(tmp_path) as environment:
        yield environment


def test_a_muted_microphone_is_silent_and_one_turned_up_too_far_is_clipped(card: dict[str, str]) -> None:
    ear = Ear(card)
    try:
        with playing(card, tone(440)):
            told = ear.until(state="ok", tone=440.0)
            assert told["rate_hz"] == pytest.approx(44_100, rel=0.01)
            run(card, "set-source-mute", "vspk.monitor", "1")
            assert ear.until(state="silent")["faults"] == {"silent": 1}
            run(card, "set-source-mute", "vspk.monitor", "0")
            ear.until(state="ok", tone=440.0)
        with playing(card, np.clip(tone(440, 3.0), -1, 1)):
            assert ear.until(state="clipped")["faults"]["clipped"] >= 1  # type: ignore[index]
    finally:
        ear.close()


def test_when_the_default_device_changes_the_new_one_is_heard(card: dict[str, str]) -> None:
    """Chosen in the sound settings; and the one in use is pulled out."""
    run(card, "load-module", "module-null-sink", "sink_name=headset", "rate=44100")
    ear = Ear(card)
    try:
        with playing(card, tone(440)), playing(card, tone(880), "headset"):
            ear.until(state="ok", tone=440.0)
            run(card, "set-default-source", "headset.monitor")
            ear.until(state="ok", tone=880.0, fresh=True)
            modules = subprocess.run(
                ["pactl", "list", "short", "modules"], env=card, check=True, capture_output=True, text=True
            ).stdout.splitlines()
            headset = next(line.split()[0] for line in modules if "sink_name=headset" in line)
            run(card, "unload-module", headset)
            ear.until(state="ok", tone=440.0, fresh=True)
    finally:
        ear.close()


def test_a_channel_can_be_chosen(card: dict[str, str]) -> None:
    run(card, "load-module", "module-null-sink", "sink_name=pair", "rate=48000", "channels=2")
    run(card, "set-default-source", "pair.monitor")
    both = np.stack([tone(440), tone(880)], axis=1)
    for channel, expected in ((1, 440.0), (2, 880.0)):
        ear = Ear(card, channel)
        try:
            with playing(card, both, "pair", channels=2):
                ear.until(state="ok", tone=expected)
        finally:
            ear.close()
