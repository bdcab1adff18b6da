"""The one training loop of every fusion head and baseline: resumable at any step, over any number of processes."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ecmf.errors import UsageError
from train import distributed
from train.atomic import write_whole
from train.progress import Advance, shown

VERSION = 2
"""Raise it when a step changes: checkpoints of before are then not gone on from."""
SAVE_STEPS, SAVE_S = 100, 2.0
"""A checkpoint is written at a multiple of so many steps when the last one is so old: what a kill may cost."""
MOST_STEPS = 500
"""Between two checkpoints, however fast the steps are."""


class Steps(Protocol):
    """What the loop reads of a recipe."""

    @property
    def steps(self) -> int: ...
    @property
    def batch(self) -> int: ...
    @property
    def learning_rate(self) -> float: ...
    @property
    def weight_decay(self) -> float: ...
    @property
    def seed(self) -> int: ...


def descend(
    head: nn.Module,
    sample: Callable[[np.random.Generator], tuple[dict[str, Tensor], Tensor]],
    options: Steps,
    checkpoint: Path | None = None,
    fingerprint: str = "",
    *,
    smoothing: float = 0.0,
    what: str = "fusion head",
    unfinished: bool = False,
    tell: Advance | None = None,
) -> None:
    """Train ``head`` (an EcmfHead, or a baseline of the same call) in place.

    ``sample`` draws a batch: keyword arguments, and the target as int64[n] or as float32[n, labels] of soft labels;
    under torchrun either this process's ``distributed.share`` of the rows or all of them.

    AdamW with a one-cycle schedule; every step draws its batch and its dropout from ``seed`` and the step number alone,
    so a run resumed from ``checkpoint`` (of the same ``fingerprint``) gives what an unbroken one does. ``smoothing``:
    of the labels. ``unfinished``: the checkpoint as it is, without any training; UsageError where there is none.
    ``tell`` hears of the progress in place of the terminal.
    """
    torch.set_num_threads(1)
    optimiser = torch.optim.AdamW(_groups(head, options.weight_decay), options.learning_rate, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, options.learning_rate, options.steps)
    fingerprint = f"{VERSION} {fingerprint}"
    first = _resume(checkpoint, fingerprint, head, optimiser, schedule) if checkpoint else 0
    distributed.agree()  # nobody writes the checkpoint before all have read it
    if unfinished:
        if not first:
            raise UsageError(f"{checkpoint} is no checkpoint of this data and recipe; train first")
        head.eval()
        return
    saved = time.monotonic()
    head.train()
    with (
        nullcontext(tell) if tell else shown(what, options.steps, first) as advance,
        distributed.whole_batch_dropout(head, options.batch),
    ):
        for step in range(first, options.steps):
            rng = np.random.default_rng((options.seed, step))
            torch.manual_seed(options.seed * 1_000_003 + step)
            inputs, target = sample(rng)
            logits, _ = head(**inputs)
            loss = functional.cross_entropy(logits, target, label_smoothing=smoothing)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            distributed.average(head, len(target), options.batch)
            torch.nn.utils.clip_grad_norm_(head.parameters(), 1.0)
            optimiser.step()
            schedule.step()
            done, last = step + 1, step + 1 == options.steps
            if done % 50 == 0 or last:
                advance(done, f"loss {loss.item():.3f}")
            old = time.monotonic() - saved >= SAVE_S
            due = last or done % MOST_STEPS == 0 or (done % SAVE_STEPS == 0 and old)
            if checkpoint and due and not distributed.rank():
                _save(checkpoint, fingerprint, done, head, optimiser, schedule)
                saved = time.monotonic()
    head.eval()


def finished(checkpoint: Path, fingerprint: str, steps: int) -> bool:
    """Whether ``descend`` would have nothing left to do."""
    state = _stored(checkpoint, f"{VERSION} {fingerprint}")
    return state is not None and int(state["step"]) >= steps


def _groups(head: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Weights decay towards 0; the head's own prior, bias, trust and doubt, whose 0 means nothing, do not."""
    free = {"prior", "bias", "trust", "doubt", "against", "idle"}
    named = list(head.named_parameters())
    return [
        {"params": [p for name, p in named if name not in free], "weight_decay": weight_decay},
        {"params": [p for name, p in named if name in free], "weight_decay": 0.0},
    ]


def _save(path: Path, fingerprint: str, step: int, head: nn.Module, optimiser: Any, schedule: Any) -> None:
    state = {
        "fingerprint": fingerprint,
        "step": step,
        "head": head.state_dict(),
        "optimiser": optimiser.state_dict(),
        "schedule": schedule.state_dict(),
    }
    buffer = io.BytesIO()  # on a full disk torch would not say what is wrong
    torch.save(state, buffer)
    write_whole(path, buffer.getvalue())


def _resume(path: Path, fingerprint: str, head: nn.Module, optimiser: Any, schedule: Any) -> int:
    """Step to continue from; 0 when there is no checkpoint or it belongs to other data or options."""
    state = _stored(path, fingerprint)
    if state is None:
        return 0
    head.load_state_dict(state["head"])
    optimiser.load_state_dict(state["optimiser"])
    schedule.load_state_dict(state["schedule"])
    return int(state["step"])


def _stored(path: Path, fingerprint: str) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    state: dict[str, Any] = torch.load(path, weights_only=True)
    return state if state["fingerprint"] == fingerprint else None
