"""Dropout of inputs by bytes: as often as asked, scaled, each place by itself, the same for the same seed."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from train.input_dropout import InputDropout


@pytest.mark.parametrize("p", [0.0, 0.1, 0.3, 0.5, 1.0])
def test_dropout_by_bytes_drops_and_scales(p: float) -> None:
    torch.manual_seed(0)
    layer, values = InputDropout(p), torch.ones(200, 1001)
    shown = layer(values)
    assert float((shown == 0).float().mean()) == pytest.approx(p, abs=4e-3)
    if p < 1:
        assert float(shown.mean()) == pytest.approx(1.0, abs=1e-2)
        assert len(shown.unique()) <= 2
    assert layer.eval()(values) is values


def test_dropout_by_bytes_hides_each_place_by_itself() -> None:
    torch.manual_seed(1)
    hidden = (InputDropout(0.5)(torch.ones(4000, 16)) == 0).float()
    together = torch.corrcoef(hidden.t()) - torch.eye(16)
    assert together.abs().max() < 0.08  # 5 standard deviations of independent places
    torch.manual_seed(1)
    again = (nn.Sequential(InputDropout(0.5))(torch.ones(4000, 16)) == 0).float()
    assert torch.equal(hidden, again)
