"""Annotation (--fast): the same stages, driven by one thread through every sample of a file, on media time.

Lossless and deterministic: nothing is dropped, nothing waits, and ages, smoothing and rate run on media time.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator

import numpy as np

from ecmf.errors import WeightError
from realtime.assemble import Job
from realtime.clock import MediaClock
from realtime.estimator import Report
from realtime.hearing import Hearing, Said, Sound
from realtime.message import EngineUse
from realtime.reading import Enriching, Reading
from realtime.sources.base import SAMPLE_RATE, AudioBlock, Frame
from realtime.stages import Looking, use_of
from realtime.stream import Stream
from realtime.summary import Summary

log = logging.getLogger("ecmf.annotate")

CUT_OFF_S = 1.0
"""Seconds by which a recording may be shorter than its header says."""


class Readers:
    """The text branch and the language model, one after the other."""

    def __init__(self, reading: Reading, enriching: Enriching | None) -> None:
        self._reading = reading
        self._enriching = enriching
        self.engines = reading.engines | (enriching.engines if enriching is not None else {})

    def read(self, said: Said) -> Iterator[Report | Said]:
        """Everything that one transcript leads to, in order."""
        yield from self._reading.read(said)
        if self._enriching is None or not said.final:
            return
        try:
            found = self._enriching.enrich(said)
        except WeightError as error:
            log.warning("enrichment is off: %s", error)
            self._enriching = None
            self.engines.pop("enrichment", None)
            return
        if found is not None:
            yield found
            yield from self._reading.read(found)


class Annotation:
    """Runs a file to its end, or to ``duration`` of media time after the first estimate."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._stop = threading.Event()

    def stop(self) -> None:
        """Ask the run to end after the sample at hand; safe from any thread."""
        self._stop.set()

    def run(self) -> Summary:
        """Block until the end. Raises EcmfError when a part that was asked for cannot start."""
        job = self._job
        assert job.inputs.media is not None
        head = job.models.head()
        pictures: list[Looking] = []
        if job.inputs.video is not None:
            pictures = [job.models.face(), job.models.scene()]
        hearing = job.models.hearing() if job.inputs.audio is not None else None
        reading: Readers | None = None
        if hearing is not None and job.models.transcribes:
            reading = Readers(job.models.reading(), job.models.enriching() if job.models.enriches else None)
        parts = [part for part in (*pictures, hearing, reading) if part is not None]

        def engines() -> dict[str, EngineUse]:
            """Asked anew each time: the language model may be given up on the way."""
            return {"fusion": use_of(head.engine)} | {
                branch: use for part in parts for branch, use in part.engines.items()
            }

        clock = MediaClock()
        stream = Stream(
            job.models.estimator(head, job.inputs),
            job.publish,
            clock=clock,
            run=job.run,
            source=job.config.source_name,
            labels=head.labels,
            model=head.bundle.id,
            engines=engines,
            timed=False,
        )
        started_ns: int | None = None
        duration_s = job.config.input.duration_s
        try:
            for sample in job.inputs.media.samples(self._stop):
                clock.advance_to(sample.end_ns)
                for outcome in self._perceive(sample, pictures, hearing, reading):
                    self._take(stream, outcome)
                if stream.tally.estimates and started_ns is None:
                    started_ns = sample.end_ns
                spent_s = 0.0 if started_ns is None else (sample.end_ns - started_ns) * 1e-9
                if duration_s is not None and spent_s >= duration_s:
                    break
            else:
                for outcome in self._finish(hearing, reading, clock):
                    self._take(stream, outcome)
                self._compare_length(clock.monotonic_ns() * 1e-9)
        finally:
            job.inputs.close()
        return stream.tally.summary({}, {name: f"{u.backend} {u.precision}" for name, u in engines().items()})

    def _compare_length(self, reached_s: float) -> None:
        """One that was cut off often decodes without an error up to there; the rest would be missing quietly."""
        inputs = self._job.inputs
        assert inputs.media is not None
        stated_s = inputs.media.duration_s
        whole = not self._stop.is_set() and self._job.config.input.mic != "off"
        if whole and stated_s is not None and reached_s < stated_s - CUT_OFF_S:
            log.warning(
                "%s ended after %.1f s, but its header says %.1f s; was it cut off?",
                inputs.media.name,
                reached_s,
                stated_s,
            )

    @staticmethod
    def _take(stream: Stream, outcome: Report | Said) -> None:
        if isinstance(outcome, Report):
            stream.take(outcome)
        else:
            stream.say(outcome)

    @staticmethod
    def _finish(
        hearing: Hearing | None, reading: Readers | None, clock: MediaClock
    ) -> Iterator[Report | Said]:
        """What is still to be settled when the file is over."""
        if hearing is None:
            return
        now_ns = clock.monotonic_ns()
        nothing = Sound(np.zeros(0, np.float32), now_ns, "file", now_ns * 1e-9)
        for outcome in hearing.finish(nothing):
            yield outcome
            if isinstance(outcome, Said) and reading is not None:
                yield from reading.read(outcome)

    def _perceive(
        self,
        sample: Frame | AudioBlock,
        pictures: list[Looking],
        hearing: Hearing | None,
        reading: Readers | None,
    ) -> Iterator[Report | Said]:
        """Everything that one sample leads to, in order."""
        if isinstance(sample, Frame):
            if self._job.on_frame is not None:
                self._job.on_frame(sample)
            yield from (report for stage in pictures if (report := stage.see(sample, 0.0)) is not None)
            return
        assert hearing is not None
        end_s = None if sample.media_s is None else sample.media_s + len(sample.samples) / SAMPLE_RATE
        for outcome in hearing.hear(Sound(sample.samples, sample.start_ns, sample.clock, end_s)):
            yield outcome
            if isinstance(outcome, Said) and reading is not None:
                yield from reading.read(outcome)
