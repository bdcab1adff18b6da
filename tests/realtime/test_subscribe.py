"""What a Python program hears of real publishers on loopback."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq
from broadcast import Broadcast
from hypothesis import given
from hypothesis import strategies as st
from wire import estimate, health

from ecmf.errors import EcmfError, UsageError
from realtime.message import Estimate, WireError, decode, encode
from realtime.publish import Publisher, Sinks
from realtime.subscribe import Gaps, Received, Subscriber, subscribe

LOOPBACK = "tcp://127.0.0.1:*"
PATIENCE_S = 30.0


@pytest.fixture
def publisher() -> Iterator[Publisher]:
    made = Publisher(LOOPBACK)
    yield made
    made.close()


@pytest.fixture
def raw() -> Iterator[zmq.Socket[Any]]:
    """A publisher that sends whatever it is given."""
    with zmq.Context() as context, context.socket(zmq.XPUB) as made:
        made.setsockopt(zmq.LINGER, 0)
        made.bind(LOOPBACK)
        yield made


def address(raw: zmq.Socket[Any]) -> str:
    return str(raw.getsockopt_string(zmq.LAST_ENDPOINT))


def send(raw: zmq.Socket[Any], *seqs: int, person: int = 1) -> None:
    for seq in seqs:
        raw.send_multipart((b"emotion/demo/", encode(estimate(seq=seq, person=person))))


def test_only_estimates_come_unless_more_is_asked_for(publisher: Publisher) -> None:
    with Broadcast(publisher):
        messages = subscribe(publisher.endpoint)
        heard = [next(messages) for _ in range(10)]
        messages.close()  # type: ignore[attr-defined]
        assert all(isinstance(message, Estimate) for message in heard)
        assert {message.source for message in heard} == {"demo", "other"}
        with Subscriber(publisher.endpoint) as subscriber:
            received = [subscriber.receive(PATIENCE_S) for _ in range(20)]
    kinds = {one.topic.partition("/")[0] for one in received if one is not None}
    assert kinds == {"emotion", "transcript", "health"}
    assert all(one is not None and decode(one.payload) == one.message for one in received)


def test_one_source_of_several_publishers(publisher: Publisher) -> None:
    second = Publisher(LOOPBACK)
    both = [Sinks([each], now_ns=lambda: 0) for each in (publisher, second)]
    with Subscriber(publisher.endpoint, second.endpoint, source="cam1") as subscriber:
        runs: set[str] = set()
        for _ in range(2000):
            for sinks, run in zip(both, ("a", "b"), strict=True):
                sinks.publish(estimate(source="cam1", run=run))
                sinks.publish(estimate(source="cam10", run=run))
            received = subscriber.receive(0.005)
            if received is not None:
                assert received.message.source == "cam1"
                runs.add(received.message.run)
            if runs == {"a", "b"}:
                break
    second.close()
    assert runs == {"a", "b"}


@pytest.mark.skipif(not socket.has_ipv6, reason="this machine has no IPv6")
def test_an_ipv6_number_is_published_on_and_heard() -> None:
    try:
        publisher = Publisher("tcp://[::1]:*")
    except UsageError as error:
        pytest.skip(f"there is no IPv6 loopback here: {error}")
    assert publisher.endpoint.startswith("tcp://[::1]:")
    with Broadcast(publisher), Subscriber(publisher.endpoint) as subscriber:
        assert subscriber.receive(PATIENCE_S) is not None
    publisher.close()


def test_a_name_in_any_script_is_heard_by_that_name(publisher: Publisher) -> None:
    sinks = Sinks([publisher], now_ns=lambda: 0)
    with Subscriber(publisher.endpoint, source="Ju\u0308rgen-访谈") as subscriber:
        for _ in range(2000):
            sinks.publish(estimate(source="Jürgen"))
            sinks.publish(estimate(source="Jürgen-访谈"))
            received = subscriber.receive(0.005)
            if received is not None:
                break
    assert received is not None and received.message.source == "Jürgen-访谈"


def test_a_publisher_that_comes_back_is_heard_again(tmp_path: Path) -> None:
    place = f"ipc://{tmp_path}/socket"
    with Subscriber(place, kinds=("health",)) as subscriber:
        for run in ("a", "b"):
            publisher = Publisher(place)
            sinks = Sinks([publisher], now_ns=lambda: 0)
            for _ in range(2000):
                sinks.publish(health(run=run))
                received = subscriber.receive(0.005)
                if received is not None and received.message.run == run:
                    break
            publisher.close()
            assert received is not None and (received.message.run, received.missed) == (run, 0)


def test_who_is_slow_gets_the_newest_of_each_person_when_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    coming = [
        [(1, 1), (2, 1), (3, 2), (4, 2), (5, 1)],
        [(6, 2)],
        [(7, 1), (8, 1)],
    ]  # (seq, person) at each look

    class Heaps(Subscriber):
        """Where messages have piled up each time that somebody comes back for more."""

        def __init__(self, *_: Any, **__: Any) -> None:
            self.waiting: list[tuple[int, int]] = []

        def receive(self, timeout_s: float | None = None) -> Received | None:
            if timeout_s is None:
                self.waiting += coming.pop(0)
            if not self.waiting:
                return None
            seq, person = self.waiting.pop(0)
            return Received("emotion/demo/", estimate(seq=seq, person=person), b"", 0)

        def close(self) -> None:
            pass

    monkeypatch.setattr("realtime.subscribe.Subscriber", Heaps)
    messages = subscribe(newest=True)
    assert [next(messages).seq for _ in range(4)] == [4, 5, 6, 8]


def test_what_was_missed_is_counted_and_what_comes_twice_passed_over(raw: zmq.Socket[Any]) -> None:
    with Subscriber(address(raw), kinds=("emotion",)) as subscriber:
        assert raw.poll(30_000)
        send(raw, 4, 4, 9)
        received = [subscriber.receive(PATIENCE_S) for _ in range(2)]
        assert [(one.message.seq, one.missed) for one in received if one] == [(4, 0), (9, 4)]
        assert subscriber.receive(0) is None


@given(st.lists(st.integers(0, 30), unique=True, min_size=1).map(sorted))
def test_every_message_is_either_here_or_counted_as_missed(seqs: list[int]) -> None:
    gaps = Gaps()
    missed = [gaps.missed("emotion/demo/", "run", seq) for seq in seqs]
    assert None not in missed
    assert sum(count or 0 for count in missed) + len(seqs) == seqs[-1] - seqs[0] + 1
    assert gaps.missed("emotion/demo/", "run", seqs[-1]) is None
    assert gaps.missed("health/demo/", "run", 17) == 0
    assert gaps.missed("emotion/demo/", "another run", 0) == 0


def test_what_somebody_else_sends_is_a_clear_error(raw: zmq.Socket[Any]) -> None:
    with Subscriber(address(raw), kinds=("emotion",)) as subscriber:
        assert raw.poll(30_000)
        raw.send_multipart((b"emotion/x/", b'{"temperature": 21}'))
        with pytest.raises(WireError, match="not a message of version 1"):
            subscriber.receive(PATIENCE_S)
        raw.send_multipart((b"emotion/x/",))
        with pytest.raises(EcmfError, match="a message of 1 parts"):
            subscriber.receive(PATIENCE_S)


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"kinds": "emotion"}, "kinds 'emotion': expected a list of some of emotion, transcript, health"),
        ({"kinds": ("emotions",)}, "expected a list of some of"),
        ({"kinds": ()}, "expected a list of some of"),
        ({"source": "my cam"}, "source my cam: expected letters"),
    ],
)
def test_what_nobody_publishes_is_refused(asked: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        Subscriber("tcp://127.0.0.1:5555", **asked)


@pytest.mark.parametrize("place", ["localhost", "tcp://127.0.0.1:*", "tcp://*:5555", "tcp://127.0.0.1:0"])
def test_what_is_no_place_to_connect_to_is_one_clear_line(place: str) -> None:
    with pytest.raises(UsageError, match="expected an address") as caught:
        Subscriber(place)
    assert str(caught.value).startswith(f"cannot connect to {place}: ")
