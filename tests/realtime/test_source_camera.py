from __future__ import annotations

import errno
import itertools
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import cv2
import numpy as np
import pytest
from mjpeg_server import MjpegServer

from ecmf.errors import SourceError
from realtime.sources import network
from realtime.sources.base import Frame, SourceLost, VideoSource
from realtime.sources.camera import Camera, choose, choose_again, open_camera
from realtime.sources.network import NetworkMedia, without_password
from realtime.sources.returning import ReturningVideo
from realtime.sources.v4l2 import (
    CAPABILITY,
    ENUM_FMT,
    ENUM_FRAMEINTERVALS,
    ENUM_FRAMESIZES,
    QUERYCAP,
    CameraFormat,
    CameraInfo,
    cameras,
    faster_as_jpeg,
)

WEBCAM = CameraInfo(
    0, "HD Pro Webcam C920", "/dev/video0", ("by-id/usb-046d_HD_Pro_Webcam_C920-video-index0",), ()
)
BUILT_IN = CameraInfo(2, "Integrated Webcam", "/dev/video2", ("by-path/pci-0000:00:14.0-usb-0:5",), ())
BOTH = [WEBCAM, BUILT_IN]


@pytest.mark.parametrize(
    ("wanted", "number"),
    [
        (0, 0),
        ("2", 2),
        ("/dev/video2", 2),
        ("c920", 0),
        ("Integrated Webcam", 2),
        ("/dev/v4l/by-id/usb-046d_HD_Pro_Webcam_C920-video-index0", 0),
        ("by-path/pci-0000:00:14.0-usb-0:5", 2),
    ],
)
def test_a_camera_is_found_by_number_path_and_name(wanted: str | int, number: int) -> None:
    assert choose(wanted, BOTH).number == number


def test_an_absent_camera_is_named_with_what_there_is() -> None:
    with pytest.raises(
        SourceError, match=r"camera 3 is not there; found: 0 'HD Pro.*2 'Integrated.*--list-devices"
    ):
        choose(3, BOTH)
    with pytest.raises(SourceError, match="found: none"):
        choose("nope", [])
    with pytest.raises(SourceError, match=r"'webcam' fits several: 0 .*2 .*give its number"):
        choose("webcam", BOTH)


def test_a_camera_that_was_plugged_in_again_is_known_by_its_lasting_name() -> None:
    """Its number may have changed, and another camera may have taken it."""
    moved = CameraInfo(3, WEBCAM.name, "/dev/video3", WEBCAM.links, ())
    other = CameraInfo(0, "Other", "/dev/video0", ("by-id/usb-Other-index0",), ())
    assert choose_again(WEBCAM, 0, [other, moved]).number == 3
    with pytest.raises(SourceError, match="camera 0 is not there"):
        choose_again(WEBCAM, 0, [BUILT_IN])
    # A place (by-path) is not a camera: whatever is plugged in there now may be another one.
    assert choose_again(BUILT_IN, 0, [other, BUILT_IN]).number == 0


@pytest.mark.parametrize(
    ("jpeg_fps", "plain_fps", "expected"),
    [
        (30, 5, True),
        (30, 30, False),
        (60, 30, False),
        (None, 30, False),
        (30, None, True),
        (None, None, True),
    ],
)
def test_jpeg_where_it_is_faster(jpeg_fps: float | None, plain_fps: float | None, expected: bool) -> None:
    formats = [CameraFormat("MJPG", 1920, 1080, 60), CameraFormat("YUYV", 320, 240, 30)]
    formats += [CameraFormat("MJPG", 640, 480, jpeg_fps)] if jpeg_fps else []
    formats += [CameraFormat("YUYV", 640, 480, plain_fps)] if plain_fps else []
    assert faster_as_jpeg(tuple(formats), 640, 480, fps=30) is expected


