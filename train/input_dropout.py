"""Dropout of wide inputs at a sixth of nn.Dropout's cost: a random byte decides about each number."""

from __future__ import annotations

import torch
from torch import Tensor, nn

STEPS = 256
"""Probabilities that a byte tells apart: the one asked for is rounded to the next of them."""


class InputDropout(nn.Dropout):
    """As nn.Dropout, for numbers that are many and need no gradient, like stored features."""

    def forward(self, values: Tensor) -> Tensor:
        """float32 of any shape; in training each number is zero with chance ``p``, the others grow accordingly."""
        dropped = round(self.p * STEPS)
        if not self.training or not dropped:
            return values
        if dropped >= STEPS:
            return torch.zeros_like(values)
        words = torch.empty(-(-values.numel() // 8), dtype=torch.int64).random_(-(2**63), None)
        kept = words.view(torch.uint8)[: values.numel()].view(values.shape) >= dropped
        return (values * kept).mul_(STEPS / (STEPS - dropped))
