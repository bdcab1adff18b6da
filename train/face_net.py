"""The face network: a small residual network over the aligned crop, joined by the 52 blendshapes.

Residual blocks after He et al. 2016; trained from scratch on soft votes after Barsoum et al. 2016.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

LABELS = 8
"""FER+'s eight emotions, in the order of ``ecmf.labels.FERPLUS``."""
EMBEDDING = 128
_SHAPES = 48
_FLOOR = 4.0
"""Grey levels: a crop with less contrast than this is not stretched further."""


def _conv(inside: int, outside: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inside, outside, 3, stride, 1, bias=False), nn.BatchNorm2d(outside), nn.ReLU(inplace=True)
    )


class Block(nn.Module):
    """Two 3 x 3 convolutions beside an identity, or beside an averaged 1 x 1 projection where the shape changes."""

    def __init__(self, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        self.first = _conv(inside, outside, stride)
        self.second = nn.Conv2d(outside, outside, 3, 1, 1, bias=False)
        norm = nn.BatchNorm2d(outside)
        nn.init.zeros_(norm.weight)  # every block starts as its shortcut
        self.norm: nn.Module = norm
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or inside != outside:
            pool = nn.AvgPool2d(stride, ceil_mode=True) if stride > 1 else nn.Identity()
            self.shortcut = nn.Sequential(
                pool, nn.Conv2d(inside, outside, 1, bias=False), nn.BatchNorm2d(outside)
            )

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.norm(self.second(self.first(x))) + self.shortcut(x))


class FaceNet(nn.Module):
    """Crop and blendshapes -> embedding and logits. Works at any crop size; trained over several."""

    def __init__(self, widths: tuple[int, ...], depths: tuple[int, ...], dropout: float) -> None:
        """``widths``: channels of the stem and of each stage, which halves the size; ``depths``: blocks a stage."""
        super().__init__()
        layers: list[nn.Module] = [_conv(1, widths[0])]
        inside = widths[0]
        for outside, depth in zip(widths[1:], depths, strict=True):
            layers += [
                Block(inside if i == 0 else outside, outside, 2 if i == 0 else 1) for i in range(depth)
            ]
            inside = outside
        self.body = nn.Sequential(*layers)
        self.shapes = nn.Sequential(nn.Linear(52, _SHAPES), nn.ReLU())
        self.join = nn.Sequential(
            nn.Dropout(dropout), nn.Linear(inside + _SHAPES, EMBEDDING), nn.ReLU(), nn.Dropout(dropout / 2)
        )
        self.classify = nn.Linear(EMBEDDING, LABELS)

    def pool(self, face: Tensor) -> Tensor:
        """The convolutions alone: float32[b, widths[-1]] from float32[b, 1, s, s]."""
        # Each crop is brought to mean 0 and deviation 1, so that light and camera gain do not matter.
        centred = face - face.mean(dim=(1, 2, 3), keepdim=True)
        spread = centred.square().mean(dim=(1, 2, 3), keepdim=True).sqrt()
        return self.body(centred / (spread + _FLOOR)).mean(dim=(2, 3))

    def read(self, pooled: Tensor, blendshapes: Tensor) -> tuple[Tensor, Tensor]:
        """Embedding and logits from what ``pool`` gives."""
        embedding = self.join(torch.cat([pooled, self.shapes(blendshapes)], dim=1))
        return embedding, self.classify(embedding)

    def forward(self, face: Tensor, blendshapes: Tensor) -> tuple[Tensor, Tensor]:
        """``face``: float32[b, 1, s, s], grey levels 0 to 255; ``blendshapes``: float32[b, 52] in [0, 1], all
        zero when unknown. Returns the embedding float32[b, 128] (not negative) and logits float32[b, 8].
        """
        return self.read(self.pool(face), blendshapes)