class Kernel:
    """Answers as a UVC webcam's driver does (structures of linux/videodev2.h), and its metadata node's."""

    FORMATS = ((b"YUYV", ((640, 480, (30, 15)), (1280, 720, (10,)))), (b"MJPG", ((1280, 720, (30,)),)))

    def __init__(self, nodes: dict[str, int]) -> None:
        self.nodes = nodes

    def __call__(self, handle: int, request: int, answer: bytearray) -> int:
        caps = self.nodes[Path(f"/proc/self/fd/{handle}").readlink().name]
        if request == QUERYCAP:
            answer[:] = CAPABILITY.pack(
                b"uvcvideo", b"HD Pro Webcam C920", b"usb-1", 0x60000, 0x84A00001, caps
            )
            return 0
        sizes = next((s for c, s in self.FORMATS if c == answer[4:8]), ())
        try:
            if request == ENUM_FMT:
                code = self.FORMATS[struct.unpack_from("=I", answer)[0]][0]
                assert struct.unpack_from("=I", answer, 4)[0] == 1
                answer[44:48] = code
            elif request == ENUM_FRAMESIZES:
                width, height, _ = sizes[struct.unpack_from("=I", answer)[0]]
                struct.pack_into("=III", answer, 8, 1, width, height)
            elif request == ENUM_FRAMEINTERVALS:
                index, _, width, height = struct.unpack_from("=IIII", answer)
                rates = next(rates for w, h, rates in sizes if (w, h) == (width, height))
                struct.pack_into("=III", answer, 16, 1, 1, rates[index])
            else:
                raise OSError(errno.ENOTTY, "no such request")
        except IndexError:
            raise OSError(errno.EINVAL, "no more") from None
        return 0


def test_cameras_are_listed_with_names_links_and_formats(tmp_path: Path) -> None:
    for node in ("video0", "video1", "video10", "vga_arbiter"):
        (tmp_path / node).touch()
    (tmp_path / "v4l" / "by-id").mkdir(parents=True)
    (tmp_path / "v4l" / "by-id" / "usb-C920-index0").symlink_to("../../video0")
    found = cameras(tmp_path, Kernel({"video0": 0x04200001, "video1": 0x04A00000, "video10": 0x04200001}))
    assert [camera.number for camera in found] == [0, 10]
    assert found[0].name == "HD Pro Webcam C920"
    assert found[0].links == ("by-id/usb-C920-index0",)
    assert found[0].formats == (
        CameraFormat("YUYV", 640, 480, 30),
        CameraFormat("YUYV", 1280, 720, 10),
        CameraFormat("MJPG", 1280, 720, 30),
    )


def test_a_file_that_is_no_device_is_no_camera(tmp_path: Path) -> None:
    (tmp_path / "video0").touch()
    assert cameras(tmp_path) == []


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


class Driver:
    """cv2.VideoCapture on a camera that answers from a list: (brightness or None for a failed read, age in ms)."""

    def __init__(self, reads: list[tuple[int | None, float]], *, opens: bool = True) -> None:
        self.wishes: dict[int, float] = {}
        self.released = False
        self._reads = iter(reads)
        self._opens = opens
        self._picture: np.ndarray | None = None
        self._exposed_ms = 0.0

    def isOpened(self) -> bool:
        return self._opens

    def set(self, wish: int, value: float) -> bool:
        self.wishes[wish] = value
        return True

    def get(self, what: int) -> float:
        return self._exposed_ms if what == cv2.CAP_PROP_POS_MSEC else self.wishes.get(what, 0.0)

    def grab(self) -> bool:
        brightness, age_ms = next(self._reads, (None, 0.0))
        size = (48, 64, 3) if brightness is None or brightness < 100 else (96, 128, 3)
        self._picture = None if brightness is None else np.full(size, brightness, np.uint8)
        self._exposed_ms = time.monotonic_ns() / 1e6 - age_ms
        return self._picture is not None

    def retrieve(self) -> tuple[bool, np.ndarray | None]:
        return self._picture is not None, self._picture

    def release(self) -> None:
        self.released = True


def opened(monkeypatch: pytest.MonkeyPatch, driver: Driver, formats: tuple[CameraFormat, ...] = ()) -> Camera:
    monkeypatch.setattr(cv2, "VideoCapture", lambda number, backend: driver)
    return Camera(CameraInfo(0, "webcam", "/dev/video0", (), formats), 640, 480, 30.0)


def test_a_local_camera_is_stamped_by_its_driver_until_it_is_pulled_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    driver = Driver(
        [(50, 20), (51, 20), (None, 0), (52, 20), (200, 20), (None, 0), (None, 0), (None, 0), (53, 20)]
    )
    camera, frames = opened(monkeypatch, driver), []
    with pytest.raises(SourceLost, match=r"camera 0 \(webcam\) stopped delivering"):
        for frame in camera.frames(threading.Event()):
            frames.append(frame)
    assert [frame.image[0, 0, 0] for frame in frames] == [50, 51, 52, 200]
    assert {frame.clock for frame in frames} == {"exposure"}
    assert [frame.index for frame in frames] == [0, 1, 2, 3]
    assert (camera.width, camera.height) == (128, 96)
    camera.close()
    assert driver.released


