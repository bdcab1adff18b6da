"""The stages that look: frames in, reports out. The live pipeline and annotation drive the same stages."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Protocol

from ecmf.branches.face import FaceBranch
from ecmf.branches.scene import SceneBranch
from ecmf.cue import Cue, Modality
from ecmf.engines.base import Engine
from realtime.estimator import Report
from realtime.health import EngineUse, LeftOut
from realtime.sources.base import Frame


class Looking(Protocol):
    """A stage that looks at frames."""

    engines: dict[str, EngineUse]
    """What runs, per branch."""
    period_s: float
    """Capture time between two frames that are looked at; 0: every frame."""

    def due(self, frame: Frame) -> bool:
        """Whether it is its turn, and ``see`` would look at it."""

    def see(self, frame: Frame, wait_ms: float) -> Report | None:
        """Report on a frame that waited ``wait_ms`` since its capture; None when it is not its turn."""


class Turns:
    """Whose turn it is: a frame every ``period_s`` of capture time, however the frames come."""

    def __init__(self) -> None:
        self._last_ns: int | None = None

    def due(self, end_ns: int, period_s: float) -> bool:
        """Whether the frame captured at ``end_ns`` is to be looked at; a time that jumped back begins anew."""
        return self._last_ns is None or not 0 <= end_ns - self._last_ns < period_s * 1e9

    def take(self, end_ns: int, period_s: float) -> bool:
        """The same, and the turn is taken."""
        if not self.due(end_ns, period_s):
            return False
        self._last_ns = end_ns
        return True


class FaceStage:
    """Every frame it is given, unless told to look less often."""

    def __init__(self, branch: FaceBranch) -> None:
        self.branch = branch
        self.period_s = 0.0
        self.engines = {"face": use_of(branch.engine)}
        self._turns = Turns()

    def due(self, frame: Frame) -> bool:
        return self._turns.due(frame.end_ns, self.period_s)

    def see(self, frame: Frame, wait_ms: float) -> Report | None:
        if not self._turns.take(frame.end_ns, self.period_s):
            return None
        began = time.perf_counter()
        cues = tuple(self.branch.process(frame.image, frame.start_ns, frame.end_ns))
        stages = {"wait": wait_ms}
        stages |= cues[0].stage_ms if cues else {"detect": (time.perf_counter() - began) * 1e3}
        return _report("face", cues, frame, stages)


class SceneStage:
    """A frame every ``period_s`` of capture time."""

    def __init__(self, branch: SceneBranch, period_s: float) -> None:
        self.branch = branch
        self.period_s = period_s
        self.engines = {"scene": use_of(branch.engine)}
        self._turns = Turns()

    def due(self, frame: Frame) -> bool:
        return self._turns.due(frame.end_ns, self.period_s)

    def see(self, frame: Frame, wait_ms: float) -> Report | None:
        if not self._turns.take(frame.end_ns, self.period_s):
            return None
        cue = self.branch.process(frame.image, frame.start_ns, frame.end_ns)
        return _report("scene", (cue,), frame, {"wait": wait_ms, **cue.stage_ms})


def use_of(engine: Engine) -> EngineUse:
    """An engine as messages name it, with the reason where it is not the first choice."""
    return EngineUse(
        backend=engine.backend,
        precision=engine.precision,
        fallback=engine.fallback,
        left_out=tuple(
            LeftOut(engines=each.backends, reason=each.reason, slower=each.slower) for each in engine.refusals
        ),
    )


def _report(modality: Modality, cues: tuple[Cue, ...], frame: Frame, stages: Mapping[str, float]) -> Report:
    return Report(modality, cues, frame.start_ns, frame.end_ns, frame.clock, frame.media_s, stages)
