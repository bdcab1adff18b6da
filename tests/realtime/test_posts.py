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


def pass_on(*, alone: bool) -> tuple[Worker, Words]:
    """Three ended utterances are read, with room for one of them on the way to the language model."""
    words, ended = cast(Words, queue.Queue(16)), cast(Words, queue.Queue(1))
    for number in range(3):
        words.put(said(number, "one", final=True))
    words.put(None)
    clock = FakeClock()
    post = Read(lambda: cast(Reading, Noting()), Exchange(), clock, words, ended)
    if alone:
        post.go_on_alone()
    worker = Worker("text", post, clock=clock)
    worker.start()
    assert worker.join(30)
    return worker, ended


def test_without_a_language_model_nothing_is_lost_on_the_way_to_it() -> None:
    worker, ended = pass_on(alone=True)
    assert ended.empty() and not worker.drops


def test_what_the_language_model_has_no_time_for_is_called_that() -> None:
    worker, ended = pass_on(alone=False)
    assert worker.drops == {"unenriched utterances": 2}
    last = ended.get_nowait()
    assert last is not None and last.utterance == 2


Told = queue.SimpleQueue[str]


class Eye:
    """A stage that says what it has seen, in a list that it shares with others, and goes on when it may."""

    def __init__(self, name: str, told: Told) -> None:
        self.engines: dict[str, EngineUse] = {name: EngineUse(backend="openvino", precision="fp32")}
        self.period_s = 0.0
        self.looks, self.may = threading.Event(), threading.Event()
        self._name, self._told = name, told

    def due(self, frame: Frame) -> bool:
        return True

    def see(self, frame: Frame, wait_ms: float) -> Report | None:
        self.looks.set()
        assert self.may.wait(30)
        self._told.put(self._name)
        return None


class Waiting(threading.Condition):
    """Tells that somebody really waits for it."""

    def __init__(self, told: Told) -> None:
        super().__init__()
        self._told = told

    def wait(self, timeout: float | None = None) -> bool:
        self._told.put("scene waits")
        return super().wait(timeout)


class TwoWhoLook:
    """Face and scene, of which the second looks after the first; the scene may look at once."""

    def __init__(self) -> None:
        self.told: Told = queue.SimpleQueue()
        """What was seen and who waited, in the order in which it was."""
        self.exchange = Exchange()
        self.face, self.scene = Eye("face", self.told), Eye("scene", self.told)
        self.scene.may.set()
        self.loads = threading.Event()
        """Until it is set the face is being loaded."""
        clock, self._slots = FakeClock(), [LatestFrame[Frame](), LatestFrame[Frame]()]
        face = Look(self._load, self.exchange, clock, self._slots[0], lambda: 0.0)
        face._looked = Waiting(self.told)
        scene = Look(
            lambda: cast(Looking, self.scene), self.exchange, clock, self._slots[1], lambda: 0.0, after=face
        )
        self._workers = [Worker(name, body, clock=clock) for name, body in (("face", face), ("scene", scene))]
        for worker in self._workers:
            worker.start()

    def _load(self) -> Looking:
        assert self.loads.wait(30)
        return cast(Looking, self.face)

    def shown_to_face(self) -> None:
        """It is loaded, and amid a look."""
        self.loads.set()
        self._slots[0].put(picture())
        assert self.face.looks.wait(30)

    def shown_to_scene(self) -> None:
        self._slots[1].put(picture())

    def ended(self) -> list[str]:
        """All that was not taken, once both have come to their end."""
        self.loads.set()
        self.face.may.set()
        for slot in self._slots:
            slot.close()
        assert all(worker.join(30) for worker in self._workers)
        return [self.told.get_nowait() for _ in range(self.told.qsize())]


def picture() -> Frame:
    return Frame(np.zeros((2, 2, 3), np.uint8), 1, 2, "read", None, 0)


def test_the_scene_is_looked_at_after_the_face(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(posts, "AFTER_S", 30.0)
    two = TwoWhoLook()
    two.shown_to_face()
    two.shown_to_scene()
    first = two.told.get(timeout=30)  # without an order it is the scene that has looked
    assert [first, *two.ended()] == ["scene waits", "face", "scene"]


def test_the_scene_does_not_wait_for_a_face_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(posts, "AFTER_S", 0.001)
    two = TwoWhoLook()
    two.shown_to_face()
    two.shown_to_scene()
    assert two.scene.looks.wait(30) and not two.face.may.is_set()
    two.ended()


def test_the_scene_does_not_wait_at_all_for_a_face_that_is_being_loaded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(posts, "AFTER_S", 30.0)
    two = TwoWhoLook()
    two.shown_to_scene()
    assert two.told.get(timeout=30) == "scene"
    two.ended()


def test_the_scene_does_not_wait_at_all_for_a_face_that_was_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(posts, "AFTER_S", 30.0)
    two = TwoWhoLook()
    two.shown_to_face()
    two.exchange.runs("face", None)
    two.shown_to_scene()
    assert two.told.get(timeout=30) == "scene"
    two.ended()
