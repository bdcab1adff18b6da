"""The live pipeline: capture threads, one worker per branch, and the fusion loop that publishes."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial

from ecmf.cue import Modality
from ecmf.errors import EcmfError, EngineError
from realtime.assemble import Job
from realtime.checkup import Checkup
from realtime.clock import Clock, SystemClock
from realtime.estimator import Report
from realtime.exchange import Exchange, Outcome
from realtime.message import WorkerState
from realtime.post_words import Enrich, Read, Words, offer
from realtime.posts import Capture, Listen, Look, Record
from realtime.priority import giving_way, share_the_interpreter
from realtime.sources.base import Frame
from realtime.stages import use_of
from realtime.starvation import Starvation
from realtime.stream import Stream
from realtime.summary import Summary
from realtime.waits import Waits
from realtime.window import AudioRing, LatestFrame
from realtime.workers import PAUSE_S, STEP_NS, Restarts, Shift, Worker

log = logging.getLogger("ecmf.pipeline")

RING_S = 30.0
"""Sound kept for the slowest reader."""
AWAITED = frozenset({"face", "scene", "speech"})
"""Workers whose stage must be loaded before the sources start; words come seconds later anyway."""
UTTERANCES = 16
"""Transcripts that may wait to be read."""
FEEDS: Mapping[str, tuple[Modality, ...]] = {
    "camera": ("face", "scene"),
    "face": ("face",),
    "scene": ("scene",),
    "microphone": ("voice", "text"),
    "speech": ("voice", "text"),
    "text": ("text",),
}
"""The modalities that end with a worker."""
ENDED = 4
"""Ended utterances that may wait for the language model."""
RELOAD_S = 15.0
"""Before the language model is loaded again after it failed: nothing is urgent about it, and a file may come back."""
ENRICHMENT_HANG_S = 30.0
"""It gives way to everything else, so on a busy machine a few words may take it long."""
SILENT_NS = 500_000_000
"""After this long without a report a tick says where things stand."""
HEALTH_NS = 1_000_000_000
WATCH_NS = 1_000_000_000
"""Between two looks at the workers' signs of life."""
PATIENCE = 0.1
"""So slowly does a worker's silence count, at least, while others in the process wait for a processor, whom it may be
waiting for. While its own thread waits for one it does not count at all."""
STOP_S = 1.0
"""How long stopping waits for all the workers together; they are daemons, so none can keep the process alive."""


