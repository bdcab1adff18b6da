"""What each worker does at its post: take what waits, run its stage, hand over what comes out."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from realtime.clock import Clock
from realtime.estimator import Report
from realtime.exchange import Exchange
from realtime.hearing import Hearing, Said, Sound
from realtime.sources.base import SAMPLE_RATE, AudioSource, Frame, VideoSource
from realtime.stages import Looking
from realtime.window import AudioRing, LatestFrame
from realtime.workers import Shift

if TYPE_CHECKING:
    from realtime.reading import Enriching, Reading

HOP = 2048
"""Samples the speech worker takes at a time, 128 ms; how often it reports is the stage's affair."""
WAIT_S = 0.25
"""Longest wait for work; then a sign of life."""

Words = queue.Queue[Said | None]
"""Transcripts on their way to be read; None ends it."""


class Waits:
    """The longest that a sample waited for its worker since it was last asked, or has been waiting."""

    def __init__(self, waiting_ms: Callable[[], float]) -> None:
        """``waiting_ms``: of the sample that waits now, while the worker is busy with another."""
        self._waiting_ms = waiting_ms
        self._longest_ms = 0.0
        self._lock = threading.Lock()

    def note(self, waited_ms: float) -> None:
        with self._lock:
            self._longest_ms = max(self._longest_ms, waited_ms)

    def longest_ms(self) -> float:
        """And begin anew."""
        with self._lock:
            longest, self._longest_ms = self._longest_ms, 0.0
        return max(longest, self._waiting_ms())


class Capture:
    """Pictures from the source to those who look."""

    def __init__(
        self,
        source: VideoSource,
        exchange: Exchange,
        ready: Callable[[Shift], None],
        *slots: LatestFrame[Frame],
    ) -> None:
        """``ready`` waits until the stages that must keep up are loaded, so that nothing grows old meanwhile."""
        self._source, self._exchange, self._ready, self._slots = source, exchange, ready, slots
        self.captured = 0

    def __call__(self, shift: Shift) -> None:
        self._ready(shift)
        for frame in self._source.frames(shift.stop):
            shift.beat()
            self._exchange.clocks["picture"] = frame.clock
            if not frame.repeated:  # a frozen picture grows old, which is no skew
                self._exchange.skew.picture(frame.end_ns)
            for slot in self._slots:
                slot.put(frame)
            self.captured += 1
            shift.drops["late"] = self._slots[0].dropped

    def close(self) -> None:
        for slot in self._slots:
            slot.close()


class Record:
    """Sound from the source into the ring."""

    def __init__(
        self, source: AudioSource, exchange: Exchange, ready: Callable[[Shift], None], ring: AudioRing
    ) -> None:
        self._source, self._exchange, self._ready, self._ring = source, exchange, ready, ring

    def __call__(self, shift: Shift) -> None:
        self._ready(shift)
        for block in self._source.blocks(shift.stop):
            shift.beat()
            self._exchange.clocks["sound"] = block.clock
            self._exchange.skew.sound(block.end_ns)
            self._ring.write(block)
            shift.drops["overflow"] = self._source.overflows

    def close(self) -> None:
        self._ring.close()


class Look:
    """Runs a stage on the latest frame."""

    def __init__(
        self,
        build: Callable[[], Looking],
        exchange: Exchange,
        clock: Clock,
        slot: LatestFrame[Frame],
        period_s: Callable[[], float],
        on_frame: Callable[[Frame], None] | None = None,
    ) -> None:
        """``build`` makes the stage, on the worker's own thread; ``period_s``: how often it is to look now."""
        self.waits = Waits(self._waiting_ms)
        self._build, self._exchange, self._clock, self._slot = build, exchange, clock, slot
        self._period_s, self._on_frame = period_s, on_frame
        self._persons = 0
        """Numbers given to persons before this shift; a new stage begins again from the start."""
        self._highest = 0

    def __call__(self, shift: Shift) -> None:
        stage = self._build()
        self._exchange.use(shift, stage.engines)
        self._persons = self._highest
        while not shift.stop.is_set():
            frame = self._slot.take(WAIT_S)
            if frame is None:
                if self._slot.closed:
                    return
                shift.idle()
                continue
            if self._on_frame is not None:
                self._on_frame(frame)
            stage.period_s = self._period_s()
            waited_ms = self._age_ms(frame)
            report = stage.see(frame, waited_ms)
            if report is None:
                shift.idle()
                continue
            shift.beat()
            if not frame.repeated:
                self.waits.note(waited_ms)
            self._exchange.hand_over(shift, self._numbered(report))

    def _age_ms(self, frame: Frame) -> float:
        return (self._clock.monotonic_ns() - frame.end_ns) * 1e-6

    def _waiting_ms(self) -> float:
        frame = self._slot.waiting
        return self._age_ms(frame) if frame is not None and not frame.repeated else 0.0

    def _numbered(self, report: Report) -> Report:
        """With persons who are nobody else in this run, though the stage may have been built anew."""
        seen = [cue.person for cue in report.cues if cue.person is not None]
        self._highest = max([self._highest, *(self._persons + person + 1 for person in seen)])
        if not self._persons or not seen:
            return report
        cues = tuple(
            replace(cue, person=None if cue.person is None else cue.person + self._persons)
            for cue in report.cues
        )
        return replace(report, cues=cues)


class Listen:
    """Runs the hearing stage on whatever sound is new."""

    def __init__(
        self, build: Callable[[], Hearing], exchange: Exchange, ring: AudioRing, words: Words | None
    ) -> None:
        self.waits = Waits(self._waiting_ms)
        self._build, self._exchange, self._ring, self._words = build, exchange, ring, words
        self._position: int | None = None
        """Of the next sample to take; None until the stage is loaded."""
        self._utterances = 0

    def __call__(self, shift: Shift) -> None:
        stage = self._build()
        stage.prepare()
        ring = self._ring
        position, before = ring.written, self._utterances
        self._position = position
        self._exchange.use(shift, stage.engines)
        while not shift.stop.is_set():
            if not ring.wait(position + HOP, WAIT_S) and not ring.closed:
                shift.idle()
                continue
            self.waits.note(self._waiting_ms())
            window = ring.after(position)
            position = self._position = window.position + len(window.samples)
            sound = Sound(window.samples, window.start_ns, window.clock, window.media_end_s)
            over = ring.closed and not len(window.samples)
            stage.words_hop_s = self._exchange.effort.words_hop_s
            for outcome in stage.finish(sound) if over else stage.hear(sound):
                if isinstance(outcome, Said):
                    outcome = replace(outcome, utterance=outcome.utterance + before)
                    self._utterances = max(self._utterances, outcome.utterance + 1)
                self._exchange.hand_over(shift, outcome)
                if isinstance(outcome, Said) and self._words is not None:
                    offer(self._words, outcome, shift)
            shift.drops["overrun samples"] = ring.overruns
            shift.drops["unwritten seconds"] = round(stage.skipped_s)
            shift.beat()
            if over:
                return

    def _waiting_ms(self) -> float:
        return 0.0 if self._position is None else (self._ring.written - self._position) * 1000 / SAMPLE_RATE


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
                offer(ended, said, shift)
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
                    offer(self._words, found, shift)
        finally:
            stage.close()


def offer(words: Words, said: Said | None, shift: Shift | None = None) -> None:
    """Put without waiting; the oldest gives way, and is counted for ``shift``."""
    while True:
        try:
            words.put_nowait(said)
            return
        except queue.Full:
            try:
                words.get_nowait()
                if shift is not None:
                    shift.drops["unread words"] += 1
            except queue.Empty:
                continue