def test_a_frozen_local_camera_gives_old_frames_and_goes_on_when_it_recovers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whatever its driver stamps: the same picture is as old as it is."""
    driver = Driver([(50, 20), (51, 20), *[(52, 20)] * 5, (53, 20)])
    camera = ReturningVideo(opened(monkeypatch, driver), lambda: opened(monkeypatch, Driver([])), 0)
    frames = list(itertools.islice(camera.frames(threading.Event()), 8))
    assert [frame.repeated for frame in frames] == [False, False, False, True, True, True, True, False]
    assert {frame.end_ns for frame in frames[2:7]} == {frames[2].end_ns}
    assert frames[7].end_ns > frames[2].end_ns
    assert [frame.index for frame in frames] == list(range(8))


def test_a_local_camera_may_change_its_size_while_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    camera = ReturningVideo(
        opened(monkeypatch, Driver([(50, 20), (150, 20), (51, 20)])),
        lambda: opened(monkeypatch, Driver([])),
        0,
    )
    sizes = []
    for frame in itertools.islice(camera.frames(threading.Event()), 3):
        condition = camera.condition()
        sizes.append(frame.image.shape[1::-1])
        assert (condition.width, condition.height) == sizes[-1] and condition.state == "ok"
    assert sizes == [(64, 48), (128, 96), (64, 48)]


def test_a_local_camera_that_is_pulled_out_and_plugged_in_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    conditions = []

    def again() -> Camera:
        conditions.append(camera.condition())
        if len(conditions) == 1:
            raise SourceError("camera 0 is not there")
        return opened(monkeypatch, Driver([(60 + n, 20) for n in range(3)]))

    camera = ReturningVideo(opened(monkeypatch, Driver([(50, 20), (51, 20)])), again, retry_s=0)
    frames = list(itertools.islice(camera.frames(threading.Event()), 5))
    assert [int(frame.image[0, 0, 0]) for frame in frames] == [50, 51, 60, 61, 62]
    assert [each.state for each in conditions] == ["reconnecting", "reconnecting"]
    assert camera.condition().state == "ok" and camera.returns == 1 and camera.watch.faults["lost"] == 1


def test_stamps_that_jump_or_stand_are_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    """10 s back, 10 s into the future, then standing: the frames have the time at which they were read."""
    driver = Driver([(50 + n, 20) for n in range(3)] + [(60, 10_000), (61, -10_000), (62, 20), (63, 3_000)])
    before_ns = time.monotonic_ns()
    frames = list(itertools.islice(opened(monkeypatch, driver).frames(threading.Event()), 7))
    stamps = [frame.end_ns for frame in frames]
    assert (
        stamps == sorted(stamps) and before_ns - 20_000_000 <= stamps[0] and stamps[-1] <= time.monotonic_ns()
    )
    assert [frame.clock for frame in frames] == ["exposure"] * 3 + ["read"] * 4


def test_a_local_camera_without_usable_stamps_is_stamped_when_read(monkeypatch: pytest.MonkeyPatch) -> None:
    before_ns = time.monotonic_ns()
    camera = opened(monkeypatch, Driver([(50, -500), (51, 5000), (52, 1e9)]))
    frames = list(itertools.islice(camera.frames(threading.Event()), 3))
    assert [frame.clock for frame in frames] == ["read"] * 3
    assert before_ns <= frames[0].start_ns <= frames[1].start_ns <= frames[2].start_ns <= time.monotonic_ns()


def test_a_local_camera_is_asked_for_the_faster_format(monkeypatch: pytest.MonkeyPatch) -> None:
    mjpg = cv2.VideoWriter.fourcc(*"MJPG")
    slow = Driver([])
    opened(monkeypatch, slow, (CameraFormat("YUYV", 640, 480, 10), CameraFormat("MJPG", 640, 480, 30)))
    assert slow.wishes[cv2.CAP_PROP_FOURCC] == mjpg
    assert (slow.wishes[cv2.CAP_PROP_FRAME_WIDTH], slow.wishes[cv2.CAP_PROP_FPS]) == (640, 30)
    fast = Driver([])
    opened(monkeypatch, fast, (CameraFormat("YUYV", 640, 480, 30), CameraFormat("MJPG", 640, 480, 30)))
    assert cv2.CAP_PROP_FOURCC not in fast.wishes


def test_a_busy_camera_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        SourceError, match=r"camera 0 \(webcam\) cannot be opened; is another program using it"
    ):
        opened(monkeypatch, Driver([], opens=False))


def test_a_local_camera_that_is_not_there(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SourceError, match="camera 97 is not there"):
        open_camera(97)
    assert capfd.readouterr().err == ""
