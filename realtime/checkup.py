"""Once a second: how everything is doing, and how much of it is to be done."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence

from realtime.assemble import Inputs
from realtime.clock import Clock
from realtime.config import Config
from realtime.degrade import Governor, Load
from realtime.exchange import Exchange
from realtime.message import Health, LoadState, WorkerState
from realtime.posts import Capture
from realtime.waits import Waits
from realtime.workers import Worker

LOSSES = ("overrun samples", "backlog")
"""Drops that mean that something was lost for want of time."""

REMEDIES = {
    "frozen": "the same picture comes again and again; plug it in anew",
    "black": "is its lens covered?",
    "lost": "waiting for its return",
    "reconnecting": "waiting for its return",
    "silent": "is it muted?",
    "clipped": "turn it down",
}
"""What is told to a person about a device's state."""


class Checkup:
    """Asks workers, sources and the processor. Called by one thread."""

    def __init__(
        self,
        config: Config,
        inputs: Inputs,
        exchange: Exchange,
        workers: Sequence[Worker],
        waits: Mapping[str, Waits],
        *,
        run: str,
        clock: Clock,
    ) -> None:
        """``waits``: of the workers that take samples from others."""
        self._config, self._inputs, self._exchange = config, inputs, exchange
        self._workers, self._waits = workers, waits
        self._run, self._clock = run, clock
        self._governor = Governor()
        self._began_ns = self._at_ns = clock.monotonic_ns()
        self._cpu_s = time.process_time()
        self._cores = 0.0
        self._captured = self._late = self._lost = 0

    def health(self, capture: Capture | None, fusion: WorkerState) -> Health:
        """The message of this second. Sets the effort that the workers are to make from now on."""
        now_ns = self._clock.monotonic_ns()
        # For who is off or being loaded again samples wait in vain, and doing less of the rest would not help.
        waits = {name: each.longest_ms() for name, each in self._waits.items() if self._exchange.loaded(name)}
        load = self._measure(now_ns, waits, capture)
        self._exchange.effort = effort = self._governor.update(load, now_ns)
        workers = {worker.name: _state(worker, waits.get(worker.name)) for worker in self._workers}
        skew_ms = self._exchange.skew.ms
        video, audio = self._inputs.video, self._inputs.audio
        camera = None if video is None else video.condition()
        microphone = None if audio is None else audio.condition()
        troubles = [f"{name}: {state.reason}" for name, state in workers.items() if state.reason]
        for name, device in (("camera", camera), ("microphone", microphone)):
            if device is not None and device.state != "ok":
                troubles.append(f"{name}: {device.state}, {REMEDIES[device.state]}")
        return Health(
            run=self._run,
            source=self._config.source_name,
            uptime_s=(now_ns - self._began_ns) * 1e-9,
            workers={**workers, "fusion": fusion},
            engine=dict(self._exchange.engines),
            clocks=dict(self._exchange.clocks),
            camera=camera,
            microphone=microphone,
            load=LoadState(
                cores=round(load.cores, 3), level=self._governor.level, reduced=list(effort.reduced)
            ),
            skew_ms=None if skew_ms is None else round(skew_ms, 1),
            notes=[*troubles, *(f"reduced: {what}" for what in effort.reduced)],
        )

    def _measure(self, now_ns: int, waits: Mapping[str, float], capture: Capture | None) -> Load:
        """What happened since the last time."""
        seconds = max(1e-3, (now_ns - self._at_ns) * 1e-9)
        cpu_s = time.process_time()
        self._cores, self._cpu_s, self._at_ns = (cpu_s - self._cpu_s) / seconds, cpu_s, now_ns
        drops = {worker.name: worker.report().drops for worker in self._workers}
        lost = sum(each.get(cause, 0) for each in drops.values() for cause in LOSSES)
        late = drops.get("camera", {}).get("late", 0)
        captured = capture.captured if capture is not None else 0
        frames, missed = captured - self._captured, late - self._late
        load = Load(
            cores=self._cores,
            available=len(os.sched_getaffinity(0)),
            queue_ms=waits,
            late_share=missed / frames if frames and self._exchange.loaded("face") else 0.0,
            face_hz=(frames - missed) / seconds,
            wanted_hz=min(self._config.rate, frames / seconds),
            lost=lost - self._lost,
        )
        self._captured, self._late, self._lost = captured, late, lost
        return load


def _state(worker: Worker, waited_ms: float | None) -> WorkerState:
    report = worker.report()
    return WorkerState(
        alive=report.alive,
        rate_hz=round(report.rate_hz, 2),
        drops={cause: count for cause, count in report.drops.items() if count},
        queue_age_ms=None if waited_ms is None else round(max(0.0, waited_ms), 1),
        restarts=report.restarts,
        reason=report.reason,
    )
