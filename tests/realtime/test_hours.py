"""What hours of running do: nothing grows with the people who came and went, and no clock runs away."""

from __future__ import annotations

from wire import estimate

from realtime.latest import Latest
from realtime.pace import Pace

S = 1_000_000_000


def test_people_who_came_and_went_take_no_memory_on_the_screen() -> None:
    """Each that is lost for more than two seconds comes back with a new number: thousands in ten hours."""
    latest = Latest()
    for person in range(3_000):
        latest.take(estimate(person=person, t_publish_ns=person * S, latency_ms=None))
    assert [each.person for each in latest.persons()] == [2_998, 2_999]
    assert len(latest._persons) == 2


def test_people_who_came_and_went_take_no_memory_in_the_pace() -> None:
    """Somebody whose last face came too late to count is never said to be gone."""
    pace = Pace(15.0)
    for person in range(3_000):
        assert pace.admit(person, person * S)
    assert len(pace._due_ns) == 1
