"""Real sockets on loopback: what is published arrives once, in order, and nobody can hold the publisher up."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest
import zmq
from wire import estimate, health, transcript, unlabelled

from realtime import schema
from realtime.clock import FakeClock
from realtime.message import Estimate, Message, decode, encode
from realtime.publish import Publisher, Sinks, new_run

LOOPBACK = "tcp://127.0.0.1:*"
VALIDATOR = jsonschema.Draft202012Validator(json.loads(schema.FILE.read_text("utf-8")))


class Kept:
    """A sink that keeps what it gets."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.payloads: list[tuple[str, bytes]] = []
        self.closed = 0

    def write(self, message: Message, topic: str, payload: bytes) -> None:
        self.messages.append(message)
        self.payloads.append((topic, payload))

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def context() -> Iterator[zmq.Context[Any]]:
    made = zmq.Context()
    yield made
    made.destroy(linger=0)


def subscriber(context: zmq.Context[Any], publisher: Publisher, topic: str = "") -> zmq.Socket[Any]:
    socket = context.socket(zmq.SUB)
    socket.setsockopt_string(zmq.SUBSCRIBE, topic)
    socket.connect(publisher.endpoint)
    return socket


def publish_until_heard(sinks: Sinks, socket: zmq.Socket[Any], message: Message) -> None:
    """A subscription takes a moment to arrive; what was published before it is not for this subscriber."""
    for _ in range(2000):
        sinks.publish(message)
        if socket.poll(5):
            return
    pytest.fail("the subscriber hears nothing")


