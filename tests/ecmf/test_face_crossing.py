"""Two living faces in one composed video, through the real branch: each keeps its number past the other and behind
something that hides it for less than a second."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from ecmf.branches.face import FaceBranch

WIDTH, HEIGHT = 640, 360
FPS = 15
Place = tuple[float, float]
"""Centre of a face in the composed picture."""
Scene = dict[str, Place]
"""Who is where, back to front."""


class Person:
    """The head of a demo video, cut out as an oval, alive frame by frame."""

    def __init__(self, path: Path, box: tuple[int, int, int, int], from_s: float, height: int) -> None:
        """``box``: x, y, width, height of the head in the video; ``height``: in the composed picture."""
        video = cv2.VideoCapture(str(path))
        rate, index = video.get(cv2.CAP_PROP_FPS), 0
        x, y, w, h = box
        size = (round(w * height / h), height)
        self.frames: list[np.ndarray] = []
        while video.grab():
            if index >= from_s * rate and index % 2 == 0:
                frame = video.retrieve()[1]
                self.frames.append(
                    cv2.resize(frame[y : y + h, x : x + w], size, interpolation=cv2.INTER_AREA)
                )
            index += 1
        mask = np.zeros((size[1], size[0]), np.uint8)
        cv2.ellipse(mask, (size[0] // 2, size[1] // 2), (size[0] // 2, size[1] // 2), 0, 0, 360, 255, -1)
        self.mask = mask > 0

    def paint(self, canvas: np.ndarray, index: int, centre: Place) -> None:
        way = [*range(len(self.frames)), *range(len(self.frames) - 2, 0, -1)]
        face = self.frames[way[index % len(way)]]
        height, width = face.shape[:2]
        x, y = round(centre[0] - width / 2), round(centre[1] - height / 2)
        x0, y0, x1, y1 = max(x, 0), max(y, 0), min(x + width, WIDTH), min(y + height, HEIGHT)
        if x1 > x0 and y1 > y0:
            part = slice(y0 - y, y1 - y), slice(x0 - x, x1 - x)
            canvas[y0:y1, x0:x1][self.mask[part]] = face[part][self.mask[part]]


@pytest.fixture(scope="module")
def people(demo_face: Path, demo_smile: Path) -> dict[str, Person]:
    return {
        "woman": Person(demo_face, (290, 0, 300, 360), 7.5, 170),
        "man": Person(demo_smile, (190, 50, 210, 270), 0.8, 170),
    }


@pytest.fixture
def branch(weight: Callable[[str], Path]) -> FaceBranch:
    weight("face-landmarker")
    return FaceBranch(offline=True)


def play(
    branch: FaceBranch,
    people: dict[str, Person],
    scene: Callable[[float], Scene],
    seconds: float,
    hide: Callable[[float], tuple[int, int] | None] = lambda t: None,
) -> list[dict[int, str]]:
    """Number -> name of who is nearest, frame by frame; ``hide``: from and to which column a curtain hangs."""
    room = np.full((HEIGHT, WIDTH, 3), (150, 160, 150), np.uint8)
    room[::24] = (120, 130, 120)
    played = []
    for index in range(round(seconds * FPS)):
        t = index / FPS
        placed, canvas = scene(t), room.copy()
        for name, centre in placed.items():
            people[name].paint(canvas, index, centre)
        curtain = hide(t)
        if curtain is not None:
            canvas[:, curtain[0] : curtain[1]] = (40, 60, 90)
        found = {}
        t_ns = round(t * 1e9)
        for cue in branch.process(canvas, t_ns, t_ns):
            assert cue.person is not None and cue.bbox is not None
            x, y, w, h = cue.bbox
            # Of two in one place, the one in front is seen.
            found[cue.person] = min(
                reversed(placed), key=lambda n: np.hypot(placed[n][0] - x - w / 2, placed[n][1] - y - h / 2)
            )
        played.append(found)
    return played


def numbers(played: list[dict[int, str]]) -> set[int]:
    return {number for found in played for number in found}


@pytest.mark.parametrize("front", ["woman", "man"])
@pytest.mark.parametrize("seconds", [1.6, pytest.param(3.0, marks=pytest.mark.slow)])
def test_two_who_walk_past_each_other_keep_their_numbers(
    front: str, seconds: float, branch: FaceBranch, people: dict[str, Person]
) -> None:
    """They meet in the middle, one before the other, and are hidden for 0.5 to 0.9 s."""
    far, near = ("man", "woman") if front == "woman" else ("woman", "man")

    def scene(t: float) -> Scene:
        # They stand still for half a second before and after.
        way = min(max((t - 0.5) / seconds, 0.0), 1.0)
        return {far: (480 - 320 * way, 180), near: (160 + 320 * way, 180)}

    played = play(branch, people, scene, seconds + 1.1)
    assert sorted(played[3].values()) == ["man", "woman"]
    assert played[-1] == played[3]
    assert numbers(played) == set(played[3])


def test_somebody_hidden_for_less_than_a_second_keeps_the_number(
    branch: FaceBranch, people: dict[str, Person]
) -> None:
    """A door swings before one of two; the other is seen all the time."""
    played = play(
        branch,
        people,
        lambda t: {"woman": (160, 180), "man": (480, 180)},
        2.2,
        lambda t: (360, 600) if 0.6 <= t < 1.5 else None,
    )
    hidden = [found for index, found in enumerate(played) if 0.75 <= index / FPS < 1.45]
    assert all(list(found.values()) == ["woman"] for found in hidden)
    assert sorted(played[3].values()) == ["man", "woman"] and played[-1] == played[3]
    assert numbers(played) == set(played[3])


def test_somebody_who_walks_behind_a_pillar_keeps_the_number(
    branch: FaceBranch, people: dict[str, Person]
) -> None:
    played = play(branch, people, lambda t: {"man": (110 + 180 * t, 180)}, 2.4, lambda t: (250, 390))
    seen = [found for found in played if found]
    assert len(seen) < len(played) and played[2] == {0: "man"} == played[-1]
    assert numbers(played) == {0}


def test_both_hidden_at_once_are_told_apart_by_their_places(
    branch: FaceBranch, people: dict[str, Person]
) -> None:
    played = play(
        branch,
        people,
        lambda t: {"woman": (160, 180), "man": (480, 180)},
        1.8,
        lambda t: (0, WIDTH) if 0.5 <= t < 1.2 else None,
    )
    assert played[10] == {} and played[-1] == played[3] and len(played[3]) == 2


def test_a_camera_that_changes_its_size_keeps_the_numbers(
    branch: FaceBranch, people: dict[str, Person]
) -> None:
    canvas = np.full((HEIGHT, WIDTH, 3), (150, 160, 150), np.uint8)
    people["woman"].paint(canvas, 0, (160, 180))
    people["man"].paint(canvas, 0, (480, 180))
    sizes = [(640, 360), (640, 360), (1280, 720), (1280, 720), (480, 270), (640, 360)]
    seen = []
    for index, size in enumerate(sizes):
        cues = branch.process(cv2.resize(canvas, size), index * 66_000_000, index * 66_000_000)
        seen.append(
            {"left" if c.bbox[0] + c.bbox[2] / 2 < size[0] / 2 else "right": c.person for c in cues if c.bbox}
        )
    assert len(seen[0]) == 2 and seen == [seen[0]] * len(sizes)
