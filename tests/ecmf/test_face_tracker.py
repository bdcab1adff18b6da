"""People keep their number from frame to frame, through occlusions and crossings; nobody is nobody."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from ecmf.branches.face.finder import Finder, Found, open_finder
from ecmf.branches.face.landmarks import Landmarker
from ecmf.branches.face.tracker import CLOSE_NS, MEMORY_NS, Track, Tracker

SECOND = 1_000_000_000
Scene = list[tuple[str, float, float]]
"""Who is pasted where (top-left corner), back to front."""


def frames(path: Path, every: int = 1) -> Iterator[tuple[int, np.ndarray]]:
    """(media time in ns, frame) of every ``every``-th frame."""
    video = cv2.VideoCapture(str(path))
    rate, index = video.get(cv2.CAP_PROP_FPS), 0
    while video.grab():
        if index % every == 0:
            yield int(index / rate * SECOND), video.retrieve()[1]
        index += 1


class Counted:
    """A finder that counts its searches, and those for a face that fills the frame."""

    def __init__(self, finder: Finder) -> None:
        self._finder = finder
        self.name, self.pause_ns = finder.name, finder.pause_ns
        self.searches = self.close = 0

    def find(self, frame: np.ndarray) -> list[Found]:
        self.searches += 1
        return self._finder.find(frame)

    def find_close(self, frame: np.ndarray) -> list[Found]:
        self.close += 1
        return self._finder.find_close(frame)


@pytest.fixture(scope="module")
def landmarker(weight: Callable[[str], Path]) -> Landmarker:
    weight("face-landmarker")
    return Landmarker(offline=True)


@pytest.fixture(scope="module")
def finders(weight: Callable[[str], Path]) -> dict[str, Finder]:
    weight("face-landmarker")
    weight("retinaface")
    return {name: open_finder(name, offline=True) for name in ("landmarker", "retinaface")}


@pytest.fixture(scope="module")
def multi(demo_multi_face: Path) -> np.ndarray:
    return cv2.imread(str(demo_multi_face))


@pytest.mark.parametrize("name", ["landmarker", "retinaface"])
def test_one_person_is_one_number(
    name: str, finders: dict[str, Finder], landmarker: Landmarker, demo_face: Path, demo_smile: Path
) -> None:
    """Also with a hand before her face; and the finder hardly runs."""
    for path, every in ((demo_face, 4), (demo_smile, 3)):
        finder = Counted(finders[name])
        tracker = Tracker(finder, landmarker)
        seen = [[track.id for track in tracker.follow(frame, now)] for now, frame in frames(path, every)]
        assert seen == [[0]] * len(seen)
        assert finder.searches <= 0.4 * len(seen)


@pytest.mark.parametrize("name", ["landmarker", "retinaface"])
@pytest.mark.parametrize("every", [6, pytest.param(1, marks=pytest.mark.slow)])
def test_a_video_without_a_face_holds_nobody(
    name: str, every: int, finders: dict[str, Finder], landmarker: Landmarker, demo_no_face: Path
) -> None:
    tracker = Tracker(finders[name], landmarker)
    seen = [tracker.follow(frame, now) for now, frame in frames(demo_no_face, every)]
    assert len(seen) > 10
    assert not any(seen)


@pytest.mark.parametrize("name", ["landmarker", "retinaface"])
def test_a_face_that_reaches_beyond_the_frame_is_followed(
    name: str, finders: dict[str, Finder], landmarker: Landmarker, demo_smile: Path
) -> None:
    """Eyes to mouth fill a square frame: forehead, ears and chin are cut off."""
    finder = Counted(finders[name])
    tracker = Tracker(finder, landmarker)
    for now, frame in frames(demo_smile, 10):
        [track] = tracker.follow(frame[140:260, 235:355], now)
        x, y, width, height = track.landmarks.box
        assert track.id == 0
        assert width > 130 and height > 150 and y + height > 120
        assert abs(x + width / 2 - 60) < 25 and abs(y + height / 2 - 60) < 40
    assert finder.close == (1 if name == "landmarker" else 0)


def test_a_face_in_view_is_not_looked_for_up_close(
    finders: dict[str, Finder], landmarker: Landmarker, demo_smile: Path
) -> None:
    finder = Counted(finders["landmarker"])
    tracker = Tracker(finder, landmarker)
    assert all(tracker.follow(frame, now) for now, frame in frames(demo_smile, 6))
    assert finder.searches > 1 and finder.close == 0


def test_an_empty_frame_is_looked_at_up_close_at_its_own_slow_pace(
    finders: dict[str, Finder], landmarker: Landmarker
) -> None:
    finder = Counted(finders["landmarker"])
    tracker = Tracker(finder, landmarker)
    frame = np.full((36, 64, 3), 90, np.uint8)
    for index in range(61):
        assert tracker.follow(frame, index * SECOND // 30) == []
    assert finder.searches == 31  # every second frame of 30 a second
    assert 2 * SECOND // (CLOSE_NS * 2) < finder.close <= 2 * SECOND // CLOSE_NS + 1


@pytest.mark.parametrize("fill", ["black", "noise", "stripes"])
def test_a_picture_of_nothing_holds_nobody(
    fill: str, finders: dict[str, Finder], landmarker: Landmarker
) -> None:
    frame = np.zeros((90, 160, 3), np.uint8)
    if fill == "noise":
        frame[:] = np.random.default_rng(1).integers(0, 256, frame.shape)
    elif fill == "stripes":
        frame[::7] = 255
    for finder in finders.values():
        assert Tracker(finder, landmarker).follow(frame, 0) == []


def test_five_people_five_numbers_largest_first(
    finders: dict[str, Finder], landmarker: Landmarker, multi: np.ndarray
) -> None:
    tracker = Tracker(finders["retinaface"], landmarker, max_faces=8)
    first = [(t.id, t.landmarks.box) for t in tracker.follow(multi, 0)]
    assert sorted(number for number, _ in first) == [0, 1, 2, 3, 4]
    areas = [box[2] * box[3] for _, box in first]
    assert areas == sorted(areas, reverse=True)
    again = {t.id: t.landmarks.box for t in tracker.follow(multi, SECOND)}
    for number, box in first:
        np.testing.assert_allclose(again[number], box, atol=4)


def test_no_more_than_max_faces_and_the_largest_of_them(
    finders: dict[str, Finder], landmarker: Landmarker, multi: np.ndarray
) -> None:
    finder = Counted(finders["retinaface"])
    tracker = Tracker(finder, landmarker, max_faces=2)
    for now in range(0, 3 * SECOND, SECOND):
        assert len(tracker.follow(multi, now)) == 2
    assert finder.searches == 1  # nobody else could be taken in
    boxes = [t.landmarks.box for t in tracker.follow(multi, 3 * SECOND)]
    assert min(box[3] for box in boxes) > 110


class Stage:
    """Two women cut out of the picture, moved about before its sky."""

    def __init__(self, multi: np.ndarray) -> None:
        self.people = {"a": multi[260:450, 500:660], "b": multi[230:430, 660:830]}
        self._sky = cv2.resize(multi[:150, 400:], (640, 360))

    def paint(self, scene: Scene) -> np.ndarray:
        frame = self._sky.copy()
        for name, left, top in scene:
            person, x, y = self.people[name], round(left), round(top)
            x0, x1 = max(x, 0), min(x + person.shape[1], 640)
            if x1 > x0:
                frame[y : y + person.shape[0], x0:x1] = person[:, x0 - x : x1 - x]
        return frame

    def who(self, scene: Scene, track: Track) -> str:
        """The frontmost person whose middle is nearest to the track."""
        x, y, width, height = track.landmarks.box

        def away(one: tuple[str, float, float]) -> float:
            shape = self.people[one[0]].shape
            return float(
                np.hypot(one[1] + shape[1] / 2 - x - width / 2, one[2] + shape[0] / 2 - y - height / 2)
            )

        return min(reversed(scene), key=away)[0]

    def play(
        self, tracker: Tracker, scene: Callable[[float], Scene], seconds: float, rate: int = 20
    ) -> list[dict[int, str]]:
        """Number -> person, frame by frame."""
        played = []
        for index in range(round(seconds * rate)):
            placed = scene(index / rate)
            tracks = tracker.follow(self.paint(placed), index * SECOND // rate)
            played.append({t.id: self.who(placed, t) for t in tracks})
        return played


@pytest.fixture(scope="module")
def stage(multi: np.ndarray) -> Stage:
    return Stage(multi)


@pytest.mark.parametrize("heights", [(80, 80), (60, 120)])
def test_two_who_cross_keep_their_numbers(
    heights: tuple[int, int], stage: Stage, finders: dict[str, Finder], landmarker: Landmarker
) -> None:
    tracker = Tracker(finders["landmarker"], landmarker)
    played = stage.play(
        tracker, lambda t: [("b", 460 - 150 * t, heights[0]), ("a", 10 + 150 * t, heights[1])], 2.9
    )
    assert len(played[0]) == 2
    assert played[-1] == played[0]


def test_a_short_absence_keeps_the_number_a_long_one_does_not(
    stage: Stage, finders: dict[str, Finder], landmarker: Landmarker
) -> None:
    tracker = Tracker(finders["landmarker"], landmarker)
    short, long = 1.0, MEMORY_NS / SECOND + 0.5

    def scene(t: float) -> Scene:
        away = 0.5 <= t < 0.5 + short or 2.0 <= t < 2.0 + long
        return [("b", 400, 80)] + ([] if away else [("a", 60, 80)])

    played = stage.play(tracker, scene, 2.0 + long + 1.0, rate=10)
    first = {person: number for number, person in played[0].items()}
    assert first["a"] not in played[8]
    assert played[18] == played[0]
    last = {person: number for number, person in played[-1].items()}
    assert last["b"] == first["b"]
    assert last["a"] not in played[0]


def test_another_place_is_another_person(
    stage: Stage, finders: dict[str, Finder], landmarker: Landmarker
) -> None:
    """Somebody who appears far from where the lost face was is not taken for her."""
    tracker = Tracker(finders["landmarker"], landmarker)
    played = stage.play(tracker, lambda t: [("a", 20, 80)] if t < 0.5 else [("b", 460, 80)], 1.2)
    assert played[0] == {0: "a"}
    assert played[-1] == {1: "b"}


def test_time_that_goes_backwards_starts_afresh(
    stage: Stage, finders: dict[str, Finder], landmarker: Landmarker
) -> None:
    tracker = Tracker(finders["landmarker"], landmarker)
    frame = stage.paint([("a", 100, 80)])
    assert [t.id for t in tracker.follow(frame, 5 * SECOND)] == [0]
    assert [t.id for t in tracker.follow(frame, 5 * SECOND)] == [0]
    assert [t.id for t in tracker.follow(frame, 4 * SECOND)] == [1]


def test_somebody_who_leaves_the_picture_is_gone_at_once(
    stage: Stage, finders: dict[str, Finder], landmarker: Landmarker
) -> None:
    tracker = Tracker(finders["landmarker"], landmarker)
    played = stage.play(tracker, lambda t: [("a", 100 - 200 * t, 80)], 1.6)
    assert played[0] == {0: "a"}
    assert played[-1] == {}
