"""The stages that read: words in, text reports out; beside them the language model, once an utterance has ended."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace

from ecmf.branches.text import TextBranch
from ecmf.enrich import Enricher, Enrichment
from realtime.estimator import Report
from realtime.hearing import Said
from realtime.message import EngineUse
from realtime.stages import use_of

log = logging.getLogger("ecmf.reading")

READS = "en"
"""The language that the text branch and the worked examples of the language model are in."""
HISTORY = 4
"""Utterances that are kept as context."""
DEADLINE_S = 0.8
"""The language model is given up on an utterance after this."""


class Reading:
    """Reads utterances as they grow. Not thread-safe."""

    def __init__(self, branch: TextBranch) -> None:
        self._branch = branch
        self._history: deque[tuple[int, str]] = deque(maxlen=2 * HISTORY)
        """Number and words of the utterances that have ended."""
        self._unread: set[str] = set()
        """Languages that were heard and cannot be read."""
        self.engines = {"text": use_of(branch.engine)}

    def read(self, said: Said) -> Iterator[Report]:
        """Report on the committed words at once; and again, where the branch gains from it, on an ended utterance
        that comes back with what the language model found.
        """
        text = said.text.strip()
        if not text or not (said.new or said.final):
            return
        if said.language != READS:
            if said.language not in self._unread:
                self._unread.add(said.language)
                log.warning("words in %r are written down, but not read for emotion", said.language)
            return
        if said.enrichment is not None and not self._branch.gains_from_enrichment:
            return
        before = [words for number, words in self._history if number < said.utterance]
        cue = self._branch.process(
            text, tuple(before[-HISTORY:]), said.enrichment, said.start_ns, said.end_ns
        )
        cues = (cue,) if cue.quality > 0 else ()
        spent = {**said.stage_ms, **cue.stage_ms}
        if said.final and said.enrichment is None:
            self._history.append((said.utterance, text))
        yield Report("text", cues, said.start_ns, said.end_ns, said.clock, said.media_s, spent)


class Enriching:
    """Asks the language model about utterances. Not thread-safe.

    At a pause already, before it is known whether the utterance ends there: when it does, the answer is there.
    """

    def __init__(self, enricher: Enricher, *, deadline_s: float | None = DEADLINE_S) -> None:
        """``deadline_s`` None: it may take as long as it needs."""
        self._enricher = enricher
        self._deadline_s = float("inf") if deadline_s is None else deadline_s
        self._read: tuple[int, str, Enrichment] | None = None
        """The last answer, and the utterance and words that it is to."""
        self.engines = {"enrichment": EngineUse(backend="llama.cpp", precision=enricher.path.stem)}

    def enrich(self, said: Said, alive: Callable[[], object] = lambda: None) -> Said | None:
        """The transcript of an ended utterance once more, with its cues; None when the deadline passed before.

        An utterance that has only paused is read, but not given back. No earlier utterance is read with it: on MELD
        dev the cues were worth no more for it (bench/enrichment.py), and it would cost as much again.
        ``alive`` is called every few tokens.
        Raises WeightError when the model fails.
        """
        # At a pause punctuation may still be open; it is settled when the utterance ends there.
        text = (said.text + said.partial).strip()
        if not said.text.strip() or not (said.final or said.paused) or said.language != READS:
            return None
        spent: dict[str, float] = {}
        if self._read is None or self._read[:2] != (said.utterance, text):
            began = time.perf_counter()

            def expired() -> bool:
                alive()
                return time.perf_counter() - began > self._deadline_s

            found = self._enricher.enrich(text, expired=expired)
            if found is None:
                return None
            self._read = said.utterance, text, found
            spent = {"enrichment": (time.perf_counter() - began) * 1e3}
        if not said.final:
            return None
        answer = self._read[2]
        return replace(said, new=(), cues=answer.cues, enrichment=answer, stage_ms=spent)

    def close(self) -> None:
        """Free the model's memory."""
        self._enricher.close()
