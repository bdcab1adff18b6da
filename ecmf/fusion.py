"""The ECMF fusion head (arXiv 2508.05991, section 3.4) in torch, on one page.

Each cue becomes a token. Self-attention over the tokens, with a residual from the projected originals, decides how far
each cue is believed to speak of the person's emotion at all; under that belief the branches' calibrated opinions are
multiplied (a mixture over the hypotheses "cue m speaks" and "cue m is off"), so that agreeing cues strengthen each
other fully and one that clearly contradicts the others falls silent. A cue is doubted as far as others tell something
else, and one that is alone can leave exactly what its branch says. The readable weights say what each cue moved.

Live it runs for one sample at a time, where the number of operators costs more than the arithmetic: so tensors keep
four cues in their second dimension throughout, and products over cues are sums of logarithms by one small matrix.
"""

from __future__ import annotations

import math
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
OFF = 0.01
"""How likely an untrained head holds a cue to be off, where another is there to tell."""
FADED = math.log(1.5)
"""Logarithm of the temperature towards which an estimate goes as everything that it rests on fades."""
NOTHING = 1e-9
"""Quality and visibility below this count as none, so that their logarithms are finite."""


@dataclass(frozen=True)
class HeadOptions:
    """Size and switches of the head; attention and residual are switched off for the ablation alone."""

    width: int = 48
    heads: int = 4
    dropout: float = 0.3
    attention: bool = True
    residual: bool = True
    read: bool = True
    """Also read the label from the tokens. Off: the branches' opinions alone name it, and attention judges them."""
    read_alone: tuple[str, ...] = NAMING
    """Which cues it is also read from where they are alone. Others then leave exactly what their branch says."""


