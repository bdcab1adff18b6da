"""A sound card without hardware: a private PulseAudio whose null sink's monitor is the microphone."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

NEEDED = ("pulseaudio", "pactl", "pacat")


def skip_without_pulseaudio() -> None:
    missing = [program for program in NEEDED if shutil.which(program) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} not installed (apt install pulseaudio pulseaudio-utils)")
    if not any(Path("/usr/lib").glob("*/alsa-lib/libasound_module_pcm_pulse.so")):
        pytest.skip("ALSA's PulseAudio plugin is not installed (apt install libasound2-plugins)")


@contextmanager
def sound_card(folder: Path, rate: int = 48_000) -> Iterator[dict[str, str]]:
    """The environment in which PortAudio's default input is what `pacat -d vspk` plays; used again on the same
    folder, the card that was pulled out is plugged in again."""
    home, runtime = folder / "home", folder / "run"
    home.mkdir(exist_ok=True)
    runtime.mkdir(mode=0o700, exist_ok=True)
    (home / ".asoundrc").write_text("pcm.!default {type pulse}\nctl.!default {type pulse}\n")
    environment = {**os.environ, "HOME": str(home), "XDG_RUNTIME_DIR": str(runtime)}
    for name in ("PULSE_SERVER", "PULSE_RUNTIME_PATH", "DBUS_SESSION_BUS_ADDRESS", "XDG_CONFIG_HOME"):
        environment.pop(name, None)
    server = subprocess.Popen(
        [
            *("pulseaudio", "-n", "--daemonize=no", "--exit-idle-time=-1", "--log-target=stderr"),
            *("-L", "module-native-protocol-unix", "-L", f"module-null-sink sink_name=vspk rate={rate}"),
        ],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait_for(server, environment)
        subprocess.run(["pactl", "set-default-source", "vspk.monitor"], env=environment, check=True)
        yield environment
    finally:
        server.terminate()
        try:
            server.wait(timeout=10)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _wait_for(server: subprocess.Popen[bytes], environment: dict[str, str]) -> None:
    for _ in range(200):
        if server.poll() is not None:
            pytest.skip("PulseAudio does not start here")
        asked = subprocess.run(["pactl", "info"], env=environment, capture_output=True)
        if asked.returncode == 0:
            return
        time.sleep(0.05)
    pytest.skip("PulseAudio does not answer here")
