"""What is said of a camera's pictures: frozen, black, gone; how many come and how many were lost."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from realtime.sources.base import CaptureClock, Frame
from realtime.watch_picture import BLACK_NS, FROZEN_NS, PictureWatch

MS = 1_000_000


class Camera:
    """Gives noisy pictures of a room, as a sensor does, or whatever it is told to, on a clock of its own."""

    def __init__(self, fps: float = 30.0, *, still: bool = False, clock: CaptureClock = "read") -> None:
        self.now_ns = 5_000 * MS
        self.watch = PictureWatch(still=still, now_ns=lambda: self.now_ns)
        self._step_ns = round(1e9 / fps)
        self._clock = clock
        self._rng = np.random.default_rng(7)
        self._room = self._rng.integers(60, 200, (48, 64, 3))
        self._index = 0

    def picture(self) -> np.ndarray:
        return np.clip(self._room + self._rng.normal(0, 2, self._room.shape), 0, 255).astype(np.uint8)

    def give(self, image: np.ndarray | None = None, seconds: float = 0.0) -> list[Frame]:
        """At least one frame; of ``image``, or another picture each."""
        end_ns, frames = self.now_ns + round(seconds * 1e9), []
        while not frames or self.now_ns < end_ns:
            self.now_ns += self._step_ns
            shown = self.picture() if image is None else image.copy()
            stamp_ns = self.now_ns - 10 * MS
            frames.append(self.watch.see(Frame(shown, stamp_ns, stamp_ns, self._clock, None, self._index)))
            self._index += 1
        return frames

    @property
    def state(self) -> str:
        return self.watch.condition(160, 120).state


def test_a_living_camera_is_ok_and_its_rate_is_told() -> None:
    for fps in (2.0, 24.0, 60.0):
        camera = Camera(fps)
        frames = camera.give(seconds=6)
        condition = camera.watch.condition(160, 120)
        assert condition.state == "ok" and not any(frame.repeated for frame in frames)
        assert condition.fps == pytest.approx(fps, rel=0.01)
        assert (condition.drops, condition.width, condition.height) == (0, 160, 120)


def test_a_frozen_picture_grows_old_and_is_said() -> None:
    camera = Camera()
    camera.give(seconds=1)
    frozen = camera.picture()
    first, *rest = camera.give(frozen, seconds=0.4)
    assert not first.repeated and all(frame.repeated for frame in rest)
    assert {frame.end_ns for frame in rest} == {first.end_ns}
    assert camera.state == "ok"
    camera.give(frozen, seconds=FROZEN_NS / 1e9)
    assert camera.state == "frozen" and camera.watch.faults == {"frozen": 1}
    (thawed,) = camera.give()
    assert not thawed.repeated and thawed.end_ns == camera.now_ns - 10 * MS and camera.state == "ok"


def test_a_frozen_sensor_behind_a_living_encoder_is_frozen() -> None:
    """Key frames and those between them differ by coding noise, but come again with every group of a second."""
    camera = Camera()
    camera.give(seconds=1)
    group = [camera.picture() for _ in range(30)]
    fresh = [camera.give(picture)[0] for picture in group]
    assert not any(frame.repeated for frame in fresh) and camera.state == "ok"
    again = [camera.give(picture)[0] for picture in group * 2]
    assert all(frame.repeated and frame.end_ns == fresh[-1].end_ns for frame in again)
    assert camera.state == "frozen"


def test_a_loop_of_three_seconds_is_not_frozen() -> None:
    camera = Camera()
    loop = [camera.picture() for _ in range(90)]
    assert not any(camera.give(picture)[0].repeated for picture in loop * 3)


def test_a_camera_that_sends_every_picture_twice_is_not_frozen() -> None:
    camera = Camera()
    for _ in range(60):
        camera.give(picture := camera.picture())
        camera.give(picture)
        assert camera.state == "ok"


def test_a_picture_shown_from_a_file_is_never_frozen() -> None:
    camera = Camera(5, still=True, clock="file")
    frames = camera.give(camera.picture(), seconds=10)
    assert camera.state == "ok" and not any(frame.repeated for frame in frames)
    camera.now_ns += 60_000 * MS
    assert camera.state == "ok"


@pytest.mark.parametrize("noise", [0, 4])
def test_a_covered_lens_is_black_whether_it_has_noise_or_not(noise: int) -> None:
    camera = Camera()
    camera.give(seconds=1)
    rng = np.random.default_rng(1)
    for _ in range(round(1.2 * BLACK_NS / 1e9 * 30)):
        dark = np.clip(rng.normal(6, max(noise, 1e-9), (48, 64, 3)), 0, 255).astype(np.uint8)
        dark[0, :3] = 255  # hot pixels
        camera.give(dark)
    assert camera.state == "black" and camera.watch.faults == {"black": 1}
    camera.give(seconds=0.1)
    assert camera.state == "ok"


def test_a_closed_shutter_is_black_and_not_frozen_and_its_pictures_grow_old() -> None:
    camera = Camera()
    camera.give(seconds=1)
    frames = camera.give(np.zeros((48, 64, 3), np.uint8), seconds=3)
    assert camera.state == "black" and camera.watch.faults == {"black": 1}
    assert frames[-1].repeated and frames[-1].end_ns == frames[0].end_ns


def test_a_dim_room_with_a_lit_face_is_not_black() -> None:
    camera = Camera()
    room = np.full((48, 64, 3), 8, np.uint8)
    room[16:32, 24:40] = 70
    for _ in range(60):
        camera.give(room + np.random.default_rng(2).integers(0, 3, room.shape).astype(np.uint8))
    assert camera.state in ("ok", "frozen") and not camera.watch.faults["black"]


def test_a_camera_that_stops_without_an_error_is_lost_and_has_no_rate() -> None:
    camera = Camera()
    camera.give(seconds=3)
    camera.now_ns += 2_100 * MS
    condition = camera.watch.condition(160, 120)
    assert condition.state == "lost" and condition.fps < 20
    camera.now_ns += 5_000 * MS
    assert camera.watch.condition(160, 120).fps == 0
    camera.give()
    assert camera.state == "ok"


def test_what_the_source_knows_itself_comes_first() -> None:
    camera = Camera()
    camera.give(seconds=1)
    camera.watch.lose()
    assert camera.watch.condition(1, 1, away="reconnecting").state == "reconnecting"
    assert camera.watch.condition(1, 1, dropped=4).drops == 4
    assert camera.state == "ok" and camera.watch.faults == {"lost": 1}


def test_the_same_picture_after_a_return_is_a_new_one() -> None:
    camera = Camera()
    picture = camera.picture()
    camera.give(picture, seconds=0.3)
    camera.watch.lose()
    (frame,) = camera.give(picture)
    assert not frame.repeated


def test_another_size_is_another_picture() -> None:
    camera = Camera()
    camera.give(np.full((48, 64, 3), 90, np.uint8))
    (frame,) = camera.give(np.full((240, 320, 3), 90, np.uint8))
    assert not frame.repeated
    (frame,) = camera.give(np.full((1, 1, 3), 90, np.uint8))
    assert not frame.repeated


def missing(steps: list[int]) -> Iterator[bool]:
    for step in steps:
        yield from [True] * (step - 1) + [False]


@settings(deadline=None, max_examples=25)
@given(st.lists(st.sampled_from([1, 1, 1, 1, 1, 1, 1, 1, 2, 3]), min_size=60, max_size=120))
def test_exposures_that_never_arrive_are_counted(steps: list[int]) -> None:
    """The driver's stamps say when each frame was exposed; what lies between two that came was lost."""
    camera = Camera(clock="exposure")
    camera.give(seconds=0.5)
    lost = 0
    for gone in missing(steps):
        if gone:
            camera.now_ns += 1_000_000_000 // 30
            lost += 1
        else:
            camera.give()
    assert camera.watch.condition(1, 1).drops == lost


def test_slower_exposure_in_the_dark_is_no_loss() -> None:
    camera, slow = Camera(30, clock="exposure"), Camera(15, clock="exposure")
    camera.give(seconds=2)
    slow.watch, slow.now_ns = camera.watch, camera.now_ns
    camera.watch._now_ns = lambda: slow.now_ns
    slow.give(seconds=4)
    assert camera.watch.condition(1, 1).drops < 20