class EcmfHead(nn.Module):
    """Four cue tokens in, label logits and modality weights out."""

    experts: Tensor
    logs: Tensor
    others: Tensor
    counts: Tensor

    def __init__(self, dims: Mapping[str, int], labels: int, options: HeadOptions | None = None) -> None:
        """``dims``: embedding size per modality, in the order of MODALITIES."""
        super().__init__()
        self.options = options = options or HeadOptions()
        width, cues = options.width, len(MODALITIES)
        self.project = nn.ModuleList(nn.Linear(dims[m], width) for m in MODALITIES)
        self.opine = nn.Parameter(torch.empty(cues, labels, width))
        self.kind = nn.Parameter(torch.randn(cues, width) * 0.02)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.mix = nn.Linear(width, width, bias=False)
        self.norm_mixed = nn.LayerNorm(width)
        self.weigh = nn.Linear(width, 1, bias=False)
        self.read = nn.Linear(width, labels) if options.read else None
        self.dropout = nn.Dropout(options.dropout)
        self.trust = nn.Parameter(torch.full((cues, 1), 0.5413))  # softplus -> 1
        self.prior = nn.Parameter(torch.zeros(cues, labels))
        self.bias = nn.Parameter(torch.zeros(labels))
        self.doubt = nn.Parameter(torch.logit(torch.full((cues, 1), OFF)))
        self.against = nn.Parameter(torch.zeros(cues, cues))
        self.idle = nn.Parameter(torch.zeros(labels))
        start = torch.zeros(1 + len(SUBSETS))
        start[1 + SUBSETS.index((0,) * len(NAMING))] = FADED
        self.temperature = nn.Parameter(start, requires_grad=False)
        self.register_buffer("experts", EXPERTS.clone().unsqueeze(-1), persistent=False)
        self.register_buffer("logs", _factors(), persistent=False)
        self.register_buffer("others", EXPERTS * (1 - torch.eye(cues)), persistent=False)
        enough = torch.tensor([[2.0] if m in options.read_alone else [1.0] for m in MODALITIES])
        self.register_buffer("counts", enough, persistent=False)
        nn.init.uniform_(self.opine, -(1 / width**0.5), 1 / width**0.5)
        for layer in (self.weigh, self.read):  # start as the mixture of the experts
            if layer is not None:
                for parameter in layer.parameters():
                    nn.init.zeros_(parameter)
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
                self.against.copy_((torch.logit(off.clamp(min=OFF)) - self.doubt) * (off > 0))

    def forward(
        self, face: Tensor, scene: Tensor, voice: Tensor, text: Tensor, log_probs: Tensor, quality: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Fuse a batch.

        face, scene, voice, text: float32[B, d of the modality], any finite value where absent.
        log_probs: float32[B, 4, L], the branches' calibrated log-probabilities (zeros where there are none).
        quality: float32[B, 4] in [0, 1], not all 0; 0 masks the token. As a cue's quality falls to 0 no output jumps,
        as long as another of face, voice and text keeps one above 0.
        Returns logits float32[B, L] and weights float32[B, 4] that sum to 1 over the present tokens.
        """
        tokens = self._tokens((face, scene, voice, text), log_probs, quality)
        score = self.weigh(tokens)
        quality = quality.unsqueeze(-1)
        unseen = missed(quality)
        seen = 1 - unseen

        on = seen * self.experts
        # What all fade to is not the prior: see FADED.
        on = on / on.amax(dim=1, keepdim=True).clamp(min=NOTHING)
        target = torch.softmax(self.bias, dim=-1)
        likelihood = torch.exp(functional.softplus(self.trust) * log_probs + self.prior)
        known = likelihood @ torch.stack([target, torch.softmax(self.idle, dim=-1)], dim=-1)
        unknown, idle = known.split(1, dim=-1)
        share = on / unknown  # of a likelihood over that of not knowing
        tells = (likelihood - unknown).abs() @ target.unsqueeze(-1) * share / 2
        off = torch.sigmoid(self.doubt + self.against @ seen - score) * (self.others @ tells).clamp(max=1)
        silent = share * off
        said = (share - silent) * likelihood
        heard = said + (silent * idle + (1 - on))
        telling = torch.log(heard)
        fused = torch.log(target) + telling.sum(1)

        stands = (said / heard) @ torch.softmax(fused, dim=-1).unsqueeze(-1)
        total = heard @ target.unsqueeze(-1)
        moved = (heard * telling) @ target.unsqueeze(-1) / total - torch.log(total)
        weights = quality * torch.exp(score) * (SILENT + stands * moved)
        weights = weights / weights.sum(1, keepdim=True)
        if self.read is not None:
            reading = self.read(self.dropout((weights * tokens).sum(1)))
            if not set(NAMING) <= set(self.options.read_alone):
                reading = reading * ((on * self.counts).sum(1) - 1).clamp(0, 1)
            fused = fused + reading
        sharpness = -(self.temperature[1:] + self.temperature[0])
        return fused * torch.exp(sharpness @ self._corners(seen, unseen)), weights.squeeze(-1)

    def _tokens(self, cues: tuple[Tensor, ...], log_probs: Tensor, quality: Tensor) -> Tensor:
        """float32[B, 4, width]: each cue and its opinion, in the light of the others that are there."""
        width = self.options.width
        projected = [project(self.dropout(cue)) for cue, project in zip(cues, self.project, strict=True)]
        opinion = (log_probs.unsqueeze(2) @ self.opine).squeeze(2)
        originals = torch.cat(projected, dim=1).reshape(-1, len(cues), width) + opinion
        tokens = self.dropout(functional.layer_norm(originals, (width,))) + self.kind
        if self.options.attention:
            bias = torch.log(quality.clamp(min=NOTHING))  # an absent cue is attended to with a weight of 1e-9
            attended = attend(tokens, bias, self.qkv, self.mix, self.options.heads)
            tokens = tokens + attended if self.options.residual else attended
        mixed: Tensor = self.norm_mixed(tokens)
        return mixed

    def corners(self, quality: Tensor) -> Tensor:
        """What each temperature counts, float32[B, 9]: one for all, and one for each subset of face, voice and text.

        quality: float32[B, 4]. Between the subsets it goes by how far each cue is there, so that one that fades brings
        no jump.
        """
        unseen = missed(quality.unsqueeze(-1))
        found = self._corners(1 - unseen, unseen).squeeze(-1)
        return torch.cat([torch.ones_like(found[:, :1]), found], dim=-1)

    def _corners(self, seen: Tensor, unseen: Tensor) -> Tensor:
        """float32[B, 8, 1]: how far just each of SUBSETS is seen."""
        return torch.exp(self.logs @ torch.log(torch.cat([seen, unseen], dim=1).clamp(min=NOTHING)))


def _factors() -> Tensor:
    """float32[8, 8]: which of seen, and of unseen, to multiply for each of SUBSETS."""
    cues = len(MODALITIES)
    rows = torch.zeros(len(SUBSETS), 2 * cues)
    for row, subset in enumerate(SUBSETS):
        for modality, there in zip(NAMING, subset, strict=True):
            rows[row, MODALITIES.index(modality) + (0 if there else cues)] = 1
    return rows


def missed(quality: Tensor) -> Tensor:
    """How far a cue of this quality is not heard, 1 to 0: 0.06 at a quality of 0.5, 0.41 at 0.2, 1 at 0."""
    half = (1 - quality) * (1 - quality)
    return half * half


def attend(tokens: Tensor, bias: Tensor, qkv: nn.Linear, mix: nn.Linear, heads: int) -> Tensor:
    """Multi-head self-attention, float[B, n, width] -> the same; ``bias`` float[B, n] is added per key."""
    count, width = tokens.shape[1:]
    parts = qkv(tokens).reshape(-1, count, 3 * heads, width // heads).transpose(1, 2)
    query, key, value = parts.split(heads, dim=1)
    scores = (query * (width // heads) ** -0.5) @ key.transpose(-1, -2) + bias[:, None, None]
    mixed = (torch.softmax(scores, dim=-1) @ value).transpose(1, 2).reshape(-1, count, width)
    found: Tensor = mix(mixed)
    return found
