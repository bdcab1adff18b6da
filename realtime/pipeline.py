"""The live pipeline: capture threads, one worker per branch, and the fusion loop that publishes."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping

from ecmf.errors import EcmfError
from realtime.assemble import Inputs, Models
from realtime.clock import Clock, SystemClock
from realtime.config import Config
from realtime.estimator import Report
from realtime.hearing import Said, Sound
from realtime.message import EngineUse, Health, Message, WorkerState
from realtime.sources.base import AudioSource, CaptureClock, Frame, VideoSource
from realtime.stages import Looking, use_of
from realtime.stream import Stream
from realtime.summary import Summary
from realtime.window import AudioRing, LatestFrame
from realtime.workers import Worker

log = logging.getLogger("ecmf.pipeline")

RING_S = 30.0
"""Sound kept for the slowest reader."""
AWAITED = frozenset({"face", "scene", "speech"})
"""Workers whose stage must be loaded before the sources start; words come seconds later anyway."""
HOP = 2048
"""Samples the speech worker takes at a time, 128 ms; how often it reports is the stage's affair."""
UTTERANCES = 16
"""Transcripts that may wait to be read."""
BACKLOG = 64
"""Reports that may wait for the fusion loop, which needs well under a millisecond for one."""
SILENT_NS = 500_000_000
"""After this long without a report a tick says where things stand."""
HEALTH_NS = 1_000_000_000
STOP_S = 1.0
"""How long stopping waits for all the workers together; they are daemons, so none can keep the process alive."""

Outcome = Report | Said


