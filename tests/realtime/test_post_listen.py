"""A listening worker that dies: what it had begun to write down is brought to its end by the one after it."""

from __future__ import annotations

import itertools
import queue
import threading
from collections.abc import Iterator
from typing import cast

import numpy as np

from ecmf.errors import EngineError
from ecmf.transcript import Word
from realtime.clock import FakeClock
from realtime.exchange import Exchange
from realtime.hearing import Hearing, Said, Sound
from realtime.message import EngineUse
from realtime.post_words import Words
from realtime.posts import HOP, Listen
from realtime.sources.base import SAMPLE_NS, AudioBlock
from realtime.window import AudioRing
from realtime.workers import Worker


class Dying:
    """Hears a word of a first utterance, a guess of a second, and dies; in its second life it hears a third."""

    words_hop_s = 0.0
    skipped_s = 0.0

    def __init__(self, life: int, ring: AudioRing) -> None:
        self._life, self._ring = life, ring

    @property
    def engines(self) -> dict[str, EngineUse]:
        """Asked for when the worker begins to listen: only now there is sound, and in its second life the last."""
        start_ns = self._life * HOP * SAMPLE_NS
        self._ring.write(
            AudioBlock(np.zeros(HOP, np.float32), start_ns, start_ns + HOP * SAMPLE_NS, "file", None)
        )
        if self._life == 2:
            self._ring.close()
        return {}

    def prepare(self) -> None: ...

    def hear(self, sound: Sound) -> Iterator[Said]:
        def said(number: int, text: str, *, final: bool = False) -> Said:
            words = (Word(text, 0, 1, 1.0),) if text else ()
            return Said(number, text, "pa", words, final, 0, 1, sound.end_ns, sound.clock, None, {})

        if self._life == 1:
            yield said(1, "ended", final=True)
            yield said(2, "")
            yield said(3, "begun")
            raise EngineError("the engine is gone")
        yield said(1, "new", final=True)

    def finish(self, sound: Sound) -> Iterator[Said]:
        return iter(())


def test_what_a_worker_had_begun_ends_when_the_next_one_listens() -> None:
    lives = itertools.count(1)
    exchange, ring, words = Exchange(), AudioRing(10), cast(Words, queue.Queue(16))
    over = threading.Event()

    def build() -> Hearing:
        return cast(Hearing, Dying(next(lives), ring))

    post = Listen(build, exchange, ring, words)
    Worker("speech", post, clock=FakeClock(), pause_s=0.0, on_end=over.set).start()
    assert over.wait(30)

    told = [outcome for _ in range(5) if isinstance(outcome := exchange.take(1), Said)]
    assert [(each.utterance, each.text, each.final) for each in told] == [
        (1, "ended", True),
        (2, "", False),
        (3, "begun", False),
        (3, "begun", True),
        (5, "new", True),
    ]
    assert told[3].new == () and told[3].partial == ""
    assert words.qsize() == 5


class Endless(Dying):
    """Hears a first utterance that gets no end and a guess of a second, and dies."""

    def hear(self, sound: Sound) -> Iterator[Said]:
        if self._life == 1:
            for number, text in ((1, "."), (2, "")):
                yield Said(number, text, "pa", (), False, 0, 1, sound.end_ns, sound.clock, None, {})
            raise EngineError("the engine is gone")


def test_an_utterance_is_not_kept_when_a_newer_one_is_heard_of() -> None:
    lives = itertools.count(1)
    exchange, ring, words = Exchange(), AudioRing(10), cast(Words, queue.Queue(16))
    over = threading.Event()
    post = Listen(lambda: cast(Hearing, Endless(next(lives), ring)), exchange, ring, words)
    Worker("speech", post, clock=FakeClock(), pause_s=0.0, on_end=over.set).start()
    assert over.wait(30)
    told = [words.get_nowait() for _ in range(words.qsize())]
    assert [(each.utterance, each.final) for each in told if each is not None] == [(1, False), (2, False)]
