"""What is done with words at their posts: read for emotion, and given to the language model at each pause."""

from __future__ import annotations

import queue
from collections.abc import Callable
from typing import TYPE_CHECKING

from realtime.clock import Clock
from realtime.exchange import Exchange
from realtime.hearing import Said
from realtime.waits import WAIT_S, Waits
from realtime.workers import Shift

if TYPE_CHECKING:
    from realtime.reading import Enriching, Reading

Words = queue.Queue[Said | None]
"""Transcripts on their way to be read; None ends it."""


class Read:
    """Runs the text branch on what was said, and passes utterances on to the language model at each pause."""

    def __init__(
        self,
        build: Callable[[], Reading],
        exchange: Exchange,
        clock: Clock,
        words: Words,
        ended: Words | None,
    ) -> None:
        self.waits = Waits(self._waiting_ms)
        self._build, self._exchange, self._clock = build, exchange, clock
        self._words, self._ended = words, ended

    def __call__(self, shift: Shift) -> None:
        stage = self._build()
        self._exchange.use(shift, stage.engines)
        while not shift.stop.is_set():
            try:
                said = self._words.get(timeout=WAIT_S)
            except queue.Empty:
                shift.idle()
                continue
            if said is None:
                return
            if self._superseded(said):
                continue
            if said.enrichment is None:
                self.waits.note(self._age_ms(said))
            for report in stage.read(said):
                self._exchange.hand_over(shift, report)
            ended = self._ended
            if (said.final or said.paused) and said.enrichment is None and ended is not None:
                offer(ended, said, shift, "unenriched utterances")
            shift.beat()

    def go_on_alone(self) -> None:
        """The language model is off for good, or there is none: nothing is passed on to it any more."""
        self._ended = None

    def _superseded(self, said: Said) -> bool:
        """Whether more words of the same utterance are waiting already."""
        with self._words.mutex:
            waiting = [other for other in self._words.queue if other is not None]
        later = (other for other in waiting if other.utterance == said.utterance)
        return not said.final and any(other.new or other.final for other in later)

    def _age_ms(self, said: Said) -> float:
        return (self._clock.monotonic_ns() - said.heard_ns) * 1e-6

    def _waiting_ms(self) -> float:
        with self._words.mutex:
            waiting = [said for said in self._words.queue if said is not None and said.enrichment is None]
        return self._age_ms(waiting[0]) if waiting else 0.0


class Enrich:
    """Runs the language model on utterances that have paused or ended; nothing waits for it."""

    def __init__(
        self, build: Callable[[], Enriching | None], exchange: Exchange, ended: Words, words: Words
    ) -> None:
        """``build`` gives None where there is no language model; then the worker ends at once."""
        self._build, self._exchange, self._ended, self._words = build, exchange, ended, words

    def __call__(self, shift: Shift) -> None:
        stage = self._build()
        if stage is None:
            return
        try:
            self._exchange.use(shift, stage.engines)
            while not shift.stop.is_set():
                try:
                    said = self._ended.get(timeout=WAIT_S)
                except queue.Empty:
                    shift.idle()
                    continue
                if said is None:
                    return
                found = stage.enrich(said, shift.idle)
                shift.beat()
                if found is not None:
                    self._exchange.hand_over(shift, found)
                    offer(self._words, found, shift, "unread words")
        finally:
            stage.close()


def offer(words: Words, said: Said | None, shift: Shift | None = None, cause: str = "") -> None:
    """Put without waiting; the oldest gives way, and is counted for ``shift`` as dropped for that ``cause``."""
    while True:
        try:
            words.put_nowait(said)
            return
        except queue.Full:
            try:
                words.get_nowait()
                if shift is not None:
                    shift.drops[cause] += 1
            except queue.Empty:
                continue
