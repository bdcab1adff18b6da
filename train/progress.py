"""Progress of long work on stderr: a bar with rate and time left in a terminal, a line now and then elsewhere."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn
from rich.progress import TimeRemainingColumn as TimeLeft
from rich.text import Text

from train import distributed

log = logging.getLogger("train.progress")
LINE_S = 20.0
"""Between two lines where there is no terminal to draw a bar in."""

Item = TypeVar("Item")
Advance = Callable[[int, str], None]
"""``advance(done, note)``: how many are done, and what else to show, for example the loss."""


class Rate(ProgressColumn):
    """Finished a second, or seconds for one where it takes longer."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if not speed else f"{speed:.1f}/s" if speed >= 1 else f"{1 / speed:.1f} s each")


@contextmanager
def shown(what: str, total: int, done: int = 0) -> Iterator[Advance]:
    """Show progress from ``done`` to ``total``; the first of several processes shows for all."""
    console = Console(stderr=True)
    if distributed.rank():
        yield lambda done, note: None
    elif console.is_terminal:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Rate(), TimeLeft())
        with Progress(*columns, TextColumn("{task.fields[note]}"), console=console, transient=True) as bars:
            bar = bars.add_task(what, total=total, completed=done, note="")
            yield lambda done, note: bars.update(bar, completed=done, note=note)
    else:
        yield _lines(what, total, done)


def _lines(what: str, total: int, first: int) -> Advance:
    began = last = time.monotonic()

    def advance(done: int, note: str) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last < LINE_S or done <= first:
            return
        last = now
        rate = (done - first) / (now - began)
        left_s = round((total - done) / rate)
        log.info(
            "%s: %d of %d, %.1f/s, %d:%02d left %s", what, done, total, rate, left_s // 60, left_s % 60, note
        )

    return advance


def tracked(items: Sequence[Item], what: str) -> Iterator[Item]:
    """The items, with their progress shown."""
    with shown(what, len(items)) as advance:
        for number, item in enumerate(items):
            yield item
            advance(number + 1, "")
