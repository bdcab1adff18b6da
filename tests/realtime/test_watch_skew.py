"""How far the newest picture and the newest sound lie apart, as their stamps tell it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realtime.watch_skew import Skew

MS = 1_000_000


def play(skew: Skew, picture_late_ms: int, sound_late_ms: int, seconds: float, from_ms: int = 0) -> None:
    """A camera of 25 frames a second and a microphone of 10 ms pieces, each stamped right and handed on late."""
    for ms in range(from_ms, from_ms + round(seconds * 1000), 10):
        skew.sound((ms - sound_late_ms) * MS)
        if ms % 40 == 0:
            skew.picture((ms - picture_late_ms) * MS)


@given(st.integers(0, 300), st.integers(0, 300))
def test_it_is_the_difference_of_the_two_ways(picture_late_ms: int, sound_late_ms: int) -> None:
    skew = Skew()
    play(skew, picture_late_ms, sound_late_ms, 3)
    assert skew.ms == pytest.approx(picture_late_ms - sound_late_ms, abs=1)


def test_it_is_unknown_until_both_have_come() -> None:
    skew = Skew()
    skew.picture(0)
    assert skew.ms is None
    skew.sound(0)
    assert skew.ms is None
    skew.picture(5 * MS)
    assert skew.ms == -5


def test_it_is_unknown_while_one_of_them_is_away_and_forgets_what_was_before() -> None:
    skew = Skew()
    play(skew, 60, 20, 3)
    for ms in range(3_000, 4_500, 10):
        skew.sound(ms * MS)
    assert skew.ms is None
    play(skew, 30, 30, 6, from_ms=4_520)
    assert skew.ms == pytest.approx(0, abs=1)
    for ms in range(11_000, 20_000, 40):
        skew.picture(ms * MS)
    assert skew.ms is None


def test_a_clock_that_jumps_is_seen() -> None:
    skew = Skew()
    play(skew, 30, 30, 3)
    play(skew, 30, 230, 6, from_ms=3_000)
    assert skew.ms == pytest.approx(-200, abs=1)
