from __future__ import annotations

import json

import pytest

from ecmf.errors import SourceError
from realtime import devices
from realtime.sources import microphone
from realtime.sources.microphone import MicrophoneInfo
from realtime.sources.v4l2 import CameraFormat, CameraInfo

WEBCAM = CameraInfo(
    2,
    "HD Pro Webcam",
    "/dev/video2",
    ("by-id/usb-HD_Pro-index0",),
    (
        CameraFormat("YUYV", 640, 480, 30),
        CameraFormat("MJPG", 640, 480, 30),
        CameraFormat("MJPG", 1280, 720, 0),
    ),
)
HEADSET = MicrophoneInfo(4, "USB Headset", "ALSA", 1, 44_100, True)


@pytest.fixture
def present(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "cameras", lambda: [WEBCAM])
    monkeypatch.setattr(devices, "microphones", lambda: [HEADSET])


def test_people_read_what_they_can_ask_for(present: None, capsys: pytest.CaptureFixture[str]) -> None:
    devices.print_devices(as_json=False)
    assert capsys.readouterr().out.splitlines() == [
        "cameras:",
        "  2  HD Pro Webcam",
        "       by-id/usb-HD_Pro-index0",
        "       YUYV: 640x480@30",
        "       MJPG: 640x480@30 1280x720",
        "microphones:",
        "  4  USB Headset (ALSA, 1 channels, 44100 Hz, the default)",
    ]


def test_machines_read_one_object(present: None, capsys: pytest.CaptureFixture[str]) -> None:
    devices.print_devices(as_json=True)
    found = json.loads(capsys.readouterr().out)
    assert found["cameras"][0]["formats"][0] == {"pixels": "YUYV", "width": 640, "height": 480, "fps": 30}
    assert found["microphones"][0]["rate"] == 44_100 and found["notes"] == []


def test_this_machine_can_be_listed(capfd: pytest.CaptureFixture[str]) -> None:
    devices.print_devices(as_json=True)
    output = capfd.readouterr()
    assert set(json.loads(output.out)) == {"cameras", "microphones", "notes"}
    assert output.err == ""


def test_without_portaudio_the_package_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing(module: str, extra: str) -> None:
        raise OSError("PortAudio library not found")

    monkeypatch.setattr(microphone, "need", missing)
    with pytest.raises(SourceError, match="apt install libportaudio2"):
        microphone.open_microphone()
    monkeypatch.setattr(devices, "cameras", list)
    devices.print_devices(as_json=False)
    assert "apt install libportaudio2" in capsys.readouterr().out
