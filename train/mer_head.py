"""Heads over several features per modality: ECMF's attention block with one projection a feature, and the challenge's
own attention baseline."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ecmf.cue import MODALITIES
from ecmf.fusion import HeadOptions, attend
from train.input_dropout import InputDropout


class FeatureHead(nn.Module):
    """Features in (one token each), label logits and feature weights out: ``ecmf.fusion`` without live experts."""

    def __init__(
        self, dims: Sequence[int], kinds: Sequence[int], labels: int, options: HeadOptions | None = None
    ) -> None:
        """``dims``: size of each feature; ``kinds``: its modality's number in MODALITIES."""
        super().__init__()
        self.options = options = options or HeadOptions()
        width = options.width
        self.dims = list(dims)
        self.norm_features = nn.ModuleList(nn.LayerNorm(d, elementwise_affine=False) for d in dims)
        self.project = nn.ModuleList(
            nn.Sequential(InputDropout(options.dropout), nn.Linear(d, width)) for d in dims
        )
        self.norm_in = nn.ModuleList(nn.LayerNorm(width) for _ in dims)
        self.kind = nn.Parameter(torch.randn(len(MODALITIES), width) * 0.02)
        self.which = nn.Parameter(torch.randn(len(dims), width) * 0.02)
        self.kinds = list(kinds)
        self.qkv = nn.Linear(width, 3 * width)
        self.mix = nn.Linear(width, width)
        self.norm_mixed = nn.LayerNorm(width)
        self.weigh = nn.Linear(width, 1)
        self.read = nn.Sequential(nn.Dropout(options.dropout), nn.Linear(width, labels))

    def forward(self, features: Tensor, quality: Tensor) -> tuple[Tensor, Tensor]:
        """features: float32[B, sum of dims], side by side; quality: float32[B, n] in [0, 1], 0 masks a feature.

        Returns logits float32[B, L] and weights float32[B, n] that sum to 1 over the present features.
        """
        present = (quality > 0).to(quality.dtype)
        bias = torch.log(quality.clamp(min=1e-9)) * present - 1e4 * (1 - present)
        tokens = torch.stack(
            [
                norm_in(project(norm(part)))
                for part, norm, project, norm_in in zip(
                    torch.split(features, self.dims, dim=1),
                    self.norm_features,
                    self.project,
                    self.norm_in,
                    strict=True,
                )
            ],
            dim=1,
        )
        tokens = (tokens + self.kind[self.kinds] + self.which) * present.unsqueeze(-1)
        if self.options.attention:
            attended = attend(tokens, bias, self.qkv, self.mix, self.options.heads)
            tokens = tokens + attended if self.options.residual else attended
        tokens = self.norm_mixed(tokens) * present.unsqueeze(-1)
        weights = torch.softmax(self.weigh(tokens).squeeze(-1) + bias, dim=-1) * present
        return self.read((weights.unsqueeze(-1) * tokens).sum(1)), weights


class AttentionBaseline(nn.Module):
    """MER2025's own fusion (arXiv 2504.19423): a three-layer MLP each to one size, all of them side by side through an
    MLP to one raw weight each (no softmax), the weighted sum, a linear classifier."""

    def __init__(
        self, dims: Sequence[int], kinds: Sequence[int], labels: int, options: HeadOptions | None = None
    ) -> None:
        super().__init__()
        options = options or HeadOptions()
        width = options.width
        self.dims = list(dims)
        self.encode = nn.ModuleList(three_layers(d, width, options.dropout) for d in dims)
        self.weigh = nn.Sequential(
            three_layers(width * len(dims), width, options.dropout), nn.Linear(width, len(dims))
        )
        self.read = nn.Linear(width, labels)

    def forward(self, features: Tensor, quality: Tensor) -> tuple[Tensor, Tensor]:
        """As FeatureHead's; a missing feature is zeros, as its authors fill it. Weights are raw, any number."""
        present = (quality > 0).to(quality.dtype)
        parts = torch.split(features, self.dims, dim=1)
        hidden = [
            encode(part * present[:, index : index + 1])
            for index, (encode, part) in enumerate(zip(self.encode, parts, strict=True))
        ]
        weights = self.weigh(torch.cat(hidden, dim=1))
        return self.read((torch.stack(hidden, dim=1) * weights.unsqueeze(-1)).sum(1)), weights


def three_layers(inside: int, width: int, dropout: float) -> nn.Sequential:
    """The baseline's encoder."""
    return nn.Sequential(
        InputDropout(dropout),
        nn.Linear(inside, width),
        nn.ReLU(),
        nn.Linear(width, width),
        nn.ReLU(),
        nn.Linear(width, width),
        nn.ReLU(),
    )


class Vote(nn.Module):
    """Members of several folds: the log of their mean probabilities, and their mean weights."""

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, features: Tensor, quality: Tensor) -> tuple[Tensor, Tensor]:
        """As FeatureHead's."""
        found = [member(features, quality) for member in self.members]
        probs = torch.stack([torch.softmax(logits, dim=1) for logits, _ in found]).mean(0)
        return torch.log(probs.clamp(min=1e-9)), torch.stack([weights for _, weights in found]).mean(0)
