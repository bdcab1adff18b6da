"""The voice network: a fixed reduction of the encoder's layers, then a few small members that vote."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn


@dataclass(frozen=True)
class Shape:
    states: int
    """Directions that are kept of the stacked layers."""
    prosody: int
    labels: int
    hidden: int = 128
    embedding: int = 64
    """Of one member; the bundle's embedding is the members' side by side."""
    dropout: float = 0.3


class ClipDropout(nn.Module):
    """Drops a direction for a whole clip (Gal & Ghahramani 2016): no worse than frame by frame, and sooner done."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, frames: Tensor) -> Tensor:
        """frames float[B, T, d] -> the same shape."""
        if not self.training:
            return frames
        kept = torch.rand(len(frames), 1, frames.shape[2]) >= self.share
        return frames * (kept / (1 - self.share))


class VoiceMember(nn.Module):
    """Attentive statistics pooling over speech (Okabe et al. 2018), prosody beside it."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.project = nn.Sequential(
            ClipDropout(shape.dropout / 2),
            nn.Linear(shape.states, shape.hidden),
            nn.GELU(),
            nn.LayerNorm(shape.hidden),
        )
        self.attend = nn.Sequential(nn.Linear(shape.hidden, 32), nn.Tanh(), nn.Linear(32, shape.hidden))
        self.manner = nn.Sequential(nn.Linear(shape.prosody, 32), nn.GELU(), nn.Dropout(shape.dropout))
        self.join = nn.Sequential(
            nn.Dropout(shape.dropout),
            nn.Linear(2 * shape.hidden + 32, shape.embedding),
            nn.GELU(),
            nn.LayerNorm(shape.embedding),
        )
        self.classify = nn.Sequential(nn.Dropout(shape.dropout), nn.Linear(shape.embedding, shape.labels))

    def forward(self, reduced: Tensor, mask: Tensor, prosody: Tensor) -> tuple[Tensor, Tensor]:
        """reduced float[B, T, states], mask float[B, T] in [0, 1], prosody float[B, k] -> embedding, logits."""
        frames = self.project(reduced)
        # Frames without speech get no weight; the floor keeps a window of silence finite.
        scores = self.attend(frames) + mask.clamp(min=1e-4).log()[..., None]
        shares = scores.softmax(1)
        mean = (shares * frames).sum(1)
        spread = ((shares * frames.square()).sum(1) - mean.square()).clamp(min=1e-5).sqrt()
        embedding = self.join(torch.cat([mean, spread, self.manner(prosody)], 1))
        return embedding, self.classify(embedding)


class Reduction(nn.Module):
    """Standardises the stacked layers and the prosody, and keeps the layers' main directions.

    Neighbouring layers of an encoder say much the same; 1152 numbers a frame shrink to a fraction without loss here.
    """

    weight: Tensor
    bias: Tensor
    prosody_mean: Tensor
    prosody_scale: Tensor

    def __init__(self, stacked: int, kept: int, prosody: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.zeros(stacked, kept))
        self.register_buffer("bias", torch.zeros(kept))
        self.register_buffer("prosody_mean", torch.zeros(prosody))
        self.register_buffer("prosody_scale", torch.ones(prosody))

    def forward(self, states: Tensor, prosody: Tensor) -> tuple[Tensor, Tensor]:
        """states float[B, layers, T, d], prosody float[B, k] -> float[B, T, kept], float[B, k]."""
        stacked = states.permute(0, 2, 1, 3).flatten(2)
        reduced = (stacked @ self.weight + self.bias).clamp(-30, 30)
        return reduced, ((prosody - self.prosody_mean) * self.prosody_scale).clamp(-4, 4)


class VoiceNetwork(nn.Module):
    """The members' embeddings side by side and their mean logits."""

    def __init__(self, reduction: Reduction, members: list[VoiceMember]) -> None:
        super().__init__()
        self.reduction = reduction
        self.members = nn.ModuleList(members)

    def forward(self, states: Tensor, mask: Tensor, prosody: Tensor) -> tuple[Tensor, Tensor]:
        """states float[B, layers, T, d], mask float[B, T], prosody float[B, k] -> embedding, logits."""
        reduced, manner = self.reduction(states, prosody)
        return self.vote(reduced, manner, mask)

    @torch.no_grad()
    def answer(
        self, states: NDArray[np.float32], mask: NDArray[np.float32], prosody: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Logits float32[labels] of one clip: states float32[layers, T, d], mask float32[T], prosody float32[k]."""
        tensors = (torch.from_numpy(part)[None] for part in (states, mask, prosody))
        logits: NDArray[np.float32] = self(*tensors)[1][0].numpy()
        return logits

    def vote(self, reduced: Tensor, prosody: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """The same from the reduction's outputs."""
        outputs = [member(reduced, mask, prosody) for member in self.members]
        logits = torch.stack([logits for _, logits in outputs]).mean(0)
        return torch.cat([embedding for embedding, _ in outputs], 1), logits
