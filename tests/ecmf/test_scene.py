"""The scene branch: context with an honest quality, and never an emotion."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ecmf.branches.scene import CEILING, SceneBranch
from ecmf.errors import SourceError

cv2 = pytest.importorskip("cv2", reason="the live extra is not installed")

Frame = NDArray[np.uint8]


@pytest.fixture(scope="module")
def scene(weight: Callable[[str], Path]) -> SceneBranch:
    weight("efficientnet-lite0")
    return SceneBranch(offline=True)


def frame_at(video: Path, seconds: float) -> Frame:
    capture = cv2.VideoCapture(str(video))
    capture.set(cv2.CAP_PROP_POS_MSEC, seconds * 1e3)
    _, frame = capture.read()
    capture.release()
    return np.asarray(frame, np.uint8)


def test_cue_is_context_only(scene: SceneBranch, demo_face: Path) -> None:
    cue = scene.process(frame_at(demo_face, 1), 10, 20)
    assert (cue.modality, cue.person, cue.probs, cue.bbox, cue.words) == ("scene", None, None, None, None)
    assert (cue.start_ns, cue.end_ns) == (10, 20)
    assert cue.embedding.shape == (1280,) and cue.embedding.dtype == np.float32
    assert 0.5 < cue.quality <= CEILING < 1
    assert set(cue.stage_ms) == {"scene"}


def test_same_place_is_nearer_than_another(scene: SceneBranch, demo_face: Path, demo_smile: Path) -> None:
    def embed(video: Path, seconds: float) -> Any:
        vector = scene.process(frame_at(video, seconds), 0, 1).embedding
        return vector / np.linalg.norm(vector)

    early, late, elsewhere = embed(demo_face, 1), embed(demo_face, 18), embed(demo_smile, 1)
    assert early @ late > early @ elsewhere + 0.1


def test_size_of_the_frame_hardly_matters(scene: SceneBranch, demo_smile: Path) -> None:
    frame = frame_at(demo_smile, 1)
    large = scene.process(cv2.resize(frame, (1280, 720), interpolation=cv2.INTER_CUBIC), 0, 1).embedding
    small = scene.process(frame, 0, 1).embedding
    assert small @ large / np.linalg.norm(small) / np.linalg.norm(large) > 0.95


@pytest.mark.parametrize("fixture", ["demo_face", "demo_smile"])
def test_quality_falls_with_blur_and_darkness(scene: SceneBranch, fixture: str, request: Any) -> None:
    frame = frame_at(request.getfixturevalue(fixture), 1)

    def quality(picture: Frame) -> float:
        return scene.process(picture, 0, 1).quality

    blurred = [quality(cv2.GaussianBlur(frame, (0, 0), sigma)) for sigma in (1, 2, 4, 8, 16)]
    darker = [quality((frame * gain).astype(np.uint8)) for gain in (0.8, 0.4, 0.2, 0.1, 0.02)]
    for values in (blurred, darker):
        assert values == sorted(values, reverse=True)
        assert values[-1] < 0.1 < values[0]


@pytest.mark.parametrize("level", [0, 127, 255])
def test_constant_frame_says_nothing(scene: SceneBranch, level: int) -> None:
    cue = scene.process(np.full((480, 640, 3), level, np.uint8), 0, 1)
    assert cue.quality == 0 and np.isfinite(cue.embedding).all()


@pytest.mark.parametrize(
    "frame", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.float32), np.zeros((0, 4, 3), np.uint8)]
)
def test_other_arrays_are_refused(scene: SceneBranch, frame: Any) -> None:
    with pytest.raises(SourceError, match=r"a frame is uint8\[H, W, 3\]"):
        scene.process(frame, 0, 1)
