"""The ECMF fusion head (arXiv 2508.05991, section 3.4) in torch, on one page.

Each cue becomes a token; self-attention over the tokens, with a residual from the projected originals, decides
how much each modality counts; the readable weights gate both the tokens and the branches' own label
probabilities, so that with equal weights the head is the product of the calibrated experts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from ecmf.cue import MODALITIES

EXPERTS = torch.tensor([1.0, 0.0, 1.0, 1.0])
"""Which tokens bring label probabilities of their own: face, voice and text; the scene is context only."""


@dataclass(frozen=True)
class HeadOptions:
    """Size and switches of the head; the switches exist for the ablation."""

    width: int = 48
    heads: int = 4
    dropout: float = 0.3
    attention: bool = True
    residual: bool = True


class EcmfHead(nn.Module):
    """Four cue tokens in, label logits and modality weights out."""

    experts: Tensor

    def __init__(self, dims: Mapping[str, int], labels: int, options: HeadOptions | None = None) -> None:
        """``dims``: embedding size per modality, in the order of MODALITIES."""
        super().__init__()
        self.options = options = options or HeadOptions()
        width = options.width
        self.project = nn.ModuleList(nn.Linear(dims[m] + labels, width) for m in MODALITIES)
        self.norm_in = nn.ModuleList(nn.LayerNorm(width) for _ in MODALITIES)
        self.kind = nn.Parameter(torch.randn(len(MODALITIES), width) * 0.02)
        self.qkv = nn.Linear(width, 3 * width)
        self.mix = nn.Linear(width, width)
        self.norm_mixed = nn.LayerNorm(width)
        self.weigh = nn.Linear(width, 1)
        self.read = nn.Linear(width, labels)
        self.dropout = nn.Dropout(options.dropout)
        self.trust = nn.Parameter(torch.full((len(MODALITIES),), 0.5413))  # softplus -> 1
        self.prior = nn.Parameter(torch.zeros(len(MODALITIES), labels))
        self.bias = nn.Parameter(torch.zeros(labels))
        self.temperature = nn.Parameter(torch.zeros(1 + len(MODALITIES)), requires_grad=False)
        self.register_buffer("experts", EXPERTS.clone())
        for layer in (self.weigh, self.read):  # start as the product of experts
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def start_from(self, own: Tensor, prior: Tensor) -> None:
        """Begin as the product of calibrated experts under ``prior``, which training can then only leave for cause.

        own: float32[4, L], the label prior that each branch's probabilities contain (ones where it has none);
        prior: float32[L], of the labels to be told apart. Both are positive.
        """
        with torch.no_grad():
            self.prior.copy_(-torch.log(own))
            self.bias.copy_(torch.log(prior))

    def forward(
        self, face: Tensor, scene: Tensor, voice: Tensor, text: Tensor, log_probs: Tensor, quality: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Fuse a batch.

        face, scene, voice, text: float32[B, d of the modality], any finite value where absent.
        log_probs: float32[B, 4, L], the branches' calibrated log-probabilities (zeros where there are none).
        quality: float32[B, 4] in [0, 1]; 0 masks the token.
        Returns logits float32[B, L] and weights float32[B, 4] that sum to 1 over the present tokens.
        """
        present = (quality > 0).to(quality.dtype)
        bias = torch.log(quality.clamp(min=1e-9)) * present - 1e4 * (1 - present)
        log_probs = log_probs * (present * self.experts).unsqueeze(-1)
        originals = torch.stack(
            [
                norm(project(torch.cat([cue, log_probs[:, index]], dim=-1)))
                for index, (cue, project, norm) in enumerate(
                    zip((face, scene, voice, text), self.project, self.norm_in, strict=True)
                )
            ],
            dim=1,
        )
        tokens = (self.dropout(originals) + self.kind) * present.unsqueeze(-1)
        if self.options.attention:
            attended = attend(tokens, bias, self.qkv, self.mix, self.options.heads)
            tokens = tokens + attended if self.options.residual else attended
        tokens = self.norm_mixed(tokens) * present.unsqueeze(-1)
        weights = torch.softmax(self.weigh(tokens).squeeze(-1) + bias, dim=-1)

        expert = weights * self.experts
        evidence = (quality * self.experts).sum(-1, keepdim=True)
        gate = evidence * expert / expert.sum(-1, keepdim=True).clamp(min=1e-6)
        opinions = functional.softplus(self.trust).view(1, -1, 1) * log_probs + self.prior
        logits = (gate.unsqueeze(-1) * opinions).sum(1)
        logits = logits + self.bias + self.read(self.dropout((weights.unsqueeze(-1) * tokens).sum(1)))
        scale = self.temperature[0] + (quality * self.temperature[1:]).sum(-1, keepdim=True)
        return logits * torch.exp(-scale), weights * present


def attend(tokens: Tensor, bias: Tensor, qkv: nn.Linear, mix: nn.Linear, heads: int) -> Tensor:
    """Multi-head self-attention, float[B, n, width] -> the same; ``bias`` float[B, n] is added per key."""
    batch, count, width = tokens.shape
    query, key, value = (
        qkv(tokens).view(batch, count, 3, heads, width // heads).permute(2, 0, 3, 1, 4).unbind(0)
    )
    scores = query @ key.transpose(-1, -2) * (width // heads) ** -0.5 + bias[:, None, None, :]
    mixed = (torch.softmax(scores, dim=-1) @ value).transpose(1, 2).reshape(batch, count, width)
    found: Tensor = mix(mixed)
    return found
