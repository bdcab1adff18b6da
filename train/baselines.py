"""What ECMF's head is compared with, trained in the same loop on the same cues.

All take ``ecmf.fusion.EcmfHead``'s inputs and give logits and weights. Each modality's cue is its embedding and its
branch's log-probabilities side by side, zeros where absent: nothing is kept from a baseline that the head sees.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ecmf.cue import MODALITIES, Modality
from ecmf.fusion import EXPERTS, HeadOptions
from train.mer_head import AttentionBaseline, three_layers
from train.pairing import Batch


class _Cues(nn.Module):
    """Shapes the head's inputs into one list of cues."""

    def __init__(self, dims: Mapping[str, int], labels: int) -> None:
        super().__init__()
        self.sizes = [dims[m] + labels for m in MODALITIES]
        self.scale = nn.ModuleList(nn.LayerNorm(size, elementwise_affine=False) for size in self.sizes)

    def together(
        self, face: Tensor, scene: Tensor, voice: Tensor, text: Tensor, log_probs: Tensor, quality: Tensor
    ) -> tuple[Tensor, Tensor]:
        """float32[B, sum of sizes] with absent cues zero, and float32[B, 4] presence."""
        present = (quality > 0).to(quality.dtype)
        parts = [
            scale(torch.cat([cue, log_probs[:, index]], dim=1)) * present[:, index : index + 1]
            for index, (cue, scale) in enumerate(zip((face, scene, voice, text), self.scale, strict=True))
        ]
        return torch.cat(parts, dim=1), present


class MerAttention(_Cues):
    """The MER2025 challenge's attention baseline (see ``train.mer_head.AttentionBaseline``)."""

    def __init__(self, dims: Mapping[str, int], labels: int, options: HeadOptions) -> None:
        super().__init__(dims, labels)
        self.fuse = AttentionBaseline(self.sizes, range(len(MODALITIES)), labels, options)

    def forward(self, **inputs: Tensor) -> tuple[Tensor, Tensor]:
        found: tuple[Tensor, Tensor] = self.fuse(*self.together(**inputs))
        return found


class Concatenation(_Cues):
    """All cues side by side through one MLP; it is told which are present, and has no weights to read."""

    def __init__(self, dims: Mapping[str, int], labels: int, options: HeadOptions) -> None:
        super().__init__(dims, labels)
        width = 2 * options.width
        self.read = nn.Sequential(
            three_layers(sum(self.sizes) + len(MODALITIES), width, options.dropout), nn.Linear(width, labels)
        )

    def forward(self, **inputs: Tensor) -> tuple[Tensor, Tensor]:
        cues, present = self.together(**inputs)
        return self.read(torch.cat([cues, present], dim=1)), present / present.sum(1, keepdim=True)


def expert_probs(
    batch: Batch, prior: NDArray[np.float64], own: Mapping[Modality, NDArray[np.float64]]
) -> NDArray[np.float64]:
    """float64[n, 4, labels]: each branch's own opinion at the target prior; the prior itself where it has none."""
    labels = batch.log_probs.shape[2]
    probs = np.tile(prior, (len(batch.target), len(MODALITIES), 1)).reshape(-1, len(MODALITIES), labels)
    for index, modality in enumerate(MODALITIES):
        if EXPERTS[index] and modality in own:
            here = batch.quality[:, index] > 0
            said = np.exp(batch.log_probs[here, index].astype(np.float64)) * prior / own[modality]
            probs[here, index] = said / said.sum(axis=1, keepdims=True)
    return probs


def late_average(
    batch: Batch, prior: NDArray[np.float64], own: Mapping[Modality, NDArray[np.float64]]
) -> NDArray[np.float64]:
    """Mean of the present branches' own opinions, float64[n, labels]."""
    present = (batch.quality > 0) * EXPERTS.numpy().astype(np.float64)
    summed = (expert_probs(batch, prior, own) * present[..., None]).sum(axis=1)
    mean: NDArray[np.float64] = summed / present.sum(axis=1, keepdims=True)
    return mean


def single(
    batch: Batch, modality: Modality, prior: NDArray[np.float64], own: Mapping[Modality, NDArray[np.float64]]
) -> NDArray[np.float64]:
    """One branch alone, float64[n, labels]."""
    return expert_probs(batch, prior, own)[:, MODALITIES.index(modality)]
