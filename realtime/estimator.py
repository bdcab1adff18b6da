"""From cues to estimates: who a cue belongs to, when to publish, what is missing and why.

Pure bookkeeping on the times it is given; the maths is in ``ecmf.head`` and ``ecmf.smoothing``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ecmf.cue import MODALITIES, Cue, Modality
from ecmf.head import EXPERTS, Fused, FusionHead
from ecmf.smoothing import Smoother, SmoothingOptions
from realtime.pace import Pace
from realtime.sources.base import CaptureClock
from realtime.speaker import SHAPES, Activity, Speaker

Trigger = Literal["face", "scene", "voice", "text", "tick"]
Person = int | None

ABSENT: Mapping[Modality, str] = {
    "face": "no_face",
    "scene": "no_frame",
    "voice": "no_voice",
    "text": "no_words",
}
"""Why a modality that is switched on and has reported is not there."""


@dataclass(frozen=True)
class Report:
    """What a branch said about one capture interval; no cues means that it looked and found nothing."""

    modality: Modality
    cues: tuple[Cue, ...]
    start_ns: int
    end_ns: int
    clock: CaptureClock
    media_s: float | None = None
    """Media time of the sample; None for a device."""
    stage_ms: Mapping[str, float] = field(default_factory=dict)
    activity: Activity | None = None
    """Of a voice report: where there was a voice since the one before."""


@dataclass(frozen=True)
class Standing:
    """One modality within a decision."""

    present: bool
    weight: float = 0.0
    age_ms: float | None = None
    quality: float | None = None
    probs: NDArray[np.float32] | None = None
    reason: str | None = None


@dataclass(frozen=True)
class Decision:
    """One estimate of one person, before it gets its sequence number and publish time."""

    person: Person
    trigger: Trigger
    start_ns: int
    end_ns: int
    """Capture interval of the sample that triggered it."""
    label: str | None
    confidence: float | None
    reason: str | None
    raw: NDArray[np.float32] | None
    smoothed: NDArray[np.float32] | None
    modalities: Mapping[Modality, Standing]
    bbox: tuple[float, float, float, float] | None
    stage_ms: Mapping[str, float] = field(default_factory=dict)


class Estimator:
    """Keeps the latest cue of each modality and person, and turns triggers into decisions."""

    def __init__(
        self,
        head: FusionHead,
        *,
        enabled: frozenset[Modality],
        rate: float = 15.0,
        smoothing: SmoothingOptions | None = None,
        perf: Callable[[], float] = time.perf_counter,
    ) -> None:
        """``enabled``: modalities that have a source; the others are reported as ``off``."""
        self._head = head
        self._enabled = enabled
        self._pace = Pace(rate)
        self._smoothing = smoothing or SmoothingOptions()
        self._perf = perf
        self._faces: dict[int, Cue] = {}
        self._shared: dict[Modality, Cue] = {}  # scene, voice and text
        self._smoothers: dict[Person, Smoother] = {}
        self._last_report_ns: dict[Modality, int] = {}
        self._speaker = Speaker()
        self._said_by: tuple[Person] | None = None
        """Whose the words are, found by the lips; None: whoever owns the voice, for only one was there."""

    def report(self, report: Report, now_ns: int) -> list[Decision]:
        """Take a report and decide for whom it touches, as far as the pace admits it."""
        modality = report.modality
        self._last_report_ns[modality] = max(report.end_ns, self._last_report_ns.get(modality, report.end_ns))
        for cue in report.cues:
            if modality == "face":
                assert cue.person is not None
                self._faces[cue.person] = cue
                if len(cue.embedding) >= SHAPES:
                    self._speaker.see(cue.person, cue.end_ns, cue.embedding[-SHAPES:])
            else:
                self._shared[modality] = cue
        if report.activity is not None:
            self._speaker.hear(report.activity)
        self._forget_the_gone(now_ns)
        if modality == "text" and report.cues:
            several = len(self._visible(now_ns)) > 1
            self._said_by = (self.said_by(report.start_ns, report.end_ns, now_ns),) if several else None
        touched: list[Person] = [self._words_owner(now_ns) if modality == "text" else self.owner(now_ns)]
        if modality == "face" and report.cues:
            touched = [cue.person for cue in report.cues]
        trigger: Trigger = modality if report.cues else "tick"
        return [
            self._decide(person, trigger, report.start_ns, report.end_ns, now_ns, dict(report.stage_ms))
            for person in touched
            if self._pace.admit(person, now_ns)
        ]

    def switch_off(self, modality: Modality) -> None:
        """Nothing comes from it any more: from now on it is reported as ``off``."""
        self._enabled -= {modality}

    def tick(self, now_ns: int) -> list[Decision]:
        """Decide without a new sample, so that a stalled source is reported instead of silence on the wire."""
        self._forget_the_gone(now_ns)
        person = self.owner(now_ns)
        if not self._pace.admit(person, now_ns):
            return []
        return [self._decide(person, "tick", now_ns, now_ns, now_ns, {})]

    def owner(self, now_ns: int) -> Person:
        """Whose voice is heard: the one visible person's; of several, whose lips move with it; else nobody's."""
        return self._speaker.who(self._visible(now_ns))

    def said_by(self, start_ns: int, end_ns: int, now_ns: int) -> Person:
        """Who of those visible said what was heard in that interval; None where that is unknown."""
        return self._speaker.said(self._visible(now_ns), start_ns, end_ns)

    def _words_owner(self, now_ns: int) -> Person:
        if self._said_by is None:
            return self.owner(now_ns)
        (person,) = self._said_by
        return person if person in self._visible(now_ns) else None

    def _visible(self, now_ns: int) -> list[int]:
        """Persons whose face is still fresh."""
        return [p for p, c in self._faces.items() if self._head.usable({"face": c}, now_ns)]

    def _forget_the_gone(self, now_ns: int) -> None:
        """Drop persons whose face is past its maximum age; their smoothing starts anew if they return."""
        limit_ns = round(self._head.max_age_s["face"] * 1e9)
        for person in [p for p, cue in self._faces.items() if now_ns - cue.end_ns > limit_ns]:
            del self._faces[person]
            self._smoothers.pop(person, None)
            self._pace.forget(person)

    def _decide(
        self,
        person: Person,
        trigger: Trigger,
        start_ns: int,
        end_ns: int,
        now_ns: int,
        stages: dict[str, float],
    ) -> Decision:
        cues = self._cues_of(person, now_ns)
        began = self._perf()
        fused = self._head.fuse(cues, now_ns)
        stages["fusion"] = (self._perf() - began) * 1e3
        label = confidence = raw = smoothed = reason = None
        if fused is None:
            self._smoothers.pop(person, None)
            reason = self._why_nothing(cues, now_ns)
        else:
            began = self._perf()
            smoother = self._smoothers.setdefault(person, Smoother(self._head.labels, self._smoothing))
            mean, best = smoother.update(fused.probs, now_ns)
            stages["smoothing"] = (self._perf() - began) * 1e3
            if smoother.sure(self._head.abstain_below):
                label, raw, smoothed = best, fused.probs, mean
                confidence = float(mean[self._head.labels.index(best)])
            else:
                reason = "low_confidence"
        return Decision(
            person=person,
            trigger=trigger,
            start_ns=start_ns,
            end_ns=end_ns,
            label=label,
            confidence=confidence,
            reason=reason,
            raw=raw,
            smoothed=smoothed,
            modalities=self._states(cues, fused, now_ns),
            bbox=cues["face"].bbox if "face" in cues else None,
            stage_ms=stages,
        )

    def _cues_of(self, person: Person, now_ns: int) -> dict[Modality, Cue]:
        """The person's own face, the scene, and the voice and words where they are that person's."""
        cues: dict[Modality, Cue] = {}
        if person is not None and person in self._faces:
            cues["face"] = self._faces[person]
        if "scene" in self._shared:
            cues["scene"] = self._shared["scene"]
        if "voice" in self._shared and person == self.owner(now_ns):
            cues["voice"] = self._shared["voice"]
        if "text" in self._shared and person == self._words_owner(now_ns):
            cues["text"] = self._shared["text"]
        return cues

    def _why_nothing(self, cues: Mapping[Modality, Cue], now_ns: int) -> str:
        weak = self._head.usable(cues, now_ns).keys() & set(EXPERTS)
        if weak:
            return "stale" if all(self._aged(cues[m], now_ns) for m in weak) else "low_confidence"
        watched = self._enabled - {"scene", "text"}
        if not watched:
            return "stale"
        if not any(m in self._last_report_ns for m in watched):
            return "starting"
        fresh = any(
            now_ns - self._last_report_ns[m] <= self._head.max_age_s[m] * 1e9
            for m in watched
            if m in self._last_report_ns
        )
        return "no_person" if fresh else "stale"

    def _aged(self, cue: Cue, now_ns: int) -> bool:
        """Whether it counts little for its age rather than for what it shows."""
        return now_ns - cue.end_ns > self._head.max_age_s[cue.modality] * 0.5e9

    def _states(
        self, cues: Mapping[Modality, Cue], fused: Fused | None, now_ns: int
    ) -> dict[Modality, Standing]:
        states: dict[Modality, Standing] = {}
        usable = self._head.usable(cues, now_ns) if fused is None else {}
        for modality in MODALITIES:
            cue = cues.get(modality)
            age_ms = (now_ns - cue.end_ns) * 1e-6 if cue is not None else None
            if cue is not None and fused is not None and modality in fused.weights:
                weight, quality = fused.weights[modality], fused.quality[modality]
                states[modality] = Standing(True, weight, age_ms, quality, cue.probs)
                continue
            if modality not in self._enabled:
                reason = "off"
            elif cue is not None and modality in usable and not self._aged(cue, now_ns):
                # It would count, were there enough to judge by.
                reason = "low_confidence" if modality in EXPERTS else "no_person"
            elif cue is None and modality in self._shared:
                reason = "other_person"
            elif cue is not None and cue.quality > 0 and self._last_report_ns[modality] <= cue.end_ns:
                reason = "stale"
            elif modality not in self._last_report_ns:
                reason = "starting"
            else:
                reason = ABSENT[modality]
            states[modality] = Standing(False, reason=reason, age_ms=age_ms)
        return states