def drain(socket: zmq.Socket[Any], until_seq: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    while not found or found[-1]["seq"] < until_seq:
        assert socket.poll(5000), f"nothing after {found[-1]['seq'] if found else 'the start'}"
        _, payload = socket.recv_multipart()
        found.append(json.loads(payload))
    return found


def test_what_is_published_is_a_copy_with_its_stamps_and_what_the_one_before_took() -> None:
    kept = Kept()
    clock = iter(range(1_500_000_000, 2_000_000_000, 250_000))  # each reading is 0.25 ms after the last
    sinks = Sinks([kept], now_ns=lambda: next(clock))
    mine = estimate(t_capture_ns=1_000_000_000, latency_ms={"total": 0.0, "face": 4.0})
    first, second = sinks.publish(mine), sinks.publish(mine)
    assert (mine.seq, mine.t_publish_ns, mine.wall, mine.latency_ms) == (
        0,
        0,
        "",
        {"total": 0.0, "face": 4.0},
    )
    assert isinstance(first, Estimate) and first.latency_ms == {"total": 500.0, "face": 4.0}
    assert isinstance(second, Estimate)
    assert second.latency_ms == {"total": 500.5, "face": 4.0, "publish": 0.25}
    assert (second.seq, second.t_publish_ns) == (1, 1_500_500_000) and second.wall
    assert decode(kept.payloads[-1][1]) == second


def test_a_plain_subscriber_gets_what_every_other_sink_gets(context: zmq.Context[Any]) -> None:
    publisher, kept, clock = Publisher(LOOPBACK), Kept(), FakeClock(1_020_000_000)
    sinks = Sinks([publisher, kept], now_ns=clock.monotonic_ns)
    socket = subscriber(context, publisher, "emotion/demo/")
    publish_until_heard(sinks, socket, estimate())
    for _ in range(50):
        sinks.publish(estimate())
        sinks.publish(health())
    last = sinks.publish(unlabelled())
    heard = drain(socket, last.seq)
    assert [message["seq"] for message in heard] == list(range(heard[0]["seq"], last.seq + 1))
    sent = {decode(p).seq: json.loads(p) for topic, p in kept.payloads if topic == "emotion/demo/"}
    assert heard == [sent[message["seq"]] for message in heard]
    for message in heard:
        VALIDATOR.validate(message)
    sinks.close()


def test_messages_have_two_parts_and_topics_do_not_match_longer_names(context: zmq.Context[Any]) -> None:
    publisher = Publisher(LOOPBACK)
    sinks = Sinks([publisher], now_ns=lambda: 0)
    socket = subscriber(context, publisher, "emotion/cam1/")
    publish_until_heard(sinks, socket, estimate(source="cam1"))
    sinks.publish(estimate(source="cam10"))
    last = sinks.publish(estimate(source="cam1"))
    topics = set()
    while True:
        topic, payload = socket.recv_multipart()
        topics.add(topic)
        if json.loads(payload)["seq"] == last.seq:
            break
    assert topics == {b"emotion/cam1/"}
    sinks.close()


def test_each_topic_counts_from_zero_without_gaps_and_is_stamped_at_the_last_moment() -> None:
    kept, clock = Kept(), FakeClock()
    sinks = Sinks([kept], now_ns=clock.monotonic_ns, wall_ns=lambda: 1_700_000_000_250_000_000)
    for number in range(5):
        clock.advance_to(1_000_000_000 + number * 10_000_000)
        sinks.publish(estimate(t_capture_ns=1_000_000_000))
        sinks.publish(health())
        sinks.publish(estimate(source="other"))
    by_topic: dict[str, list[int]] = {}
    for topic, payload in kept.payloads:
        by_topic.setdefault(topic, []).append(decode(payload).seq)
    assert by_topic == {name: list(range(5)) for name in ("emotion/demo/", "health/demo/", "emotion/other/")}
    estimates = [json.loads(payload) for topic, payload in kept.payloads if topic == "emotion/demo/"]
    assert [message["latency_ms"]["total"] for message in estimates] == [0, 10, 20, 30, 40]
    assert estimates[0]["latency_ms"] == {"total": 0, "detect": 1.5, "fusion": 0.2}
    assert estimates[3]["t_publish_ns"] == 1_030_000_000
    assert estimates[0]["wall"] == "2023-11-14T22:13:20.250Z"


def test_annotation_has_no_latency() -> None:
    kept = Kept()
    Sinks([kept], now_ns=lambda: 5).publish(estimate(latency_ms=None))
    assert json.loads(kept.payloads[0][1])["latency_ms"] is None


def test_words_stay_on_the_screen_unless_asked_for() -> None:
    wire, screen = Kept(), Kept()
    sinks = Sinks([wire], local=[screen], now_ns=lambda: 0)
    sinks.publish(transcript())
    sinks.publish(estimate())
    assert [topic for topic, _ in wire.payloads] == ["emotion/demo/"]
    assert [topic for topic, _ in screen.payloads] == ["transcript/demo/", "emotion/demo/"]
    asked = Kept()
    Sinks([asked], now_ns=lambda: 0, transcript=True).publish(transcript())
    assert [topic for topic, _ in asked.payloads] == ["transcript/demo/"]


def test_closing_closes_each_sink_once_and_ends_publishing() -> None:
    wire, screen = Kept(), Kept()
    sinks = Sinks([wire], local=[screen], now_ns=lambda: 0)
    sinks.close()
    sinks.close()
    sinks.publish(estimate())
    assert (wire.closed, screen.closed, wire.messages, screen.messages) == (1, 1, [], [])


def test_a_subscriber_that_never_reads_holds_nobody_up(context: zmq.Context[Any]) -> None:
    publisher = Publisher(LOOPBACK, high_water_mark=10)
    sinks = Sinks([publisher], now_ns=lambda: 0)
    stuck = context.socket(zmq.SUB)
    stuck.setsockopt(zmq.RCVHWM, 1)
    stuck.setsockopt(zmq.RCVBUF, 4096)
    stuck.setsockopt_string(zmq.SUBSCRIBE, "")
    stuck.connect(publisher.endpoint)
    reading = subscriber(context, publisher, "health/")
    publish_until_heard(sinks, stuck, estimate())
    publish_until_heard(sinks, reading, health())
    for _ in range(8_000):  # 12 MB, far beyond every buffer: this ends only if nothing waits
        sinks.publish(estimate())
    last = sinks.publish(health())
    assert drain(reading, last.seq)[-1]["seq"] == last.seq
    sinks.close()


def test_a_hundred_subscribers_hear_it_and_half_of_them_leave(context: zmq.Context[Any]) -> None:
    publisher = Publisher(LOOPBACK)
    sinks = Sinks([publisher], now_ns=lambda: 0)
    sockets = [subscriber(context, publisher, "emotion/") for _ in range(100)]
    for socket in sockets:
        publish_until_heard(sinks, socket, estimate())
    for socket in sockets[::2]:
        socket.close(linger=0)
    last = sinks.publish(estimate())
    for socket in sockets[1::2]:
        assert drain(socket, last.seq)[-1]["seq"] == last.seq
    sinks.close()


def test_several_threads_share_one_numbering() -> None:
    kept = Kept()
    sinks = Sinks([kept], now_ns=lambda: 0)

    def work() -> None:
        for _ in range(200):
            sinks.publish(estimate())

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [message.seq for message in kept.messages] == list(range(800))


def test_what_was_published_before_closing_still_arrives(context: zmq.Context[Any]) -> None:
    publisher = Publisher(LOOPBACK)
    sinks = Sinks([publisher], now_ns=lambda: 0)
    socket = subscriber(context, publisher)
    publish_until_heard(sinks, socket, estimate())
    last = sinks.publish(estimate())
    sinks.close()
    assert drain(socket, last.seq)[-1]["seq"] == last.seq


def test_a_late_subscriber_gets_the_last_message_of_other_topics(context: zmq.Context[Any]) -> None:
    publisher = Publisher(LOOPBACK, replay=True)
    sinks = Sinks([publisher], now_ns=lambda: 0)
    sinks.publish(health(uptime_s=1.0))
    sinks.publish(health(uptime_s=2.0))
    late = subscriber(context, publisher, "health/demo/")
    publish_until_heard(sinks, late, estimate())
    assert json.loads(late.recv_multipart()[1])["uptime_s"] == 2.0
    sinks.close()


def test_encoding_is_done_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Message] = []

    def counted(message: Message) -> bytes:
        calls.append(message)
        return encode(message)

    monkeypatch.setattr("realtime.publish.encode", counted)
    first, second = Kept(), Kept()
    Sinks([first, second], now_ns=lambda: 0).publish(estimate())
    assert len(calls) == 1
    assert first.payloads[0][1] is second.payloads[0][1]


def test_no_run_is_read_as_a_number() -> None:
    for run in {new_run() for _ in range(1000)}:
        assert len(run) == 8 and int(run, 16)
        with pytest.raises(ValueError):
            float(run)
