"""What is measured once a second, and what counts as overload."""

from __future__ import annotations

from realtime.assemble import Inputs
from realtime.checkup import Checkup
from realtime.clock import FakeClock
from realtime.config import Config
from realtime.exchange import Exchange
from realtime.message import Health, WorkerState
from realtime.waits import Waits
from realtime.workers import Worker


def test_what_waits_for_a_worker_that_is_not_there_is_no_overload() -> None:
    clock, exchange = FakeClock(), Exchange()
    worker = Worker("speech", lambda shift: None, clock=clock)
    waits = {"speech": Waits(lambda: 60_000.0)}
    checkup = Checkup(Config(), Inputs(None, None), exchange, [worker], waits, run="a", clock=clock)

    def later() -> Health:
        for _ in range(5):
            clock.advance(1_000_000_000)
            told = checkup.health(None, WorkerState(alive=True, rate_hz=0.0, drops={}))
        return told

    told = later()
    assert told.load is not None and told.load.level == 0
    assert told.workers["speech"].queue_age_ms is None
    exchange.runs("speech", {})
    told = later()
    assert told.load is not None and told.load.level > 0
    assert told.workers["speech"].queue_age_ms == 60_000.0
