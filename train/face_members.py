"""What is shipped: the members' mean answer over a face and its mirror image, as one network."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils import fuse_conv_bn_eval

from train.face_augment import MIRRORED
from train.face_net import FaceNet
from train.face_residual import ResidualNet


def weighted(answers: Sequence[NDArray[np.float32]], shares: Sequence[float]) -> NDArray[np.float32]:
    """float32[n, 8]: mean of the members' log-odds, by their shares."""
    total = sum(shares)
    return np.sum([answer * (share / total) for answer, share in zip(answers, shares, strict=True)], axis=0)


class Members(nn.Module):
    """Crop and blendshapes -> the members' embeddings side by side, and the mean of their log-odds.

    With ``mirror`` each embedding is the mean over a face and its mirror image: what people judge does not depend
    on the side.
    """

    def __init__(
        self, nets: Sequence[FaceNet | ResidualNet], shares: Sequence[float], *, mirror: bool = True
    ) -> None:
        super().__init__()
        self.mirror = mirror
        self.nets = nn.ModuleList(nets)
        self._widths = [net.classify.in_features for net in nets]
        self.classify = nn.Linear(sum(self._widths), nets[0].classify.out_features)
        parts = [share / sum(shares) for share in shares]
        with torch.no_grad():
            # A mean of linear readings is one linear reading of all embeddings.
            self.classify.weight.copy_(
                torch.cat([part * net.classify.weight for part, net in zip(parts, nets, strict=True)], dim=1)
            )
            self.classify.bias.copy_(
                torch.stack([part * net.classify.bias for part, net in zip(parts, nets, strict=True)]).sum(0)
            )
        self.source = torch.from_numpy(MIRRORED)

    @property
    def embedding(self) -> int:
        """Length of the embedding."""
        return self.classify.in_features

    def forward(self, face: Tensor, blendshapes: Tensor) -> tuple[Tensor, Tensor]:
        """``face``: float32[b, 1, s, s], grey levels 0 to 255; ``blendshapes``: float32[b, 52] in [0, 1], all
        zero when unknown. Returns the embedding float32[b, d] (not negative) and logits float32[b, 8].
        """
        if not self.mirror:
            embedding = torch.cat([net(face, blendshapes)[0] for net in self.nets], dim=1)
            return embedding, self.classify(embedding)
        both = torch.cat([face, face.flip(3)])
        shapes = torch.cat([blendshapes, blendshapes[:, self.source]])
        seen = [
            net(both, shapes)[0].reshape(2, -1, width).mean(dim=0)
            for net, width in zip(self.nets, self._widths, strict=True)
        ]
        embedding = torch.cat(seen, dim=1)
        return embedding, self.classify(embedding)


def fuse(members: Members, bias: NDArray[np.float32]) -> Members:
    """For inference: normalisation folded into the convolutions, ``bias`` (float32[8]) into the last one.

    Large weights are rounded to half precision, as which they are stored; they are used in single precision.
    """
    members = copy.deepcopy(members).eval()
    for chain in [module for module in members.modules() if isinstance(module, nn.Sequential)]:
        for index in range(len(chain) - 1):
            before, after = chain[index], chain[index + 1]
            if isinstance(before, nn.Conv2d) and isinstance(after, nn.BatchNorm2d):
                chain[index], chain[index + 1] = fuse_conv_bn_eval(before, after), nn.Identity()
    with torch.no_grad():
        members.classify.bias.add_(torch.from_numpy(bias))
        for parameter in members.parameters():
            if parameter.numel() >= HALVED:
                parameter.copy_(parameter.half().float())
    return members


HALVED = 512
"""Weights of so many values or more are stored in half precision."""
