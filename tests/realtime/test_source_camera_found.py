"""Cameras as the kernel lists them, and which one is meant."""

from __future__ import annotations

import errno
import struct
from pathlib import Path

import pytest

from ecmf.errors import SourceError
from realtime.sources.camera import choose, choose_again
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


def test_a_camera_that_is_pulled_out_while_it_is_asked_is_no_camera(tmp_path: Path) -> None:
    """Whoever looks for another one, or for its return, goes on."""

    class Pulled(Kernel):
        def __call__(self, handle: int, request: int, answer: bytearray) -> int:
            here = Path(f"/proc/self/fd/{handle}").readlink().name
            if here == "video0" and request == ENUM_FRAMESIZES:
                raise OSError(errno.ENODEV, "No such device")
            return super().__call__(handle, request, answer)

    for node in ("video0", "video2"):
        (tmp_path / node).touch()
    found = cameras(tmp_path, Pulled({"video0": 0x04200001, "video2": 0x04200001}))
    assert [camera.number for camera in found] == [2]