class Pipeline:
    """Runs from ``run`` until the sources end, ``duration`` is over, or ``stop`` is called."""

    def __init__(
        self,
        config: Config,
        publish: Callable[[Message], Message],
        *,
        run: str,
        inputs: Inputs,
        models: Models,
        on_frame: Callable[[Frame], None] | None = None,
        clock: Clock | None = None,
    ) -> None:
        """``inputs`` are opened and ``models`` fetched already; branches load in their own workers.

        ``on_frame`` gets every frame the face worker takes, on that worker's thread.
        """
        self._config = config
        self._publish = publish
        self._run = run
        self._inputs = inputs
        self._models = models
        self._on_frame = on_frame
        self._clock = clock or SystemClock()
        self._stop = threading.Event()
        self._failure: EcmfError | None = None
        self._outcomes: queue.Queue[Outcome] = queue.Queue(BACKLOG)
        self._engines: Mapping[str, EngineUse] = {}
        self._loaded: set[str] = set()
        self._engines_lock = threading.Lock()
        self._workers: list[Worker] = []
        self._clocks: dict[str, CaptureClock] = {}
        self._started_ns = self._clock.monotonic_ns()

    def stop(self) -> None:
        """Ask the run to end; safe from a signal handler and from any thread."""
        self._stop.set()

    def run(self) -> Summary:
        """Block until the end. Raises EcmfError when a part that was asked for cannot start."""
        head = self._models.head()
        self._use("fusion", {"fusion": use_of(head.engine)})
        stream = Stream(
            self._models.estimator(head, self._inputs),
            self._publish,
            clock=self._clock,
            run=self._run,
            source=self._config.source_name,
            labels=head.labels,
            model=head.bundle.id,
            engines=lambda: self._engines,
        )
        self._lay_out()
        for worker in self._workers:
            worker.start()
        try:
            self._fuse(stream)
        finally:
            self._shut_down()
        if self._failure is not None:
            raise self._failure
        return stream.tally.summary(
            {f"{w.name}: {cause}": n for w in self._workers for cause, n in w.report().drops.items()},
            {name: f"{use.backend} {use.precision}" for name, use in self._engines.items()},
            tuple(f"{w.name} {w.reason}" for w in self._workers if w.reason),
        )

    def _lay_out(self) -> None:
        """Create the workers and what lies between them."""
        video, audio = self._inputs.video, self._inputs.audio
        if video is not None:
            for_face: LatestFrame[Frame] = LatestFrame()
            for_scene: LatestFrame[Frame] = LatestFrame()
            looks = (for_face, for_scene)
            self._add("camera", lambda w: self._capture(w, video, *looks), lambda: _close(*looks))
            self._add("face", lambda w: self._look(w, for_face, self._models.face, self._on_frame))
            self._add("scene", lambda w: self._look(w, for_scene, self._models.scene, None))
        if audio is not None:
            ring = AudioRing(RING_S)
            words: queue.Queue[Said | None] = queue.Queue(UTTERANCES)
            self._add("microphone", lambda w: self._record(w, audio, ring), ring.close)
            speech = self._add(
                "speech", lambda w: self._listen(w, ring, words), lambda: _offer(words, None, speech)
            )
            if self._models.transcribes:
                self._add("text", lambda w: self._read(w, words))

    def _add(
        self, name: str, body: Callable[[Worker], None], on_end: Callable[[], object] | None = None
    ) -> Worker:
        worker = Worker(name, body, clock=self._clock, on_off=self._gave_up, on_end=on_end)
        worker.stop = self._stop
        self._workers.append(worker)
        return worker

    def _gave_up(self, worker: Worker, error: Exception) -> None:
        """A worker is off for good. One that never worked was asked for and cannot be: the run ends with its error;
        without one that did, the others go on.
        """
        if not worker.worked and isinstance(error, EcmfError):
            self._failure = self._failure or error
            self._stop.set()

    def _use(self, worker: str, engines: Mapping[str, EngineUse]) -> None:
        """A worker's stage is loaded and runs these."""
        with self._engines_lock:
            self._engines = {**self._engines, **engines}
            self._loaded.add(worker)

    def _await_stages(self, worker: Worker) -> None:
        """Hold the sources until what must keep up with them is loaded, so that nothing grows old meanwhile."""
        while not worker.stop.wait(0.01):
            awaited = [w for w in self._workers if w.name in AWAITED and not w.finished]
            if all(w.name in self._loaded for w in awaited):
                return

    def _capture(self, worker: Worker, source: VideoSource, *slots: LatestFrame[Frame]) -> None:
        self._await_stages(worker)
        for frame in source.frames(worker.stop):
            self._clocks["picture"] = frame.clock
            for slot in slots:
                slot.put(frame)
            worker.drops["late"] = slots[0].dropped
            worker.beat()

    def _look(
        self,
        worker: Worker,
        slot: LatestFrame[Frame],
        build: Callable[[], Looking],
        on_frame: Callable[[Frame], None] | None,
    ) -> None:
        stage = build()
        self._use(worker.name, stage.engines)
        while not worker.stop.is_set():
            frame = slot.take(0.25)
            if frame is None:
                if slot.closed:
                    return
                worker.idle()
                continue
            if on_frame is not None:
                on_frame(frame)
            report = stage.see(frame, (self._clock.monotonic_ns() - frame.end_ns) * 1e-6)
            worker.beat()
            if report is not None:
                self._hand_over(worker, report)

    def _record(self, worker: Worker, source: AudioSource, ring: AudioRing) -> None:
        self._await_stages(worker)
        for block in source.blocks(worker.stop):
            self._clocks["sound"] = block.clock
            ring.write(block)
            worker.drops["overflow"] = source.overflows
            worker.beat()

    def _listen(self, worker: Worker, ring: AudioRing, words: queue.Queue[Said | None]) -> None:
        stage = self._models.hearing()
        self._use(worker.name, stage.engines)
        position = ring.written
        while not worker.stop.is_set():
            if not ring.wait(position + HOP, 0.25) and not ring.closed:
                worker.idle()
                continue
            window = ring.after(position)
            position = window.position + len(window.samples)
            sound = Sound(window.samples, window.start_ns, window.clock, window.media_end_s)
            over = ring.closed and not len(window.samples)
            for outcome in stage.finish(sound) if over else stage.hear(sound):
                self._hand_over(worker, outcome)
                if isinstance(outcome, Said) and self._models.transcribes:
                    _offer(words, outcome, worker)
            worker.drops["overrun samples"] = ring.overruns
            worker.beat()
            if over:
                return

    def _read(self, worker: Worker, words: queue.Queue[Said | None]) -> None:
        stage = self._models.reading()
        self._use(worker.name, stage.engines)
        while not worker.stop.is_set():
            try:
                said = words.get(timeout=0.25)
            except queue.Empty:
                worker.idle()
                continue
            if said is None:
                return
            if not said.final and not words.empty():
                continue  # more of the same utterance is waiting already
            for outcome in stage.read(said):
                self._hand_over(worker, outcome)
            worker.beat()

    def _hand_over(self, worker: Worker, outcome: Outcome) -> None:
        try:
            self._outcomes.put_nowait(outcome)
        except queue.Full:
            worker.drops["backlog"] += 1

    def _fuse(self, stream: Stream) -> None:
        """The loop: a report triggers, silence ticks, health once a second."""
        duration_ns = None
        if self._config.input.duration_s is not None:
            duration_ns = round(self._config.input.duration_s * 1e9)
        last_ns, health_ns = self._clock.monotonic_ns(), self._clock.monotonic_ns() + HEALTH_NS
        while not self._stop.is_set():
            try:
                outcome: Outcome | None = self._outcomes.get(timeout=0.1)
            except queue.Empty:
                outcome = None
            now_ns = self._clock.monotonic_ns()
            if isinstance(outcome, Report):
                stream.take(outcome)
                last_ns = now_ns
            elif isinstance(outcome, Said):
                stream.say(outcome)
            elif stream.tally.estimates and now_ns - last_ns > SILENT_NS:
                stream.tick()
            first_ns = stream.tally.first_ns
            if duration_ns is not None and first_ns is not None and now_ns - first_ns >= duration_ns:
                return
            if now_ns >= health_ns:
                self._publish(self._health(now_ns))
                health_ns = max(health_ns + HEALTH_NS, now_ns)
            if outcome is None and all(worker.finished for worker in self._workers):
                return

    def _health(self, now_ns: int) -> Health:
        return Health(
            run=self._run,
            source=self._config.source_name,
            uptime_s=(now_ns - self._started_ns) * 1e-9,
            workers={w.name: _state(w) for w in self._workers},
            engine=dict(self._engines),
            clocks=dict(self._clocks),
            notes=[f"{w.name}: {w.reason}" for w in self._workers if w.reason],
        )

    def _shut_down(self) -> None:
        self._stop.set()
        self._inputs.close()
        deadline_s = time.monotonic() + STOP_S
        for worker in self._workers:
            if not worker.join(max(0.0, deadline_s - time.monotonic())):
                log.warning("%s did not stop in %.1f s", worker.name, STOP_S)


def _close(*slots: LatestFrame[Frame]) -> None:
    for slot in slots:
        slot.close()


def _offer(words: queue.Queue[Said | None], said: Said | None, worker: Worker) -> None:
    """Put without waiting; the oldest gives way."""
    while True:
        try:
            words.put_nowait(said)
            return
        except queue.Full:
            try:
                words.get_nowait()
                worker.drops["unread words"] += 1
            except queue.Empty:
                continue


def _state(worker: Worker) -> WorkerState:
    report = worker.report()
    return WorkerState(
        alive=report.alive,
        rate_hz=round(report.rate_hz, 2),
        drops={cause: count for cause, count in report.drops.items() if count},
        restarts=report.restarts,
        reason=report.reason,
    )
