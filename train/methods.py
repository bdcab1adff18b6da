"""Who is compared: ECMF's head, its ablations, the baselines, and what needs no training; all see the same cues."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ecmf.cue import MODALITIES, Modality
from ecmf.fusion import EcmfHead, HeadOptions
from train import baselines
from train.descent import descend
from train.evaluate_head import predict, product_of_experts
from train.fit_head import FitOptions, own_priors, start, tensors
from train.pairing import TRUST, Batch, Pool, draw

Probs = NDArray[np.float64]
Predictor = Callable[[Batch], Probs]
"""A batch -> probabilities float64[n, labels]."""


@dataclass(frozen=True)
class Method:
    """One column of the table."""

    name: str
    make: Callable[[Mapping[str, int], int, HeadOptions], nn.Module]
    options: Callable[[HeadOptions], HeadOptions] = lambda options: options
    everything: bool = False
    """Trained with all cues present: no modality dropout."""
    without: Modality | None = None
    """A modality hidden in training and in measuring."""


METHODS = (
    Method("ecmf", EcmfHead),
    Method("mer2025 attention", baselines.MerAttention),
    Method("concatenation", baselines.Concatenation),
    Method("ecmf, no attention", EcmfHead, lambda o: replace(o, attention=False)),
    Method("ecmf, no residual", EcmfHead, lambda o: replace(o, residual=False)),
    Method("ecmf, no modality dropout", EcmfHead, everything=True),
    Method("ecmf, opinions only", EcmfHead, lambda o: replace(o, read=False)),
    Method("ecmf, a cue alone read too", EcmfHead, lambda o: replace(o, read_alone=TRUST)),
    *(Method(f"ecmf, without {m}", EcmfHead, without=m) for m in MODALITIES),
)
BASELINES = tuple(method.name for method in METHODS[1:3])
UNTRAINED = ("product of experts", "late average", *(f"{m} alone" for m in TRUST))


def untrained(
    pools: Mapping[Modality, Pool], labels: int, prior: NDArray[np.float64]
) -> dict[str, Predictor]:
    """The UNTRAINED, which need the branches' opinions and the label prior in them, of ``pools``."""
    own = own_priors(pools, labels)

    def single(modality: Modality) -> Predictor:
        return lambda batch: baselines.single(batch, modality, prior, own)

    return {
        "product of experts": lambda batch: product_of_experts(batch, prior, own),
        "late average": lambda batch: baselines.late_average(batch, prior, own),
        **{f"{m} alone": single(m) for m in TRUST if m in own},
    }


def trained(
    method: Method,
    pools: Mapping[Modality, Pool],
    labels: int,
    prior: NDArray[np.float64],
    fit: FitOptions,
) -> Predictor:
    """Train ``method`` with ``fit``'s seed on pairs of ``pools``."""
    dims: dict[str, int] = {m: pools[m].embedding.shape[1] for m in MODALITIES}
    torch.manual_seed(fit.seed)
    head = method.make(dims, labels, method.options(fit.head))
    if isinstance(head, EcmfHead):
        start(head, pools, prior, fit.pairing)

    def sample(rng: np.random.Generator) -> tuple[dict[str, Tensor], Tensor]:
        subset = frozenset(MODALITIES) if method.everything else None
        drawn = draw(pools, labels, fit.batch, rng, fit.pairing, prior=prior, subset=subset)
        return tensors(hide(drawn, method.without))

    descend(head, sample, fit, what=f"{method.name}, seed {fit.seed}")
    return lambda batch: predict(head, hide(batch, method.without, drop=False))[0]


def serves(name: str, subset: frozenset[Modality]) -> bool:
    """Whether the method of that name can say anything of samples with just these cues."""
    if name.endswith(" alone"):
        return name.removesuffix(" alone") in subset
    hidden = {m for m in MODALITIES if name.endswith(f"without {m}")}
    return bool((subset - hidden) & set(TRUST))


def hide(batch: Batch, modality: Modality | None, *, drop: bool = True) -> Batch:
    """The batch without one modality; with ``drop`` also without the samples that had nothing else to go by."""
    if modality is None:
        return batch
    keep = np.array([m != modality for m in MODALITIES], np.float32)
    quality = batch.quality * keep
    rows = (quality[:, [MODALITIES.index(m) for m in TRUST]] > 0).any(axis=1) | (not drop)
    cues = {m: (cue if m != modality else np.zeros_like(cue))[rows] for m, cue in batch.cues.items()}
    log_probs = batch.log_probs * keep[:, None]
    return Batch(cues, log_probs[rows], quality[rows], batch.target[rows])