class Pipeline:
    """Runs from ``run`` until the sources end, ``duration`` is over, or ``stop`` is called."""

    def __init__(self, job: Job, *, clock: Clock | None = None, reload_s: float = RELOAD_S) -> None:
        self._job = job
        self._clock = clock or SystemClock()
        self._reload_s = reload_s
        self._stop = threading.Event()
        self._failure: EcmfError | None = None
        self._exchange = Exchange()
        self._workers: list[Worker] = []
        self._waits: dict[str, Waits] = {}
        self._capture: Capture | None = None
        self._mishaps = Restarts()
        self._failed = 0
        self._mishap: str | None = None

    def stop(self) -> None:
        """Ask the run to end; safe from a signal handler and from any thread."""
        self._stop.set()

    def run(self) -> Summary:
        """Block until the end. Raises EcmfError when a part that was asked for cannot start."""
        share_the_interpreter()
        try:
            stream = self._stream()
            self._lay_out()
            for worker in self._workers:
                worker.start()
            self._fuse(stream)
        finally:
            self._shut_down()
        if self._failure is not None:
            raise self._failure
        return stream.tally.summary(
            {f"{w.name}: {cause}": n for w in self._workers for cause, n in w.report().drops.items()},
            {name: f"{use.backend} {use.precision}" for name, use in self._exchange.engines.items()},
            tuple(f"{w.name} {w.reason}" for w in self._workers if w.reason),
        )

    def _stream(self) -> Stream:
        """The fusion end, with its head loaded."""
        job = self._job
        head = job.models.head()
        self._exchange.runs("fusion", {"fusion": use_of(head.engine)})
        return Stream(
            job.models.estimator(head, job.inputs),
            job.publish,
            clock=self._clock,
            run=job.run,
            source=job.config.source_name,
            labels=head.labels,
            model=head.bundle.id,
            engines=lambda: self._exchange.engines,
        )

    def _lay_out(self) -> None:
        """Create the workers and what lies between them."""
        video, audio, models = self._job.inputs.video, self._job.inputs.audio, self._job.models
        exchange, clock = self._exchange, self._clock
        if video is not None:
            slots: tuple[LatestFrame[Frame], LatestFrame[Frame]] = (LatestFrame(), LatestFrame())
            self._capture = capture = Capture(video, exchange, self._await_stages, *slots)
            face_s, scene_s = (
                (lambda: exchange.effort.face_period_s),
                (lambda: exchange.effort.scene_period_s),
            )
            # A device that hangs is its source's affair, which says that it is lost; a second thread cannot open it.
            self._add("camera", capture, capture.close, expected=lambda: False)
            face = Look(models.face, exchange, clock, slots[0], face_s, self._job.on_frame)
            self._add("face", face, waits=face.waits)
            scene = Look(models.scene, exchange, clock, slots[1], scene_s, after=face)
            self._add("scene", scene, waits=scene.waits)
        if audio is not None:
            ring = AudioRing(RING_S)
            words: Words | None = queue.Queue(UTTERANCES) if models.transcribes else None
            ended: Words | None = queue.Queue(ENDED) if models.enriches else None
            record = Record(audio, exchange, self._await_stages, ring)
            self._add("microphone", record, record.close, expected=lambda: False)
            listen = Listen(models.hearing, exchange, ring, words)
            self._add("speech", listen, _ender(words), waits=listen.waits)
            if words is not None:
                read = Read(models.reading, exchange, clock, words, ended)
                self._add("text", read, _ender(ended), waits=read.waits)
                if ended is not None:
                    enrich = Enrich(models.enriching, exchange, ended, words)
                    self._add(
                        "enrichment",
                        enrich,
                        read.go_on_alone,
                        pause_s=self._reload_s,
                        hang_s=ENRICHMENT_HANG_S,
                    )

    def _add(
        self,
        name: str,
        body: Callable[[Shift], None],
        on_end: Callable[[], object] | None = None,
        *,
        expected: Callable[[], bool] = lambda: True,
        pause_s: float = PAUSE_S,
        hang_s: float | None = None,
        waits: Waits | None = None,
    ) -> None:
        if waits is not None:
            self._waits[name] = waits
        self._workers.append(
            Worker(
                name,
                giving_way(name, body),
                clock=self._clock,
                stop=self._stop,
                expected=expected,
                pause_s=pause_s,
                hang_s=hang_s,
                on_down=lambda worker: self._exchange.runs(worker.name, None),
                on_off=self._gave_up,
                on_end=on_end,
            )
        )

    def _gave_up(self, worker: Worker, error: Exception) -> None:
        """A worker is off for good. One that never started was asked for and cannot be: the run ends with its error;
        without one that did, the others go on.
        """
        if worker.worked:
            return
        failure = error if isinstance(error, EcmfError) else None
        if failure is None and worker.name in AWAITED:
            said = " ".join(str(error).split()) or type(error).__name__
            failure = EngineError(
                f"{worker.name} cannot start ({said}); free some memory, or leave parts out: "
                "--llm off, --asr off, --mic off"
            )
        if failure is not None:
            self._failure = self._failure or failure
            self._stop.set()

    def _await_stages(self, shift: Shift) -> None:
        """Hold the sources until what must keep up with them is loaded, so that nothing grows old meanwhile."""
        while not shift.stop.wait(0.01):
            awaited = [w for w in self._workers if w.name in AWAITED and not w.finished]
            if all(w.worked for w in awaited):
                return

    def _fuse(self, stream: Stream) -> None:
        """The loop: a report triggers, silence ticks; the workers are watched, and health is told once a second."""
        job = self._job
        duration_s = job.config.input.duration_s
        checkup = Checkup(
            job.config, job.inputs, self._exchange, self._workers, self._waits, run=job.run, clock=self._clock
        )
        starvation = Starvation()
        last_ns = watched_ns = self._clock.monotonic_ns()
        health_ns = last_ns + HEALTH_NS
        told = 0
        while not self._stop.is_set():
            outcome = self._exchange.take(0.1)
            now_ns = self._clock.monotonic_ns()
            if isinstance(outcome, Report):
                last_ns = now_ns
            if outcome is not None or (stream.tally.estimates and now_ns - last_ns > SILENT_NS):
                self._tell(stream, outcome, now_ns)
            first_ns = stream.tally.first_ns
            if duration_s is not None and first_ns is not None and now_ns - first_ns >= duration_s * 1e9:
                return
            if now_ns - watched_ns >= WATCH_NS:
                patience = max(PATIENCE, 1 - starvation.share())
                for worker in self._workers:
                    awake = patience * (1 - starvation.of(worker.native_id))
                    worker.watch(round(awake * min(now_ns - watched_ns, STEP_NS)))
                    for modality in FEEDS.get(worker.name, ()) if worker.off else ():
                        stream.switch_off(modality)
                watched_ns = now_ns
            if now_ns >= health_ns:
                since_s = (now_ns - health_ns + HEALTH_NS) * 1e-9
                job.publish(
                    checkup.health(self._capture, self._fusion((stream.tally.estimates - told) / since_s))
                )
                told = stream.tally.estimates
                health_ns = now_ns + HEALTH_NS - (now_ns - health_ns) % HEALTH_NS
            if outcome is None and all(worker.finished for worker in self._workers):
                return

    def _tell(self, stream: Stream, outcome: Outcome | None, now_ns: int) -> None:
        """Publish what an outcome triggers. One that fails is left out and counted; too many in a row end the run."""
        try:
            if isinstance(outcome, Report):
                stream.take(outcome)
            elif outcome is not None:
                stream.say(outcome)
            else:
                stream.tick()
        except EcmfError:
            raise  # a person's affair: a head that does not fit, a disk that is full
        except Exception as error:  # as in a worker: what one report does wrong must not end the others
            self._failed += 1
            self._mishap = f"{type(error).__name__}: {error}"
            log.warning("fusion failed (%s); going on without this report", self._mishap)
            log.debug("fusion failed here", exc_info=error)
            if not self._mishaps.admit(now_ns):
                raise EngineError(f"fusion keeps failing ({self._mishap}); try another --engine") from error

    def _fusion(self, rate_hz: float) -> WorkerState:
        """The fusion loop as health tells it, beside the workers."""
        return WorkerState(
            alive=True,
            rate_hz=round(rate_hz, 2),
            drops={"failed": self._failed} if self._failed else {},
            reason=self._mishap and f"failed: {self._mishap}",
        )

    def _shut_down(self) -> None:
        self._stop.set()
        self._job.inputs.close()
        deadline_s = time.monotonic() + STOP_S
        for worker in self._workers:
            if not worker.join(max(0.0, deadline_s - time.monotonic())):
                log.warning("%s did not stop in %.1f s", worker.name, STOP_S)


def _ender(words: Words | None) -> Callable[[], object] | None:
    """Tells those who read from there that nothing more comes."""
    return None if words is None else partial(offer, words, None)
