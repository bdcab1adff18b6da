"""What each of several processes computes, seen from one: rows, dropout masks, gradients, errors."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from ecmf.errors import DataError
from train import distributed
from train.mer_head import FeatureHead

BATCH = 10


def be(monkeypatch: pytest.MonkeyPatch, rank: int, size: int) -> None:
    monkeypatch.setenv("RANK", str(rank))
    monkeypatch.setenv("WORLD_SIZE", str(size))


@pytest.mark.parametrize(("count", "size"), [(10, 1), (10, 2), (10, 3), (2, 4), (0, 2)])
def test_the_shares_are_all_rows_in_order(count: int, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, items = [], []
    for rank in range(size):
        be(monkeypatch, rank, size)
        rows += range(count)[distributed.share(count)]
        items += distributed.every(range(count))
    assert rows == list(range(count)) and sorted(items) == rows


def test_masks_and_gradients_add_up_to_those_of_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three processes with rows 0-2, 3-5, 6-9 of a batch: their logits are the whole batch's, and so is the sum of
    their gradients, weighted as ``average`` weighs them before it adds them up."""
    torch.manual_seed(0)
    head = FeatureHead([4, 6], [0, 2], 3).train()
    inputs, quality = torch.randn(BATCH, 10), torch.ones(BATCH, 2)
    target = torch.arange(BATCH) % 3

    def run(rows: slice) -> tuple[torch.Tensor, list[torch.Tensor]]:
        torch.manual_seed(5)
        head.zero_grad()
        logits, _ = head(inputs[rows], quality[rows])
        functional.cross_entropy(logits, target[rows]).backward()
        return logits.detach(), [p.grad.clone() for p in head.parameters() if p.grad is not None]

    whole, expected = run(slice(None))
    parts, total = [], [torch.zeros_like(gradient) for gradient in expected]

    def gather(flat: torch.Tensor) -> None:
        for one, part in zip(total, flat.split([g.numel() for g in total]), strict=True):
            one += part.view_as(one)

    monkeypatch.setattr("torch.distributed.all_reduce", gather)
    for rank in range(3):
        be(monkeypatch, rank, 3)
        rows = distributed.share(BATCH)
        with distributed.whole_batch_dropout(head, BATCH):
            logits, _ = run(rows)
            parts.append(logits)
        distributed.average(head, len(logits), BATCH)
    torch.testing.assert_close(torch.cat(parts), whole)
    for one, other in zip(total, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)


def test_dropout_is_its_own_again_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = nn.Sequential(nn.Dropout(0.5))
    be(monkeypatch, 1, 2)
    with distributed.whole_batch_dropout(layer, 4):
        assert "forward" in vars(layer[0])
    assert "forward" not in vars(layer[0])


def test_one_process_raises_what_it_found() -> None:
    with pytest.raises(DataError, match="row 3"), distributed.together():
        raise DataError("row 3 is bad")
    assert (distributed.rank(), distributed.size()) == (0, 1)


@pytest.mark.parametrize("said", [DataError("clip x"), None])
def test_what_another_process_found_is_raised_here(
    said: DataError | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    be(monkeypatch, 0, 2)

    def gather(found: list[object], own: object) -> None:
        found[:] = [own, None if said is None else (type(said), str(said))]

    monkeypatch.setattr("torch.distributed.all_gather_object", gather)
    if said is None:
        distributed.agree()
    else:
        with pytest.raises(DataError, match="clip x"):
            distributed.agree()
