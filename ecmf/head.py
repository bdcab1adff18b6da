"""The trained fusion head at work: cues of one person and a point in time in, label probabilities out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from ecmf.bundle import Bundle
from ecmf.cue import MODALITIES, Cue, Modality
from ecmf.engines.choose import open_engine
from ecmf.errors import BundleError
from ecmf.labels import EKMAN, opinion, opinions
from ecmf.prior import OWN, prior_of

MAX_AGE_S: Mapping[Modality, float] = MappingProxyType({"face": 0.5, "scene": 2.0, "voice": 1.5, "text": 8.0})
"""Older cues are masked; how old a cue is counts from the end of its capture interval."""

EXPERTS: tuple[Modality, ...] = ("face", "voice", "text")
"""Modalities that name an emotion; the scene is context only."""

FLOOR = 1e-4
"""Smallest probability a branch's opinion may have before the logarithm."""


EVIDENCE = 0.15
"""Quality of face, voice and words together below which an estimate would be little more than the prior."""


@dataclass(frozen=True)
class Fused:
    probs: NDArray[np.float32]
    """float32[labels], sums to 1."""
    weights: Mapping[Modality, float]
    """Present modalities only; sums to 1."""
    quality: Mapping[Modality, float] = field(default_factory=dict)
    """Cue quality after ageing, present modalities only."""


def aged_quality(cue: Cue, t_ns: int, max_age_s: float) -> float:
    """Quality of a cue at ``t_ns``: unchanged for half its life, then a cosine taper to 0 at ``max_age_s``."""
    life = max(0, t_ns - cue.end_ns) * 1e-9 / max_age_s
    if life >= 1.0:
        return 0.0
    taper = 1.0 if life <= 0.5 else 0.5 + 0.5 * math.cos(math.pi * (2.0 * life - 1.0))
    return cue.quality * taper


class FusionHead:
    """Runs a head bundle (see ``ecmf.fusion.EcmfHead`` for the maths) through an engine, one person at a time."""

    def __init__(
        self,
        bundle: Bundle,
        *,
        backend: str = "auto",
        max_age_s: Mapping[Modality, float] = MAX_AGE_S,
        prior: str = OWN,
    ) -> None:
        """``prior``: see ``ecmf.prior.prior_of``. Raises BundleError, EngineError, UsageError."""
        self.bundle = bundle
        self.labels = bundle.manifest.labels
        self.max_age_s = dict(max_age_s)
        sizes = {port.name: port.shape[-1] for port in bundle.manifest.inputs}
        if "features" in sizes:
            raise BundleError(
                f"{bundle.id} reads stored utterance features (MER2025's), which no camera or microphone gives; a head "
                "for live use is trained on clips: python -m train.fit --data DIR"
            )
        try:
            self._sizes = {m: int(sizes[m]) for m in MODALITIES}
        except KeyError as error:
            raise BundleError(f"{bundle.id} has no input {error}; it is not a fusion head") from None
        self.prior = prior_of(bundle, prior)
        margin = bundle.manifest.extra.get("abstain_margin")
        self.abstain_below = 0.0 if margin is None else float(self.prior.probs.max()) + float(margin)
        """An estimate no surer than this can hardly be told from what the prior alone would say."""
        self._opinions = None if self.labels == EKMAN else opinions(self.labels)
        self.modalities = frozenset(bundle.manifest.extra.get("modalities", MODALITIES))
        """What the head was trained on; cues of other modalities do not count."""
        self.engine = open_engine(bundle, backend=backend)
        self._given: dict[Modality, Cue | None] = dict.fromkeys(MODALITIES)
        """What the inputs hold: most cues are the same from one estimate to the next, and stay where they are."""
        self._inputs: dict[str, NDArray[np.float32]] = {
            m: np.zeros((1, size), np.float32) for m, size in self._sizes.items()
        }
        self._inputs["log_probs"] = np.zeros((1, len(MODALITIES), len(self.labels)), np.float32)
        self._inputs["quality"] = np.zeros((1, len(MODALITIES)), np.float32)
        self._shift: list[float] = self.prior.shift.tolist()

    def usable(self, cues: Mapping[Modality, Cue], t_ns: int) -> dict[Modality, float]:
        """Aged quality of the cues that still count at ``t_ns``."""
        aged = {
            m: aged_quality(cue, t_ns, self.max_age_s[m]) for m, cue in cues.items() if m in self.modalities
        }
        return {m: q for m, q in aged.items() if q > 0.0}

    def fuse(self, cues: Mapping[Modality, Cue], t_ns: int) -> Fused | None:
        """Fuse what counts at ``t_ns``; None when face, voice and text together stay below EVIDENCE (the scene never
        suffices).

        Raises BundleError when a cue's embedding is not of the size the head was trained on.
        """
        quality = self.usable(cues, t_ns)
        if sum(quality.get(m, 0.0) for m in EXPERTS) < EVIDENCE:
            return None
        for index, modality in enumerate(MODALITIES):
            cue = cues[modality] if modality in quality else None
            self._inputs["quality"][0, index] = quality.get(modality, 0.0)
            if cue is not self._given[modality]:
                self._give(index, modality, cue)
        outputs = self.engine.run(self._inputs)
        logits: list[float] = outputs["logits"][0].tolist()
        shifted = [logit + shift for logit, shift in zip(logits, self._shift, strict=True)]
        highest = max(shifted)
        odds = [math.exp(logit - highest) for logit in shifted]
        every = sum(odds)
        shares: list[float] = outputs["weights"][0].tolist()
        weights = {m: share for m, share in zip(MODALITIES, shares, strict=True) if m in quality}
        total = sum(weights.values())
        return Fused(
            np.array([each / every for each in odds], np.float32),
            {m: w / total for m, w in weights.items()},
            quality,
        )

    def _give(self, index: int, modality: Modality, cue: Cue | None) -> None:
        """Write a cue, or zeros for one that is absent, into the inputs."""
        embedding = self._inputs[modality][0]
        if cue is not None and cue.embedding.shape != embedding.shape:
            raise BundleError(
                f"{self.bundle.id} expects a {modality} embedding of {len(embedding)}, "
                f"the branch gives {cue.embedding.shape}; train the head again with python -m train.fit"
            )
        told = 0.0 if cue is None or cue.probs is None else self._opinion(cue.probs)
        self._inputs["log_probs"][0, index] = told
        embedding[:] = 0.0 if cue is None else cue.embedding
        self._given[modality] = cue

    def _opinion(self, probs: NDArray[np.float32]) -> NDArray[np.float32]:
        """A branch's probabilities float32[7] as log-probabilities of the head's labels; zeros where it reads none."""
        if self.labels == EKMAN:
            return np.log(np.maximum(probs, FLOOR))
        found = opinion(probs, self._opinions, FLOOR)
        return np.zeros(len(self.labels), np.float32) if found is None else found
