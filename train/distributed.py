"""Several processes that train one model, or extract one data set: torchrun --nproc-per-node N -m train.fit …

Every process draws the same batch and computes its share of the rows; gradients are averaged. Dropout masks are drawn
for the whole batch and cut, so that the result is that of one process up to the order of additions.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn, TypeVar

from ecmf.errors import DataError, EcmfError

if TYPE_CHECKING:
    from torch import Tensor, nn

Item = TypeVar("Item")


def rank() -> int:
    """Number of this process; 0 where there is one."""
    return int(os.environ.get("RANK", 0)) if size() > 1 else 0


def size() -> int:
    """How many processes torchrun started together; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", 1))


@contextmanager
def joined() -> Iterator[None]:
    """Meet the other processes (gloo, on the CPU); nothing to do for one."""
    if size() == 1:
        yield
        return
    from torch import distributed

    distributed.init_process_group("gloo")
    try:
        yield
    finally:
        distributed.destroy_process_group()


def leave(code: int) -> NoReturn:
    """End this process. Of several, without the interpreter's clean-up: threads of gloo may outlive the group, and
    destroying them would abort a process whose work is done.
    """
    if size() == 1:
        raise SystemExit(code)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def share(count: int) -> slice:
    """This process's rows of ``count``."""
    return slice(count * rank() // size(), count * (rank() + 1) // size())


def every(items: Sequence[Item]) -> Sequence[Item]:
    """This process's items: every ``size()``-th, as clips that lie together are alike in length."""
    return items[rank() :: size()]


def agree(error: EcmfError | None = None) -> None:
    """Wait for the others. Raises in all of them what one of them found wrong, so that none waits for ever."""
    if size() == 1:
        if error is not None:
            raise error
        return
    from torch import distributed

    found: list[tuple[type[EcmfError], str] | None] = [None] * size()
    distributed.all_gather_object(found, None if error is None else (type(error), str(error)))
    for said in found:
        if said is not None:
            kind, message = said
            raise kind(message) if issubclass(kind, EcmfError) else DataError(message)


@contextmanager
def together() -> Iterator[None]:
    """Work that each process does on its own; after it all go on, or all raise the first EcmfError."""
    failed: EcmfError | None = None
    try:
        yield
    except EcmfError as error:
        failed = error
    agree(failed)


def average(model: nn.Module, rows: int, batch: int) -> None:
    """Gradients of the mean loss over ``rows`` rows here to those of the mean over the whole batch, everywhere."""
    if size() == 1:
        return
    import torch
    from torch import distributed

    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
    flat *= (rows / batch) if rows < batch else (1 / size())
    distributed.all_reduce(flat)
    for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))


@contextmanager
def whole_batch_dropout(model: nn.Module, batch: int) -> Iterator[None]:
    """Let the model's dropout draw its masks for the whole batch and use this process's rows of them."""
    from torch import nn

    layers = [m for m in model.modules() if isinstance(m, nn.Dropout)] if size() > 1 else []
    for layer in layers:
        layer.forward = _cut(layer, batch)  # type: ignore[method-assign,assignment]
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward  # the class's own again


def _cut(layer: nn.Dropout, batch: int) -> Callable[[Tensor], Tensor]:
    import torch

    rows, own = share(batch), type(layer).forward

    def forward(values: Tensor) -> Tensor:
        if not layer.training or len(values) == batch:
            return own(layer, values)
        mask = own(layer, torch.ones(batch, *values.shape[1:], dtype=values.dtype))
        return values * mask[rows]

    return forward
