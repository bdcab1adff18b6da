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
from realtime.message import EngineUse
from realtime.sources.base import Frame


class Looking(Protocol):
    """A stage that looks at frames."""

    engines: dict[str, EngineUse]
    """What runs, per branch."""

    def see(self, frame: Frame, wait_ms: float) -> Report | None:
        """Report on a frame that waited ``wait_ms`` since its capture; None when it is not its turn."""


class FaceStage:
    """Every frame it is given."""

    def __init__(self, branch: FaceBranch) -> None:
        self.branch = branch
        self.engines = {"face": use_of(branch.engine)}

    def see(self, frame: Frame, wait_ms: float) -> Report:
        began = time.perf_counter()
        cues = tuple(self.branch.process(frame.image, frame.start_ns, frame.end_ns))
        stages = {"wait": wait_ms}
        stages |= cues[0].stage_ms if cues else {"detect": (time.perf_counter() - began) * 1e3}
        return _report("face", cues, frame, stages)


class SceneStage:
    """A frame every ``period_s`` of capture time."""

    def __init__(self, branch: SceneBranch, period_s: float) -> None:
        self.branch = branch
        self.engines = {"scene": use_of(branch.engine)}
        self._period_ns = round(period_s * 1e9)
        self._due_ns: int | None = None

    def see(self, frame: Frame, wait_ms: float) -> Report | None:
        if self._due_ns is not None and frame.end_ns < self._due_ns:
            return None
        self._due_ns = frame.end_ns + self._period_ns
        cue = self.branch.process(frame.image, frame.start_ns, frame.end_ns)
        return _report("scene", (cue,), frame, {"wait": wait_ms, **cue.stage_ms})


def use_of(engine: Engine) -> EngineUse:
    """An engine as messages name it, with the reason where it is not the first choice."""
    return EngineUse(backend=engine.backend, precision=engine.precision, fallback=engine.fallback)


def _report(modality: Modality, cues: tuple[Cue, ...], frame: Frame, stages: Mapping[str, float]) -> Report:
    return Report(modality, cues, frame.start_ns, frame.end_ns, frame.clock, frame.media_s, stages)
