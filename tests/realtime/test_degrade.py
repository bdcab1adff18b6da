"""Given a load, what is done less often, in which order, and when it comes back; on a fake clock."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realtime.degrade import BETTER_NS, LEVELS, PATIENCE_NS, WORSE_NS, Effort, Governor, Load

SECOND = 1_000_000_000
CALM = Load(cores=1.0, available=2, queue_ms={"face": 20.0, "speech": 200.0}, face_hz=24, wanted_hz=15)
BEHIND = replace(CALM, queue_ms={"speech": 3000.0})


class Machine:
    """A governor and a clock that ticks once a second."""

    def __init__(self) -> None:
        self.governor = Governor()
        self.now_ns = 0

    def run(self, load: Load, seconds: float) -> list[int]:
        """The level after each second."""
        levels = []
        for _ in range(round(seconds)):
            self.now_ns += SECOND
            self.governor.update(load, self.now_ns)
            levels.append(self.governor.level)
        return levels


def test_the_order_is_scene_then_words_then_face_and_each_step_touches_one() -> None:
    changed = []
    for less, more in zip(LEVELS[1:], LEVELS, strict=False):
        touched = [
            name
            for name in ("scene_period_s", "words_hop_s", "face_period_s")
            if getattr(less, name) > getattr(more, name)
        ]
        assert len(touched) == 1, "a step reduces one thing, and gives nothing back"
        changed += touched
    stages = ("scene_period_s", "words_hop_s", "face_period_s")
    assert changed == sorted(changed, key=stages.index) and set(changed) == set(stages)
    assert LEVELS[0] == Effort() and not LEVELS[0].reduced and all(each.reduced for each in LEVELS[1:])


def test_what_is_published_stays_fresh_at_every_level() -> None:
    assert max(each.face_period_s for each in LEVELS) < 0.5, "a face counts for 0.5 s"
    assert max(each.words_hop_s for each in LEVELS) < 8.0, "words count for 8 s"


def test_lasting_overload_goes_down_to_the_least_and_no_further() -> None:
    machine = Machine()
    levels = machine.run(BEHIND, 60)
    assert levels[0] == levels[1] == 0, "one bad second is nothing"
    assert sorted(levels) == levels and levels[-1] == len(LEVELS) - 1


def test_overload_two_seconds_of_three_counts_too() -> None:
    machine = Machine()
    for _ in range(10):
        machine.run(BEHIND, 2)
        machine.run(CALM, 1)
    assert machine.governor.level == len(LEVELS) - 1


def test_calm_brings_everything_back_step_by_step() -> None:
    machine = Machine()
    machine.run(BEHIND, 60)
    levels = machine.run(CALM, 120)
    assert levels[-1] == 0
    assert all(before - after in (0, 1) for before, after in itertools.pairwise(levels))


def test_where_there_is_no_room_nothing_comes_back() -> None:
    machine = Machine()
    machine.run(BEHIND, 60)
    full = replace(CALM, cores=1.9)
    assert set(machine.run(full, 300)) == {len(LEVELS) - 1}


def test_what_had_to_be_taken_back_waits_longer_each_time() -> None:
    machine = Machine()
    machine.run(BEHIND, 4)
    waited = []
    for _ in range(5):
        level = machine.governor.level
        seconds = 0
        while machine.governor.level == level:
            machine.run(CALM, 1)
            seconds += 1
        waited.append(seconds)
        while machine.governor.level < level:
            machine.run(BEHIND, 1)
    assert waited[0] == BETTER_NS // SECOND
    assert waited == sorted(waited) and waited[-1] == PATIENCE_NS // SECOND


def test_a_machine_that_slept_is_judged_anew() -> None:
    machine = Machine()
    machine.run(BEHIND, 2)
    machine.now_ns += 3600 * SECOND
    assert machine.run(BEHIND, 1) == [0]


@pytest.mark.parametrize(
    ("load", "told"),
    [
        (CALM, None),
        (BEHIND, "speech is 3000 ms behind"),
        (replace(CALM, queue_ms={"face": 400.0}), "face is 400 ms behind"),
        (replace(CALM, late_share=0.6, face_hz=6, wanted_hz=15), "60% of the frames"),
        (replace(CALM, late_share=0.6, face_hz=24, wanted_hz=15), None),
        (replace(CALM, lost=1), "lost"),
    ],
)
def test_what_counts_as_overload(load: Load, told: str | None) -> None:
    found = load.overload()
    assert found is None if told is None else told in str(found)


LOADS = st.builds(
    Load,
    cores=st.floats(0, 4),
    available=st.just(2),
    queue_ms=st.dictionaries(st.sampled_from(["face", "scene", "speech", "text"]), st.floats(0, 6000)),
    late_share=st.floats(0, 1),
    face_hz=st.floats(0, 60),
    wanted_hz=st.floats(0, 30),
    lost=st.integers(0, 3),
)


@given(st.lists(st.tuples(LOADS, st.integers(1, 20 * SECOND)), max_size=80))
def test_whatever_happens_levels_move_one_at_a_time_for_a_reason_and_calm_ends_at_full_rate(
    history: list[tuple[Load, int]],
) -> None:
    machine = Machine()
    for load, step_ns in history:
        before = machine.governor.level
        machine.now_ns += step_ns
        assert machine.governor.update(load, machine.now_ns) == LEVELS[machine.governor.level]
        after = machine.governor.level
        assert abs(after - before) <= 1
        if after > before:
            assert load.overload() is not None
        if after < before:
            assert load.overload() is None and load.cores <= 0.85 * load.available
    machine.run(CALM, len(LEVELS) * PATIENCE_NS / SECOND + 1)
    assert machine.governor.level == 0


@given(st.lists(st.booleans(), max_size=200))
def test_short_spikes_change_nothing(spikes: list[bool]) -> None:
    machine = Machine()
    last = False
    for spike in spikes:
        spike = spike and not last  # never two seconds in a row: under WORSE_NS
        last = spike
        machine.run(BEHIND if spike else CALM, 1)
    assert machine.governor.level == 0 and WORSE_NS > SECOND
