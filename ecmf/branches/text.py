"""The text branch: an utterance, what was said before it and a language model's hints become one cue."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ecmf.bundle import SHIPPED, Bundle, load_bundle
from ecmf.cue import Cue
from ecmf.engines.choose import open_engine
from ecmf.enrich import Enrichment
from ecmf.errors import BundleError
from ecmf.labels import EKMAN, fold
from ecmf.wordpiece import WordPiece, clean, pad

_FILLERS = "uh um uhm erm er ah hm hmm mm mhm mmm well so okay ok yeah yes no right like and but the a i"
FILLERS = frozenset(_FILLERS.split())
"""Words that say next to nothing of an emotion when they stand alone."""
HALF_WORDS = 2.0
"""Words beyond fillers at which quality reaches one half."""


class TextBranch:
    """Words in, text cues out. Not thread-safe."""

    def __init__(self, bundle: Bundle | None = None, *, backend: str = "auto", threads: int = 1) -> None:
        """Loads the shipped text bundle when none is given. Raises BundleError, EngineError, MissingExtra."""
        self.bundle = bundle or load_bundle(SHIPPED / "text")
        manifest = self.bundle.manifest
        self.labels = manifest.labels
        try:
            self._temperature = float(manifest.extra["temperature"])
            self._history = int(manifest.preprocessing["history_lines"])
            self._reads = manifest.extra["enrichment"]
            self._wordpiece = WordPiece(self.bundle.folder / manifest.preprocessing["tokenizer"])
        except KeyError as error:
            raise BundleError(
                f"{self.bundle.id} does not name its {error}; it is not a text bundle"
            ) from None
        self.engine = open_engine(self.bundle, backend=backend, threads=threads)

    @property
    def gains_from_enrichment(self) -> bool:
        """Whether a language model's reading changes what this bundle says; decided by measurement when it was made."""
        return any(self._reads.values())

    def process(
        self,
        words: str,
        history: Sequence[str] = (),
        enrichment: Enrichment | None = None,
        start_ns: int = 0,
        end_ns: int = 0,
        person: int | None = None,
    ) -> Cue:
        """Read one utterance. ``history``: what the same person said before, oldest first; the last lines count.

        Of the enrichment only what the bundle was shown to gain from counts (``manifest.extra["enrichment"]``).
        Gives a float32[384] embedding, with and without enrichment, and probabilities in the order of EKMAN. Quality
        is 0 (no cue) for no words or nothing but fillers.
        """
        began = time.perf_counter()
        embedding, logits = self.score(words, history, self._useful(enrichment))
        probs = fold(softmax(logits / self._temperature), self.labels, EKMAN)
        stage_ms = {"text": (time.perf_counter() - began) * 1e3}
        quality = text_quality(words)
        return Cue(
            "text", person, embedding, probs, start_ns, end_ns, quality, words=words, stage_ms=stage_ms
        )

    def _useful(self, enrichment: Enrichment | None) -> Enrichment | None:
        if enrichment is None or not self.gains_from_enrichment:
            return None
        even = np.full(len(EKMAN), 1 / len(EKMAN), np.float32)
        return Enrichment(
            enrichment.cues if self._reads["cues"] else "",
            enrichment.scores if self._reads["scores"] else even,
        )

    def score(
        self, words: str, history: Sequence[str] = (), enrichment: Enrichment | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Embedding float32[384] and logits float32[labels] before calibration; for training and benchmarks."""
        cues = enrichment.cues if enrichment else ""
        lines = history[-self._history :] if self._history else ()
        tokens = pad([self._wordpiece.line(words, lines, cues)])
        outputs = self.engine.run(
            {
                "ids": tokens.ids,
                "mask": tokens.mask,
                "types": tokens.types,
                "scores": centred(enrichment)[None],
            }
        )
        return outputs["embedding"][0], outputs["logits"][0]


def centred(enrichment: Enrichment | None) -> NDArray[np.float32]:
    """Log-scores around zero, float32[7]; zeros, which change nothing, without enrichment."""
    if enrichment is None:
        return np.zeros(len(EKMAN), np.float32)
    logs = np.log(np.maximum(enrichment.scores, 1e-4))
    return (logs - logs.mean()).astype(np.float32)


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Along the last axis."""
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def text_quality(words: str) -> float:
    """In [0, 1): grows with the number of words that are not fillers, 0 without any."""
    spoken = (word.strip(".,!?;:-\"'") for word in clean(words).lower().split())
    count = sum(1 for word in spoken if word and word not in FILLERS)
    return 1 - math.exp2(-count / HALF_WORDS)
