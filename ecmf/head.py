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
        self.prior = prior_of(bundle, prior)
        margin = bundle.manifest.extra.get("abstain_margin")
        self.abstain_below = 0.0 if margin is None else float(self.prior.probs.max()) + float(margin)
        """An estimate no surer than this can hardly be told from what the prior alone would say."""
        sizes = {port.name: port.shape[-1] for port in bundle.manifest.inputs}
        try:
            self._sizes = {m: int(sizes[m]) for m in MODALITIES}
        except KeyError as error:
            raise BundleError(f"{bundle.id} has no input {error}; it is not a fusion head") from None
        self._opinions = None if self.labels == EKMAN else opinions(self.labels)
        self.modalities = frozenset(bundle.manifest.extra.get("modalities", MODALITIES))
        """What the head was trained on; cues of other modalities do not count."""
        self.engine = open_engine(bundle, backend=backend)

    def usable(self, cues: Mapping[Modality, Cue], t_ns: int) -> dict[Modality, float]:
        """Aged quality of the cues that still count at ``t_ns``."""
        aged = {m: aged_quality(cue, t_ns, self.max_age_s[m]) for m, cue in cues.items()}
        aged = {m: q for m, q in aged.items() if m in self.modalities}
        return {m: q for m, q in aged.items() if q > 0.0}

    def fuse(self, cues: Mapping[Modality, Cue], t_ns: int) -> Fused | None:
        """Fuse what counts at ``t_ns``; None when face, voice and text together stay below EVIDENCE (the scene never
        suffices).

        Raises BundleError when a cue's embedding is not of the size the head was trained on.
        """
        quality = self.usable(cues, t_ns)
        if sum(quality.get(m, 0.0) for m in EXPERTS) < EVIDENCE:
            return None
        inputs: dict[str, NDArray[np.float32]] = {}
        log_probs = np.zeros((1, len(MODALITIES), len(self.labels)), np.float32)
        for index, modality in enumerate(MODALITIES):
            if modality not in quality:
                inputs[modality] = np.zeros((1, self._sizes[modality]), np.float32)
                continue
            cue = cues[modality]
            if cue.embedding.shape != (self._sizes[modality],):
                raise BundleError(
                    f"{self.bundle.id} expects a {modality} embedding of {self._sizes[modality]}, "
                    f"the branch gives {cue.embedding.shape}; train the head again with python -m train.fit"
                )
            inputs[modality] = cue.embedding[None].astype(np.float32, copy=False)
            if cue.probs is not None:
                log_probs[0, index] = self._opinion(cue.probs)
        inputs["log_probs"] = log_probs
        inputs["quality"] = np.array([[quality.get(m, 0.0) for m in MODALITIES]], np.float32)
        outputs = self.engine.run(inputs)
        logits = outputs["logits"][0].astype(np.float64) + self.prior.shift
        probs = np.exp(logits - logits.max())
        probs /= probs.sum()
        weights = {m: float(outputs["weights"][0, MODALITIES.index(m)]) for m in quality}
        total = sum(weights.values())
        return Fused(
            probs.astype(np.float32),
            {m: w / total for m, w in weights.items()},
            quality,
        )

    def _opinion(self, probs: NDArray[np.float32]) -> NDArray[np.float32]:
        """A branch's probabilities float32[7] as log-probabilities of the head's labels; zeros where it reads none."""
        if self.labels == EKMAN:
            return np.log(np.maximum(probs, FLOOR))
        found = opinion(probs, self._opinions, FLOOR)
        return np.zeros(len(self.labels), np.float32) if found is None else found
