"""The face network trained from scratch: a small residual network of plain 3 x 3 convolutions.

He et al. 2016, with as many channels as pays on a CPU, whose dense convolutions do several times the work of
depthwise ones in the same time.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LABELS = 8
"""FER+'s eight emotions, in the order of ``ecmf.labels.FERPLUS``."""
EMBEDDING = 128
_SHAPES = 48
_FLOOR = 4.0
"""Grey levels: a crop with less contrast than this is not stretched further."""


class Conv(nn.Sequential):
    """3 x 3 convolution, batch norm, perhaps ReLU."""

    def __init__(self, inside: int, outside: int, stride: int = 1, relu: bool = True) -> None:
        layers: list[nn.Module] = [
            nn.Conv2d(inside, outside, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outside),
        ]
        super().__init__(*layers, *([nn.ReLU(inplace=True)] if relu else []))


class Block(nn.Module):
    """Two convolutions beside the identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(Conv(channels, channels), Conv(channels, channels, relu=False))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.body(x))


class ResidualNet(nn.Module):
    """Crop and blendshapes -> embedding and logits."""

    def __init__(
        self, inner: int, channels: tuple[int, ...], blocks: tuple[int, ...], dropout: float
    ) -> None:
        """``inner``: side to which the crop is brought first; ``channels``: of the first convolution and of each
        stage, which halves the side; ``blocks``: of each stage.
        """
        super().__init__()
        self.inner = inner
        layers: list[nn.Module] = [Conv(1, channels[0])]
        for before, after, count in zip(channels[:-1], channels[1:], blocks, strict=True):
            layers += [Conv(before, after, 2), *(Block(after) for _ in range(count))]
        self.body = nn.Sequential(*layers)
        self.shapes = nn.Sequential(nn.Linear(52, _SHAPES), nn.ReLU())
        self.join = nn.Sequential(
            nn.Dropout(dropout),
            nn.Linear(channels[-1] + _SHAPES, EMBEDDING),
            nn.ReLU(),
            nn.Dropout(dropout / 2),
        )
        self.classify = nn.Linear(EMBEDDING, LABELS)
        for layer in self.body.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")

    def prepare(self, face: Tensor) -> Tensor:
        """float32[b, 1, inner, inner] from grey levels float32[b, 1, s, s]: resized, mean 0 and deviation 1.

        Each crop for itself, so that light and camera gain do not matter.
        """
        if face.shape[-1] != self.inner:
            face = F.interpolate(face, size=(self.inner, self.inner), mode="bilinear", align_corners=False)
        centred = face - face.mean(dim=(1, 2, 3), keepdim=True)
        spread = centred.square().mean(dim=(1, 2, 3), keepdim=True).sqrt()
        return centred / (spread + _FLOOR)

    def pool(self, face: Tensor) -> Tensor:
        """float32[b, c]: what the convolutions see in float32[b, 1, s, s], averaged over the face."""
        return self.body(self.prepare(face)).float().mean(dim=(2, 3))

    def read(self, pooled: Tensor, blendshapes: Tensor) -> tuple[Tensor, Tensor]:
        """Embedding and logits from pooled features and the blendshapes."""
        embedding = self.join(torch.cat([pooled, self.shapes(blendshapes)], dim=1))
        return embedding, self.classify(embedding)

    def forward(self, face: Tensor, blendshapes: Tensor) -> tuple[Tensor, Tensor]:
        """``face``: float32[b, 1, s, s], grey levels 0 to 255; ``blendshapes``: float32[b, 52] in [0, 1], all
        zero when unknown. Returns the embedding float32[b, 128] (not negative) and logits float32[b, 8].
        """
        return self.read(self.pool(face), blendshapes)
