"""Reports in, messages out: runs the estimator and writes its decisions as message v1."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ecmf.cue import MODALITIES, Modality
from ecmf.labels import EKMAN
from realtime.clock import Clock
from realtime.estimator import Decision, Estimator, Report, Standing
from realtime.hearing import Said
from realtime.message import (
    EngineUse,
    Estimate,
    Message,
    Modalities,
    ModalityState,
    Transcript,
    Word,
    distribution,
)
from realtime.sources.base import CaptureClock
from realtime.summary import Tally


class Stream:
    """The fusion end of the pipeline. Called by one thread."""

    def __init__(
        self,
        estimator: Estimator,
        publish: Callable[[Message], Message],
        *,
        clock: Clock,
        run: str,
        source: str,
        labels: tuple[str, ...],
        model: str,
        engines: Callable[[], Mapping[str, EngineUse]],
        timed: bool = True,
    ) -> None:
        """``timed``: whether latencies mean anything; not when annotating."""
        self.tally = Tally()
        self._estimator = estimator
        self._publish = publish
        self._clock = clock
        self._run = run
        self._source = source
        self._labels = labels
        self._model = model
        self._engines = engines
        self._timed = timed
        self._stamp: tuple[CaptureClock, float | None] = ("read", None)

    def take(self, report: Report) -> None:
        """Fuse and publish what a report triggers."""
        self._stamp = (report.clock, report.media_s)
        for decision in self._estimator.report(report, self._clock.monotonic_ns()):
            self._send(decision)

    def tick(self) -> None:
        """Publish where things stand, when no report came for a while; no sample, so no media time, belongs to that."""
        self._stamp = (self._stamp[0], None)
        for decision in self._estimator.tick(self._clock.monotonic_ns()):
            self._send(decision)

    def switch_off(self, modality: Modality) -> None:
        """Nothing comes from it any more."""
        self._estimator.switch_off(modality)

    def say(self, said: Said) -> None:
        """Publish a transcript as it stands; whether it reaches the wire is the publisher's affair."""
        text = said.text.strip()
        self._publish(
            Transcript(
                run=self._run,
                source=self._source,
                person=self._estimator.said_by(said.start_ns, said.heard_ns, self._clock.monotonic_ns()),
                utterance=said.utterance,
                text=text,
                partial=said.partial.rstrip() if text else said.partial.strip(),
                words=[Word(text=w.text, t_start_ns=w.start_ns, t_end_ns=w.end_ns) for w in said.new],
                final=said.final,
                cues=said.cues,
                t_capture_ns=said.heard_ns,
                clock=said.clock,
                t_media_s=None if said.media_s is None else round(said.media_s, 4),
            )
        )

    def _send(self, decision: Decision) -> None:
        capture_clock, media_s = self._stamp
        message = Estimate(
            run=self._run,
            source=self._source,
            person=decision.person,
            bbox=decision.bbox,
            t_capture_ns=decision.end_ns,
            clock=capture_clock,
            t_media_s=None if media_s is None else round(media_s, 4),
            trigger=decision.trigger,
            label=decision.label,
            confidence=None if decision.confidence is None else round(decision.confidence, 4),
            reason=decision.reason,
            raw=None if decision.raw is None else distribution(self._labels, decision.raw),
            smoothed=None if decision.smoothed is None else distribution(self._labels, decision.smoothed),
            modalities=Modalities(**{m: self._standing(decision.modalities[m]) for m in MODALITIES}),
            latency_ms={name: round(ms, 3) for name, ms in decision.stage_ms.items()}
            if self._timed
            else None,
            model=self._model,
            engine={branch: use.brief() for branch, use in self._engines().items()},
        )
        published = self._publish(message)
        assert isinstance(published, Estimate)
        self.tally.count(published)

    def _standing(self, state: Standing) -> ModalityState:
        return ModalityState(
            present=state.present,
            weight=state.weight,
            age_ms=None if state.age_ms is None else round(max(0.0, state.age_ms), 1),
            quality=None if state.quality is None else round(state.quality, 3),
            probs=None if state.probs is None else distribution(EKMAN, state.probs),
            reason=state.reason,
        )
