"""What workers do at their posts with pictures and sound: take what waits, run a stage, hand over what comes out."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace

from realtime.clock import Clock
from realtime.estimator import Report
from realtime.exchange import Exchange
from realtime.hearing import Hearing, Said, Sound
from realtime.post_words import Words, offer
from realtime.sources.base import SAMPLE_RATE, AudioSource, Frame, VideoSource
from realtime.stages import Looking
from realtime.waits import WAIT_S, Waits
from realtime.window import AudioRing, LatestFrame
from realtime.workers import Shift

HOP = 2048
"""Samples the speech worker takes at a time, 128 ms; how often it reports is the stage's affair."""

AFTER_S = 0.1
"""Longest wait for who looks first: twice what a face takes on a busy machine."""


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
        *,
        after: Look | None = None,
    ) -> None:
        """``build`` makes the stage, on the worker's own thread; ``period_s``: how often it is to look now.

        ``after``: who looks at each frame first, while its stage is loaded. Two at once are slower by a third on two
        cores, and what comes first takes the other's place among the estimates of a second.
        """
        self.waits = Waits(self._waiting_ms)
        self._build, self._exchange, self._clock, self._slot = build, exchange, clock, slot
        self._period_s, self._on_frame, self._after = period_s, on_frame, after
        self._name: str | None = None
        """Of the worker at this post, as the exchange knows it; None before its first shift."""
        self._looked = threading.Condition()
        self._looked_ns = 0
        """Capture of the newest frame that has been looked at or passed over."""
        self._persons = 0
        """Numbers given to persons before this shift; a new stage begins again from the start."""
        self._highest = 0

    def __call__(self, shift: Shift) -> None:
        stage = self._build()
        self._name = shift.name
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
            if self._after is not None and stage.due(frame):
                self._after.await_look(frame.end_ns)
            waited_ms = self._age_ms(frame)
            report = stage.see(frame, waited_ms)
            if report is None:
                shift.idle()
            else:
                shift.beat()
                if not frame.repeated:
                    self.waits.note(waited_ms)
                self._exchange.hand_over(shift, self._numbered(report))
            with self._looked:
                self._looked_ns = frame.end_ns
                self._looked.notify_all()

    def await_look(self, end_ns: int) -> None:
        """Until a frame captured at ``end_ns`` or later has been looked at; AFTER_S at most, for that may never be.

        Not at all while nobody looks here: the worker is off, or its stage is being loaded.
        """
        with self._looked:
            self._looked.wait_for(lambda: self._looked_ns >= end_ns or not self._looks(), AFTER_S)

    def _looks(self) -> bool:
        return self._name is not None and self._exchange.loaded(self._name)

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
        self._open: dict[int, Said] = {}
        """Utterances with words that have not ended."""

    def __call__(self, shift: Shift) -> None:
        stage = self._build()
        stage.prepare()
        ring = self._ring
        position, before = ring.written, self._utterances
        self._position = position
        self._exchange.use(shift, stage.engines)
        # The shift that heard them has died: nothing more comes for them.
        for said in tuple(self._open.values()):
            self._tell(shift, replace(said, new=(), partial="", final=True, paused=False, stage_ms={}))
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
                    self._tell(shift, replace(outcome, utterance=outcome.utterance + before))
                else:
                    self._exchange.hand_over(shift, outcome)
            shift.drops["overrun samples"] = ring.overruns
            shift.drops["unwritten seconds"] = round(stage.skipped_s)
            shift.beat()
            if over:
                return

    def _tell(self, shift: Shift, said: Said) -> None:
        self._exchange.hand_over(shift, said)
        self._utterances = max(self._utterances, said.utterance + 1)
        # One without an end is over when a newer one is heard of.
        self._open = {number: each for number, each in self._open.items() if number > said.utterance}
        if said.text and not said.final:
            self._open[said.utterance] = said
        if self._words is not None:
            offer(self._words, said, shift, "unread words")

    def _waiting_ms(self) -> float:
        return 0.0 if self._position is None else (self._ring.written - self._position) * 1000 / SAMPLE_RATE
