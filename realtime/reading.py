"""The stage that reads: words in, text reports out; the language model joins in when an utterance has ended."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import replace

from ecmf.branches.text import TextBranch
from ecmf.enrich import Enricher, Enrichment
from ecmf.errors import EcmfError
from realtime.estimator import Report
from realtime.hearing import Said
from realtime.message import EngineUse
from realtime.stages import use_of

log = logging.getLogger("ecmf.reading")

HISTORY = 4
"""Utterances that are kept as context."""
DEADLINE_S = 0.8
"""The language model is given up on an utterance after this."""


class Reading:
    """Reads utterances as they grow. Not thread-safe."""

    def __init__(
        self, branch: TextBranch, enricher: Enricher | None, *, deadline_s: float | None = DEADLINE_S
    ) -> None:
        """``enricher`` None: enrichment is off. ``deadline_s`` None: it may take as long as it needs."""
        self._deadline_s = float("inf") if deadline_s is None else deadline_s
        self._branch = branch
        self._enricher = enricher
        self._history: deque[str] = deque(maxlen=HISTORY)
        self.engines = {"text": use_of(branch.engine)}
        if enricher is not None:
            self.engines["enrichment"] = EngineUse(backend="llama.cpp", precision=enricher.path.stem)

    def read(self, said: Said) -> Iterator[Report | Said]:
        """Report on the committed words at once; when an utterance has ended, the language model reads it, too.

        What that finds comes as the transcript once more, now with its cues, and as a second report where the text
        branch gains from it.
        """
        if not said.text.strip() or not (said.new or said.final):
            return
        yield self._report(said, None, {})
        if not said.final:
            return
        enrichment, stages = self._enrich(said.text)
        if enrichment is not None:
            yield replace(said, new=(), cues=enrichment.cues, stage_ms=stages)
            if self._branch.gains_from_enrichment:
                yield self._report(said, enrichment, stages)
        self._history.append(said.text.strip())

    def _enrich(self, text: str) -> tuple[Enrichment | None, dict[str, float]]:
        if self._enricher is None:
            return None, {}
        began = time.perf_counter()
        try:
            found = self._enricher.enrich(
                text, tuple(self._history), lambda: time.perf_counter() - began > self._deadline_s
            )
        except EcmfError as error:
            log.warning("enrichment is off: %s", error)
            self._enricher = None
            self.engines.pop("enrichment", None)
            return None, {}
        return found, {"enrichment": (time.perf_counter() - began) * 1e3}

    def _report(self, said: Said, enrichment: Enrichment | None, stages: dict[str, float]) -> Report:
        cue = self._branch.process(
            said.text.strip(), tuple(self._history), enrichment, said.start_ns, said.end_ns
        )
        cues = (cue,) if cue.quality > 0 else ()
        spent = {**said.stage_ms, **stages, **cue.stage_ms}
        return Report("text", cues, said.start_ns, said.end_ns, said.clock, said.media_s, spent)
