"""The face branch as a whole: cues, their quality, and every kind of frame."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecmf.branches.face import branch as face_branch
from ecmf.branches.face.align import crop, five_points
from ecmf.branches.face.branch import FaceBranch
from ecmf.branches.face.landmarks import Landmarker, Landmarks, Region
from ecmf.branches.face.quality import LEAST, presence_logit, quality, rise, turn
from ecmf.bundle import SHIPPED, load_bundle, write_bundle
from ecmf.cue import Cue
from ecmf.errors import BundleError, SourceError, UsageError
from ecmf.labels import EKMAN

SECOND = 1_000_000_000
FACE = Region(295, 190, 310, 0.0)
"""Roughly around the face of the smile video."""


@pytest.fixture(scope="module")
def smile(demo_smile: Path) -> dict[str, np.ndarray]:
    """Frames of the smile video: neutral at 0.1 s, smiling at 1.3 s."""
    video = cv2.VideoCapture(str(demo_smile))
    frames = [video.read()[1] for _ in range(40)]
    return {"neutral": frames[3], "smiling": frames[39]}


@pytest.fixture(scope="module")
def landmarker(weight: Callable[[str], Path]) -> Landmarker:
    weight("face-landmarker")
    return Landmarker(offline=True)


@pytest.fixture
def face(weight: Callable[[str], Path]) -> FaceBranch:
    weight("face-landmarker")
    if not (SHIPPED / "face" / "manifest.json").is_file():
        pytest.skip("this checkout ships no face network")
    return FaceBranch(offline=True)


def label(cue: Cue) -> str:
    assert cue.probs is not None
    return EKMAN[int(cue.probs.argmax())]


def test_a_cue_says_who_where_when_and_how_sure(face: FaceBranch, smile: dict[str, np.ndarray]) -> None:
    [cue] = face.process(smile["smiling"], 7 * SECOND, 7 * SECOND + 5)
    assert (cue.modality, cue.person, cue.start_ns, cue.end_ns) == ("face", 0, 7 * SECOND, 7 * SECOND + 5)
    width = face.bundle.manifest.outputs[0].shape[-1]
    assert cue.embedding.shape == (width + 52,) and cue.embedding.dtype == np.float32
    assert cue.probs is not None and cue.probs.shape == (7,) and cue.probs.dtype == np.float32
    assert cue.probs.sum() == pytest.approx(1, abs=1e-5)
    assert cue.quality > 0.9
    assert cue.bbox is not None
    x, y, w, h = cue.bbox
    assert 180 < x < x + w < 400 and 60 < y < y + h < 330 and 0.7 < w / h < 1.1
    assert set(cue.stage_ms) == {"detect", "landmarks", "blendshapes", "face"}
    assert all(ms >= 0 for ms in cue.stage_ms.values()) and cue.stage_ms["landmarks"] > 0


def test_the_label_follows_the_face(face: FaceBranch, smile: dict[str, np.ndarray]) -> None:
    assert label(face.process(smile["neutral"], 0, 0)[0]) == "neutral"
    assert label(face.process(smile["smiling"], SECOND, SECOND)[0]) == "happiness"


def test_the_same_frames_give_the_same_cues(face: FaceBranch, smile: dict[str, np.ndarray]) -> None:
    first = [face.process(frame, t, t)[0] for t, frame in enumerate(smile.values())]
    other = FaceBranch(offline=True)
    second = [other.process(frame, t, t)[0] for t, frame in enumerate(smile.values())]
    for one, two in zip(first, second, strict=True):
        np.testing.assert_array_equal(one.embedding, two.embedding)
        assert (one.quality, one.bbox, one.person) == (two.quality, two.bbox, two.person)


def test_memory_layout_and_colour_do_not_matter(face: FaceBranch, smile: dict[str, np.ndarray]) -> None:
    frame = smile["smiling"]
    grey = cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY)
    padded = np.zeros((400, 800, 3), np.uint8)
    padded[10:370, 50:690] = frame
    kinds = {
        "view": padded[10:370, 50:690],
        "fortran": np.asfortranarray(frame),
        "mirrored twice": np.ascontiguousarray(frame[:, ::-1])[:, ::-1],
        "grey": grey,
        "grey with an axis": grey[..., None],
        "read-only": frame.copy(),
    }
    kinds["read-only"].setflags(write=False)
    [plain] = FaceBranch(offline=True).process(frame, 0, 0)
    for name, kind in kinds.items():
        [cue] = FaceBranch(offline=True).process(kind, 0, 0)
        assert label(cue) == "happiness", name
        if "grey" not in name:
            np.testing.assert_allclose(cue.embedding, plain.embedding, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("size", [(639, 361), (321, 181), (1919, 1079), (3840, 2160)])
def test_frame_size_does_not_matter(
    face: FaceBranch, smile: dict[str, np.ndarray], size: tuple[int, int]
) -> None:
    [cue] = face.process(cv2.resize(smile["smiling"], size, interpolation=cv2.INTER_AREA), 0, 0)
    assert label(cue) == "happiness"
    assert cue.quality > 0.8
    assert cue.bbox is not None
    assert cue.bbox[2] / size[0] == pytest.approx(0.25, abs=0.03)


def test_a_tiny_portrait_that_the_face_fills_is_read(face: FaceBranch, smile: dict[str, np.ndarray]) -> None:
    for name, expected in (("neutral", "neutral"), ("smiling", "happiness")):
        portrait = cv2.resize(smile[name][100:300, 195:395], (64, 64), interpolation=cv2.INTER_AREA)
        [cue] = FaceBranch(offline=True).process(portrait, 0, 0)
        assert label(cue) == expected and cue.quality > 0.8


@pytest.mark.parametrize("shape", [(1, 1, 3), (2, 3, 3), (16, 16), (7, 2000, 3)])
def test_tiny_frames_hold_nobody(face: FaceBranch, shape: tuple[int, ...]) -> None:
    assert face.process(np.full(shape, 90, np.uint8), 0, 0) == []


@pytest.mark.parametrize(
    "frame",
    [
        np.zeros((0, 0, 3), np.uint8),
        np.zeros((0, 640, 3), np.uint8),
        np.zeros((480, 640, 4), np.uint8),
        np.zeros((480, 640, 3), np.float32),
        np.zeros(10, np.uint8),
    ],
)
def test_an_array_that_is_no_picture_is_refused(face: FaceBranch, frame: np.ndarray) -> None:
    with pytest.raises(SourceError, match="face: a frame is uint8"):
        face.process(frame, 0, 0)


def test_several_people_have_a_cue_each(face: FaceBranch, demo_multi_face: Path) -> None:
    cues = face.process(cv2.imread(str(demo_multi_face)), 0, 0)
    assert len(cues) >= 2
    assert len({cue.person for cue in cues}) == len(cues)
    heights = [cue.bbox[2] * cue.bbox[3] for cue in cues if cue.bbox]
    assert heights == sorted(heights, reverse=True)


def test_without_a_network_it_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(face_branch, "SHIPPED", tmp_path)
    with pytest.raises(BundleError, match=r"no bundle in .*face: manifest\.json is missing"):
        FaceBranch(offline=True)


def test_max_faces_below_one_is_refused() -> None:
    with pytest.raises(UsageError, match="max_faces is 0"):
        FaceBranch(max_faces=0)


def test_a_bundle_of_another_kind_is_refused(face: FaceBranch, tmp_path: Path) -> None:
    manifest, model = face.bundle.manifest, face.bundle.model
    wrong = write_bundle(
        tmp_path / "a", replace(manifest, outputs=manifest.outputs[:1], golden={}), {model.name: model}
    )
    with pytest.raises(BundleError, match="is no face network: it lacks logits"):
        FaceBranch(offline=True, bundle=wrong)
    wrong = write_bundle(tmp_path / "b", replace(manifest, extra={}, golden={}), {model.name: model})
    with pytest.raises(BundleError, match="temperature None"):
        FaceBranch(offline=True, bundle=wrong)
    assert load_bundle(face.bundle.folder).id == face.bundle.id


def seen(landmarker: Landmarker, frame: np.ndarray, region: Region = FACE) -> tuple[Landmarks, float]:
    found = landmarker.run(frame, region)
    found = landmarker.run(frame, found.region)
    return found, quality(found, crop(frame, five_points(found.points), 56), frame.shape[:2])


def test_quality_falls_gently_with_size_blur_and_darkness(
    landmarker: Landmarker, smile: dict[str, np.ndarray]
) -> None:
    frame = smile["neutral"]

    def small(scale: float) -> float:
        picture = cv2.resize(frame, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        return seen(landmarker, picture, Region(FACE.x * scale, FACE.y * scale, FACE.side * scale, 0.0))[1]

    def blurred(sigma: float) -> float:
        return seen(landmarker, cv2.GaussianBlur(frame, (0, 0), sigma))[1]

    def dark(share: float) -> float:
        return seen(landmarker, (frame * share).astype(np.uint8))[1]

    good = seen(landmarker, frame)[1]
    assert good > 0.95
    for name, falling in {
        "height 200, 80, 36, 24, 16": [good, small(0.4), small(0.18), small(0.12), small(0.08)],
        "blur 0, 3, 6, 10": [good, blurred(3), blurred(6), blurred(10)],
        "light 1, 0.3, 0.2, 0.1, 0.05": [good, dark(0.3), dark(0.2), dark(0.1), dark(0.05)],
    }.items():
        assert all(a >= b - 0.02 for a, b in pairwise(falling)), (name, falling)
        assert falling[1] > 0.8, (name, falling)
        assert LEAST <= falling[-1] < 0.3, (name, falling)
        assert max(a - b for a, b in pairwise(falling)) < 0.7, (name, falling)


def test_a_hand_before_the_face_lowers_quality_and_drops_nothing(
    landmarker: Landmarker, demo_face: Path
) -> None:
    """The demo: a free face at 1 s, a hand over half of it at 5 s, free again and laughing at 16 s."""
    video = cv2.VideoCapture(str(demo_face))
    found: dict[float, tuple[Landmarks, float]] = {}
    region = Region(330, 200, 400, 0.0)
    for index in range(400):
        frame = video.read()[1]
        if index % 4 == 0:
            landmarks, trust = seen(landmarker, frame, region)
            region = landmarks.region
            found[index / 24] = landmarks, trust
    free = [trust for t, (_, trust) in found.items() if t < 1.9 or t > 15.9]
    hidden = [trust for t, (_, trust) in found.items() if 4.3 < t < 5.3]
    assert min(free) > 0.9
    assert min(hidden) > 0.25 and max(hidden) < 0.88 and np.mean(hidden) < 0.7
    assert min(landmarks.presence for landmarks, _ in found.values()) > 0.9


def test_a_mouth_or_eyes_beyond_the_edge_count_less(
    landmarker: Landmarker, smile: dict[str, np.ndarray]
) -> None:
    """The same landmarks and the same face, in frames that end further and further in."""
    frame = smile["neutral"]
    found = seen(landmarker, frame)[0]
    picture = crop(frame, five_points(found.points), 56)
    middle, chin, lips = (float(found.points[i, 1]) for i in (4, 152, 13))
    ends = (frame.shape[0], round(chin), round(lips) + 6, round(lips), round(lips) - 3, round(middle))
    values = [quality(found, picture, (end, frame.shape[1])) for end in ends]
    assert values[0] == values[1] > 0.95
    assert values == sorted(values, reverse=True)
    assert values[1] > values[2] > values[-1] and 0.2 < values[-1] < 0.3
    assert quality(found, picture, (frame.shape[0], round(float(found.points[4, 0])))) < 0.7


def test_a_turned_head_counts_less(landmarker: Landmarker, smile: dict[str, np.ndarray]) -> None:
    """The landmarks of a frontal face, turned in space."""
    found = seen(landmarker, smile["neutral"])[0]
    picture = crop(smile["neutral"], five_points(found.points), 56)
    assert turn(found) < 12

    def turned(degrees: float) -> Landmarks:
        angle = np.radians(degrees)
        centre = found.points.mean(axis=0)
        rotation = np.array(
            [[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]]
        )
        return replace(found, points=((found.points - centre) @ rotation.T + centre).astype(np.float32))

    size = smile["neutral"].shape[:2]
    values = [quality(turned(degrees), picture, size) for degrees in (0, 20, 45, 65, 85)]
    assert values == sorted(values, reverse=True)
    assert values[1] > 0.9 and 0.1 < values[-1] < 0.3
    assert turn(turned(45)) == pytest.approx(45, abs=4)


@given(st.floats(-1e6, 1e6), st.floats(0, 1))
def test_the_ramp_stays_in_range_and_never_falls(value: float, presence: float) -> None:
    assert 0 <= rise(value, -3, 5) <= rise(value + 1, -3, 5) <= 1
    assert -30 < presence_logit(presence) <= 16
