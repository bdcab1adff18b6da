"""The ECMF fusion head (arXiv 2508.05991, section 3.4) in torch, on one page.

Each cue becomes a token. Self-attention over the tokens, with a residual from the projected originals, decides how far
each cue is believed to speak of the person's emotion at all; under that belief the branches' calibrated opinions are
multiplied (a mixture over the hypotheses "cue m speaks" and "cue m is off"), so that agreeing cues strengthen each
other fully and one that clearly contradicts the others falls silent. The readable weights say what each cue moved.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor, nn
from torch.nn import functional

from ecmf.cue import MODALITIES

EXPERTS = torch.tensor([1.0, 0.0, 1.0, 1.0])
"""Which tokens bring label probabilities of their own: face, voice and text; the scene is context only."""
NAMING = tuple(m for m, names in zip(MODALITIES, EXPERTS.tolist(), strict=True) if names)
SUBSETS = tuple(product((0, 1), repeat=len(NAMING)))
"""Which of face, voice and text are there: the corners between which the temperature is interpolated."""
SILENT = 0.02
"""What a cue that moves nothing counts among the weights, in nats: keeps them defined when no cue says anything."""
OFF = 0.02
"""How likely an untrained head holds a cue to be off."""


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
        width, cues = options.width, len(MODALITIES)
        self.project = nn.ModuleList(nn.Linear(dims[m] + labels, width) for m in MODALITIES)
        self.norm_in = nn.ModuleList(nn.LayerNorm(width) for _ in MODALITIES)
        self.kind = nn.Parameter(torch.randn(cues, width) * 0.02)
        self.qkv = nn.Linear(width, 3 * width)
        self.mix = nn.Linear(width, width)
        self.norm_mixed = nn.LayerNorm(width)
        self.weigh = nn.Linear(width, 1)
        self.read = nn.Linear(width, labels)
        self.dropout = nn.Dropout(options.dropout)
        self.trust = nn.Parameter(torch.full((cues,), 0.5413))  # softplus -> 1
        self.prior = nn.Parameter(torch.zeros(cues, labels))
        self.bias = nn.Parameter(torch.zeros(labels))
        self.doubt = nn.Parameter(torch.logit(torch.full((cues,), OFF)))
        self.against = nn.Parameter(torch.zeros(cues, cues))
        self.idle = nn.Parameter(torch.zeros(labels))
        self.temperature = nn.Parameter(torch.zeros(1 + len(SUBSETS)), requires_grad=False)
        self.register_buffer("experts", EXPERTS.clone())
        for layer in (self.weigh, self.read):  # start as the mixture of the experts
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        for projection, names in zip(self.project, EXPERTS.tolist(), strict=True):
            if not names and isinstance(projection, nn.Linear):
                nn.init.zeros_(projection.weight)  # context says nothing until it is learned what it says

    def start_from(
        self, own: Tensor, prior: Tensor, off: Tensor | None = None, idle: Tensor | None = None
    ) -> None:
        """Begin as the mixture over calibrated experts under ``prior``, which training can then only leave for cause.

        own: float32[4, L], the label prior that each branch's probabilities contain (ones where it has none);
        prior: float32[L], of the labels to be told apart. Both are positive.
        off: float32[4, 4], how likely the cue of a row is off where that of the column is there, too; 0 where the
        column changes nothing. idle: float32[L], what a cue that is off speaks for; as ``prior`` when None.
        """
        with torch.no_grad():
            self.prior.copy_(-torch.log(own))
            self.bias.copy_(torch.log(prior))
            self.idle.copy_(torch.log(prior if idle is None else idle))
            if off is not None:
                self.against.copy_((torch.logit(off.clamp(min=OFF)) - self.doubt[:, None]) * (off > 0))

    def forward(
        self, face: Tensor, scene: Tensor, voice: Tensor, text: Tensor, log_probs: Tensor, quality: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Fuse a batch.

        face, scene, voice, text: float32[B, d of the modality], any finite value where absent.
        log_probs: float32[B, 4, L], the branches' calibrated log-probabilities (zeros where there are none).
        quality: float32[B, 4] in [0, 1]; 0 masks the token. Every output is continuous in it, down to 0.
        Returns logits float32[B, L] and weights float32[B, 4] that sum to 1 over the present tokens.
        """
        present = (quality > 0).to(quality.dtype)
        seen = visible(quality)
        bias = torch.log(quality.clamp(min=1e-9)) * present - 1e4 * (1 - present)
        log_probs = log_probs * (present * self.experts).unsqueeze(-1)
        tokens = self._tokens((face, scene, voice, text), log_probs, present, bias)
        score = self.weigh(tokens).squeeze(-1)

        speaks = torch.sigmoid(score - self.doubt - seen @ self.against.t())
        target = torch.log_softmax(self.bias, dim=-1)
        opinion = functional.softplus(self.trust).view(1, -1, 1) * log_probs + self.prior
        unknown = torch.logsumexp(opinion + target, dim=-1, keepdim=True)
        ratio = torch.exp(opinion - unknown)  # likelihood of each label, over that of not knowing
        idle = torch.logsumexp(opinion + torch.log_softmax(self.idle, dim=-1), dim=-1, keepdim=True) - unknown
        on = seen * self.experts
        off = (on * (1 - speaks)).unsqueeze(-1) * torch.exp(idle)
        said = (on * speaks).unsqueeze(-1) * ratio
        heard = 1 - on.unsqueeze(-1) + off + said
        fused = target + torch.log(heard).sum(1)

        stands = (torch.softmax(fused, dim=-1).unsqueeze(1) * said / heard).sum(-1)
        alone = torch.log_softmax(target + torch.log(heard), dim=-1)
        moved = (alone.exp() * (alone - target)).sum(-1)
        weights = torch.softmax(score + bias + torch.log(SILENT + stands * moved), dim=-1)
        logits = fused + self.read(self.dropout((weights.unsqueeze(-1) * tokens).sum(1)))
        scale = self.corners(quality) @ self.temperature
        return logits * torch.exp(-scale).unsqueeze(-1), weights * present

    def _tokens(self, cues: tuple[Tensor, ...], log_probs: Tensor, present: Tensor, bias: Tensor) -> Tensor:
        """float32[B, 4, width]: each cue and its opinion, in the light of the others."""
        originals = torch.stack(
            [
                norm(project(torch.cat([self.dropout(cue), log_probs[:, index]], dim=-1)))
                for index, (cue, project, norm) in enumerate(
                    zip(cues, self.project, self.norm_in, strict=True)
                )
            ],
            dim=1,
        )
        tokens = (self.dropout(originals) + self.kind) * present.unsqueeze(-1)
        if self.options.attention:
            attended = attend(tokens, bias, self.qkv, self.mix, self.options.heads)
            tokens = tokens + attended if self.options.residual else attended
        mixed: Tensor = self.norm_mixed(tokens) * present.unsqueeze(-1)
        return mixed

    def corners(self, quality: Tensor) -> Tensor:
        """What each temperature counts, float32[B, 9]: one for all, and one for each subset of face, voice and text.

        Between the subsets it goes by how far each cue is there, so that one that fades brings no jump.
        """
        seen = visible(quality)[:, [MODALITIES.index(m) for m in NAMING]]
        found = [torch.ones_like(seen[:, 0])]
        for subset in SUBSETS:
            shares = [seen[:, i] if there else 1 - seen[:, i] for i, there in enumerate(subset)]
            found.append(shares[0] * shares[1] * shares[2])
        return torch.stack(found, dim=-1)


def visible(quality: Tensor) -> Tensor:
    """How far a cue of this quality is heard, 0 to 1: 0.94 at a quality of 0.5, 0.59 at 0.2, none at 0."""
    return 1 - (1 - quality) ** 4


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
