"""The face network: EfficientNet-lite0's blocks on the aligned crop, joined by the 52 blendshapes.

Tan & Le 2019, pre-trained on ImageNet; the first stages stay as they are, the later ones are tuned on expressions
(soft votes after Barsoum et al. 2016). The sixth stage keeps its resolution and loses one block, the seventh and the
classifier are left out: faces are small, and the bundle must be.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from ecmf.errors import WeightError

LABELS = 8
"""FER+'s eight emotions, in the order of ``ecmf.labels.FERPLUS``."""
EMBEDDING = 128
STAGES = (
    # blocks, kernel, stride of the first block, expansion, channels
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (3, 5, 1, 6, 192),
)
FROZEN = 5
"""Blocks that stay as ImageNet left them: edges and textures are the same on faces."""
_TOP = 256
_SHAPES = 48
_FLOOR = 4.0
"""Grey levels: a crop with less contrast than this is not stretched further."""
_EPSILON = 1e-3
"""Of the pre-trained batch norms."""


class Conv(nn.Sequential):
    """Convolution with TensorFlow's SAME padding (an odd pixel goes right and below), batch norm, perhaps ReLU6."""

    def __init__(
        self, inside: int, outside: int, kernel: int, stride: int = 1, groups: int = 1, relu: bool = True
    ) -> None:
        before, after = (kernel - stride) // 2, (kernel - stride + 1) // 2
        layers: list[nn.Module] = []
        if before != after:
            layers.append(nn.ZeroPad2d((before, after, before, after)))
            before = 0
        layers += [
            nn.Conv2d(inside, outside, kernel, stride, before, groups=groups, bias=False),
            nn.BatchNorm2d(outside, eps=_EPSILON, momentum=0.05),
        ]
        super().__init__(*layers, *([nn.ReLU6(inplace=True)] if relu else []))


class Block(nn.Module):
    """Inverted residual: widen, filter each channel, narrow."""

    def __init__(self, inside: int, outside: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = inside * expansion
        self.expand: nn.Module = Conv(inside, wide, 1) if expansion > 1 else nn.Identity()
        self.depthwise = Conv(wide, wide, kernel, stride, groups=wide)
        self.project = Conv(wide, outside, 1, relu=False)
        self.residual = stride == 1 and inside == outside

    def forward(self, x: Tensor) -> Tensor:
        y = self.project(self.depthwise(self.expand(x)))
        return x + y if self.residual else y


class FaceNet(nn.Module):
    """Crop and blendshapes -> embedding and logits."""

    def __init__(self, inner: int, dropout: float) -> None:
        """``inner``: the crop is enlarged to this side, a multiple of 16, before the first convolution."""
        super().__init__()
        self.inner = inner
        blocks: list[nn.Module] = []
        inside = 32
        for count, kernel, stride, expansion, outside in STAGES:
            for index in range(count):
                blocks.append(Block(inside, outside, kernel, stride if index == 0 else 1, expansion))
                inside = outside
        self.frozen = nn.Sequential(Conv(1, 32, 3, 2), *blocks[:FROZEN])
        self.tuned = nn.Sequential(*blocks[FROZEN:], Conv(inside, _TOP, 1))
        self.shapes = nn.Sequential(nn.Linear(52, _SHAPES), nn.ReLU())
        self.join = nn.Sequential(
            nn.Dropout(dropout), nn.Linear(_TOP + _SHAPES, EMBEDDING), nn.ReLU(), nn.Dropout(dropout / 2)
        )
        self.classify = nn.Linear(EMBEDDING, LABELS)
        self.frozen.requires_grad_(False)

    def train(self, mode: bool = True) -> FaceNet:
        super().train(mode)
        self.frozen.eval()  # its batch norm keeps ImageNet's statistics
        return self

    def start_from(self, tensors: Mapping[str, NDArray[Any]]) -> None:
        """Take the blocks of EfficientNet-lite0's state dict. Raises WeightError when one is missing or misshapen."""
        blocks = [*list(self.frozen)[1:], *list(self.tuned)[:-1]]
        source = [
            sum(n for n, *_ in _FULL[:stage]) + i for stage, (n, *_) in enumerate(STAGES) for i in range(n)
        ]
        self._take(self.frozen[0], tensors, "_conv_stem", "_bn0", grey=True)
        for block, number in zip(blocks, source, strict=True):
            assert isinstance(block, Block)
            prefix = f"_blocks.{number}."
            names = ["_depthwise_conv", "_bn1"], ["_project_conv", "_bn2"]
            if isinstance(block.expand, Conv):
                self._take(block.expand, tensors, f"{prefix}_expand_conv", f"{prefix}_bn0")
            for conv, (weight, norm) in zip((block.depthwise, block.project), names, strict=True):
                self._take(conv, tensors, prefix + weight, prefix + norm)

    @staticmethod
    def _take(
        conv: nn.Module, tensors: Mapping[str, NDArray[Any]], name: str, norm: str, grey: bool = False
    ) -> None:
        assert isinstance(conv, Conv)
        for layer in conv:
            if not isinstance(layer, nn.Conv2d | nn.BatchNorm2d):
                continue
            prefix = name if isinstance(layer, nn.Conv2d) else norm
            for key, own in layer.state_dict().items():
                if key == "num_batches_tracked":
                    continue
                value = tensors.get(f"{prefix}.{key}")
                if value is not None and grey and key == "weight" and value.ndim == 4:
                    value = value.sum(axis=1, keepdims=True)  # the same grey in all three colours
                if value is None or value.shape != tuple(own.shape):
                    raise WeightError(f"efficientnet-lite0: {prefix}.{key} is missing or of another shape")
                own.copy_(torch.from_numpy(np.ascontiguousarray(value, np.float32)))

    def prepare(self, face: Tensor) -> Tensor:
        """float32[b, 1, inner, inner] from grey levels float32[b, 1, s, s]: enlarged, mean 0 and deviation 0.5.

        Each crop for itself, so that light and camera gain do not matter; 0.5 is about what ImageNet's pictures have.
        """
        if face.shape[-1] != self.inner:
            face = F.interpolate(face, size=(self.inner, self.inner), mode="bilinear", align_corners=False)
        centred = face - face.mean(dim=(1, 2, 3), keepdim=True)
        spread = centred.square().mean(dim=(1, 2, 3), keepdim=True).sqrt()
        return 0.5 * centred / (spread + _FLOOR)

    def read(self, pooled: Tensor, blendshapes: Tensor) -> tuple[Tensor, Tensor]:
        """Embedding and logits from ``float32[b, 256]`` pooled features and the blendshapes."""
        embedding = self.join(torch.cat([pooled, self.shapes(blendshapes)], dim=1))
        return embedding, self.classify(embedding)

    def forward(self, face: Tensor, blendshapes: Tensor) -> tuple[Tensor, Tensor]:
        """``face``: float32[b, 1, s, s], grey levels 0 to 255; ``blendshapes``: float32[b, 52] in [0, 1], all
        zero when unknown. Returns the embedding float32[b, 128] (not negative) and logits float32[b, 8].
        """
        pooled = self.tuned(self.frozen(self.prepare(face))).mean(dim=(2, 3))
        return self.read(pooled, blendshapes)


_FULL = (*STAGES[:5], (4, 5, 2, 6, 192), (1, 3, 1, 6, 320))
"""EfficientNet-lite0's own stages."""
