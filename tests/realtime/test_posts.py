"""What a worker takes from its queue, and what it leaves."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from typing import cast

import numpy as np
import pytest

from ecmf.transcript import Word
from realtime import posts
from realtime.clock import FakeClock
from realtime.estimator import Report
from realtime.exchange import Exchange
from realtime.hearing import Said
from realtime.message import EngineUse
from realtime.post_words import Read, Words
from realtime.posts import Capture, Look
from realtime.reading import Reading
from realtime.sources.base import Frame, VideoSource
from realtime.stages import Looking
from realtime.window import LatestFrame
from realtime.workers import Worker


def said(number: int, text: str, *, final: bool = False, new: bool = True) -> Said:
    word = Word(text, 0, 1, 1.0)
    return Said(number, text, "", (word,) if new else (), final, 0, 1, 2, "adc", None, {})


class Frozen:
    """A camera that shows one picture again and again."""

    def frames(self, stop: threading.Event) -> Iterator[Frame]:
        image = np.zeros((2, 2, 3), np.uint8)
        for index in range(1000):
            yield Frame(image, 1, 1, "read", None, index, repeated=index > 0)


def test_a_frozen_camera_leaves_nothing_behind_in_the_skew() -> None:
    exchange, clock = Exchange(), FakeClock()
    exchange.skew.sound(1)
    capture = Capture(cast(VideoSource, Frozen()), exchange, lambda shift: None, LatestFrame())
    worker = Worker("camera", capture, clock=clock)
    worker.start()
    assert worker.join(30)
    assert capture.captured == 1000 and len(exchange.skew._seen) == 1


class Noting:
    """A stage that keeps what it is given."""

    def __init__(self) -> None:
        self.engines: dict[str, EngineUse] = {}
        self.given: list[tuple[int, str]] = []

    def read(self, said: Said) -> Iterator[Report]:
        self.given.append((said.utterance, said.text))
        return iter(())


def read(*waiting: Said) -> list[tuple[int, str]]:
    stage, clock, words = Noting(), FakeClock(), cast(Words, queue.Queue(16))
    for each in (*waiting, None):
        words.put(each)
    worker = Worker("text", Read(lambda: cast(Reading, stage), Exchange(), clock, words, None), clock=clock)
    worker.start()
    assert worker.join(30)
    return stage.given


def test_words_are_left_out_only_where_more_of_the_same_utterance_waits() -> None:
    assert read(said(1, "one"), said(1, "one two")) == [(1, "one two")]
    assert read(said(1, "one"), said(1, "one two", final=True, new=False)) == [(1, "one two")]


def test_words_are_read_whatever_else_waits() -> None:
    partial = said(1, "one", new=False)
    assert read(said(1, "one"), partial)[0] == (1, "one")
    assert read(said(1, "one"), said(2, "two")) == [(1, "one"), (2, "two")]


def test_without_a_language_model_nothing_is_lost_on_the_way_to_it() -> None:
    words, ended = cast(Words, queue.Queue(16)), cast(Words, queue.Queue(1))
    for number in range(3):
        words.put(said(number, "one", final=True))
    words.put(None)
    clock = FakeClock()
    post = Read(lambda: cast(Reading, Noting()), Exchange(), clock, words, ended)
    post.go_on_alone()
    worker = Worker("text", post, clock=clock)
    worker.start()
    assert worker.join(30)
    assert ended.empty() and not worker.drops


def test_what_the_language_model_has_no_time_for_is_called_that() -> None:
    words, ended = cast(Words, queue.Queue(16)), cast(Words, queue.Queue(1))
    for number in range(3):
        words.put(said(number, "one", final=True))
    words.put(None)
    clock = FakeClock()
    post = Read(lambda: cast(Reading, Noting()), Exchange(), clock, words, ended)
    worker = Worker("text", post, clock=clock)
    worker.start()
    assert worker.join(30)
    assert worker.drops == {"unenriched utterances": 2}
    last = ended.get_nowait()
    assert last is not None and last.utterance == 2


class Eye:
    """A stage that says when it looks, and goes on when it may."""

    def __init__(self) -> None:
        self.engines: dict[str, EngineUse] = {}
        self.period_s = 0.0
        self.looks, self.may = threading.Event(), threading.Event()

    def due(self, frame: Frame) -> bool:
        return True

    def see(self, frame: Frame, wait_ms: float) -> Report | None:
        self.looks.set()
        assert self.may.wait(30)
        return None


def two_who_look() -> tuple[Eye, Eye, list[LatestFrame[Frame]], list[Worker]]:
    """The second of them waits for the first."""
    eyes, slots, clock = (Eye(), Eye()), [LatestFrame[Frame](), LatestFrame[Frame]()], FakeClock()
    first = Look(lambda: cast(Looking, eyes[0]), Exchange(), clock, slots[0], lambda: 0.0)
    second = Look(lambda: cast(Looking, eyes[1]), Exchange(), clock, slots[1], lambda: 0.0, after=first)
    workers = [Worker(name, body, clock=clock) for name, body in (("face", first), ("scene", second))]
    for worker in workers:
        worker.start()
    return *eyes, slots, workers


def shown(slots: list[LatestFrame[Frame]]) -> None:
    for slot in slots:
        slot.put(Frame(np.zeros((2, 2, 3), np.uint8), 1, 2, "read", None, 0))


def ended(slots: list[LatestFrame[Frame]], workers: list[Worker]) -> bool:
    for slot in slots:
        slot.close()
    return all(worker.join(30) for worker in workers)


def test_the_scene_is_looked_at_after_the_face(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(posts, "AFTER_S", 30.0)
    face, scene, slots, workers = two_who_look()
    scene.may.set()
    shown(slots)
    assert face.looks.wait(30) and not scene.looks.wait(0.05)
    face.may.set()
    assert scene.looks.wait(30)
    assert ended(slots, workers)


def test_the_scene_does_not_wait_for_a_face_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(posts, "AFTER_S", 0.001)
    face, scene, slots, workers = two_who_look()
    scene.may.set()
    shown(slots)
    assert scene.looks.wait(30) and not face.may.is_set()
    face.may.set()
    assert ended(slots, workers)
