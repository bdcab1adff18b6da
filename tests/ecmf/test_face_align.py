"""The five-point warp and the models that read a face: geometry, symmetry, framing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecmf.branches.face import align
from ecmf.branches.face.blendshapes import NAMES, POINTS, Blendshapes
from ecmf.branches.face.landmarks import Landmarker, Region
from ecmf.errors import UsageError


@pytest.fixture(scope="module")
def landmarker(weight: Callable[[str], Path]) -> Landmarker:
    weight("face-landmarker")
    return Landmarker(offline=True)


@pytest.fixture(scope="module")
def blendshapes(weight: Callable[[str], Path]) -> Blendshapes:
    weight("face-landmarker")
    return Blendshapes(offline=True)


@pytest.fixture(scope="module")
def smile(demo_smile: Path) -> dict[str, np.ndarray]:
    """Frames of the smile video: neutral at 0.1 s, smiling at 1.3 s."""
    video = cv2.VideoCapture(str(demo_smile))
    frames = [video.read()[1] for _ in range(40)]
    return {"neutral": frames[3], "smiling": frames[39]}


FACE = Region(295, 190, 310, 0.0)
"""Roughly around the face of the smile video."""


angles = st.floats(-3.1, 3.1)
scales = st.floats(0.05, 20)
shifts = st.floats(-2000, 2000)


@given(angles, scales, shifts, shifts)
def test_similarity_recovers_rotation_scale_and_shift(
    angle: float, scale: float, dx: float, dy: float
) -> None:
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    target = align.ARCFACE @ turn.T + (dx, dy)
    found = align.similarity(align.ARCFACE, target)
    np.testing.assert_allclose(found, np.column_stack([turn, [dx, dy]]), atol=1e-6 * max(scale, 1) + 1e-6)
    np.testing.assert_allclose(align.move(align.invert(found), target), align.ARCFACE, atol=1e-6)


@given(st.lists(st.tuples(st.floats(-50, 50), st.floats(-50, 50)), min_size=5, max_size=5), angles)
def test_similarity_is_the_least_squares_one(noise: list[tuple[float, float]], nudge: float) -> None:
    target = align.ARCFACE + np.array(noise)
    found = align.similarity(align.ARCFACE, target)

    def error(matrix: np.ndarray) -> float:
        return float(np.square(align.move(matrix, align.ARCFACE) - target).sum())

    step = 1e-3 * np.array([[np.cos(nudge), -np.sin(nudge), 9], [np.sin(nudge), np.cos(nudge), 9 * nudge]])
    assert error(found) <= error(found + step) + 1e-9


@pytest.mark.parametrize("points", [np.full((5, 2), 7.0), np.full((5, 2), np.nan)])
def test_points_that_are_no_face_are_refused(points: np.ndarray) -> None:
    with pytest.raises(UsageError, match="coincide or are not finite"):
        align.crop(np.zeros((50, 50, 3), np.uint8), points, 32)


@settings(deadline=None, max_examples=15)
@given(st.floats(-0.6, 0.6), st.floats(0.2, 3.0), st.integers(40, 120))
def test_the_crop_does_not_depend_on_how_the_face_lies_in_the_picture(
    angle: float, scale: float, size: int
) -> None:
    """A smooth picture, turned and scaled with its points, gives the same crop."""

    def paint(matrix: np.ndarray) -> np.ndarray:
        back = align.invert(matrix)
        y, x = np.mgrid[:500, :500].astype(np.float32) + 0.5
        u, v = (row[0] * x + row[1] * y + row[2] for row in back.astype(np.float32))
        return (128 + 60 * np.sin(u / 13) + 50 * np.cos(v / 17)).astype(np.uint8)

    first = np.array([[1.0, 0, 190], [0, 1, 190]])
    cos, sin = scale * np.cos(angle), scale * np.sin(angle)
    second = np.array([[cos, -sin, 250 - 56 * cos + 56 * sin], [sin, cos, 250 - 56 * sin - 56 * cos]])
    crops = [align.crop(paint(m), align.move(m, align.ARCFACE), size).astype(int) for m in (first, second)]
    inside = slice(size // 8, -size // 8)
    assert np.abs(crops[0] - crops[1])[inside, inside].mean() < 4


def test_shrinking_averages_instead_of_skipping() -> None:
    """A fine chequerboard is grey from afar, not a moire of black and white."""
    board = (np.indices((1200, 1200)).sum(axis=0) % 2 * 255).astype(np.uint8)
    points = align.template(1000) + 100
    small = align.crop(board, points, 50)
    assert small.std() < 12
    assert abs(small.mean() - 127.5) < 3


def test_blendshape_tables_are_mediapipes() -> None:
    assert len(NAMES) == len(set(NAMES)) == 52
    assert len(POINTS) == 146
    assert (np.diff(POINTS) > 0).all()
    assert POINTS[-1] == 477


def test_crop_shows_forehead_to_chin(landmarker: Landmarker, smile: dict[str, np.ndarray]) -> None:
    for frame in smile.values():
        found = landmarker.run(frame, FACE)
        matrix = align.similarity(align.five_points(found.points), align.template(1))
        placed = align.move(matrix, found.points[:, :2])
        assert found.presence > 0.99
        assert 0.0 < placed[10, 1] < 0.2  # hairline
        assert 0.85 < placed[152, 1] < 1.03  # chin; lowest in a broad smile
        assert 0.05 < placed[[105, 334], 1].min() < 0.3  # brows
        assert (placed[:, 0] > 0).all() and (placed[:, 0] < 1).all()


def test_a_mirrored_picture_gives_mirrored_points_and_movements(
    landmarker: Landmarker, blendshapes: Blendshapes, smile: dict[str, np.ndarray]
) -> None:
    frame = smile["smiling"]
    width = frame.shape[1]
    plain = landmarker.run(frame, FACE)
    mirrored = landmarker.run(frame[:, ::-1], Region(width - FACE.x, FACE.y, FACE.side, 0.0))
    five, back = align.five_points(plain.points), align.five_points(mirrored.points)
    back[:, 0] = width - back[:, 0]
    back = back[[1, 0, 2, 4, 3]]
    assert np.abs(five - back).max() < 0.03 * plain.box[3]
    shapes, shapes_back = blendshapes.run(plain.points), blendshapes.run(mirrored.points)
    swap = {"Left": "Right", "Right": "Left"}
    for row, name in enumerate(NAMES):
        side = next((s for s in swap if name.endswith(s)), None)
        twin = name if side is None else name.removesuffix(side) + swap[side]
        assert abs(shapes[row] - shapes_back[NAMES.index(twin)]) < 0.25, name


def test_blendshapes_tell_a_smile_from_a_neutral_face(
    landmarker: Landmarker, blendshapes: Blendshapes, smile: dict[str, np.ndarray]
) -> None:
    row = NAMES.index("mouthSmileLeft")
    values = {name: blendshapes.run(landmarker.run(frame, FACE).points) for name, frame in smile.items()}
    assert values["neutral"][row] < 0.1 < 0.5 < values["smiling"][row]
    assert all(v.shape == (52,) and v.min() >= 0 and v.max() <= 1 for v in values.values())


def test_a_turned_region_finds_the_same_points(landmarker: Landmarker, smile: dict[str, np.ndarray]) -> None:
    """A picture turned by 40 degrees, looked at through a region turned alike."""
    frame = smile["neutral"]
    angle = np.radians(40)
    turned = cv2.warpAffine(
        frame, cv2.getRotationMatrix2D((FACE.x - 0.5, FACE.y - 0.5), -40, 1), frame.shape[1::-1]
    )
    plain = align.five_points(landmarker.run(frame, FACE).points)
    found = align.five_points(landmarker.run(turned, Region(FACE.x, FACE.y, FACE.side, angle)).points)
    centre = np.array([FACE.x, FACE.y])
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    np.testing.assert_allclose(found, (plain - centre) @ turn.T + centre, atol=2.0)


def test_resolution_does_not_move_the_points(landmarker: Landmarker, smile: dict[str, np.ndarray]) -> None:
    frame = smile["neutral"]
    plain = align.five_points(landmarker.run(frame, FACE).points)
    for scale in (0.25, 6.0):
        scaled = cv2.resize(
            frame, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
        )
        region = Region(FACE.x * scale, FACE.y * scale, FACE.side * scale, 0.0)
        found = align.five_points(landmarker.run(scaled, region).points) / scale
        assert np.abs(found - plain).max() < 4, scale
