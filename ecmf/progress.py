"""Progress bars on stderr for whatever is fetched."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from ecmf.errors import need
from ecmf.fetch import Progress


@contextmanager
def bars() -> Iterator[Progress]:
    """A `Progress` that draws one bar per download; nothing appears when nothing is fetched."""
    tasks: dict[str, Any] = {}
    with ExitStack() as stack:
        display: Any = None

        def show(what: str, done: int, total: int) -> None:
            nonlocal display
            if display is None:
                display = stack.enter_context(_display())
            if what not in tasks:
                tasks[what] = display.add_task(what, total=total)
            display.update(tasks[what], completed=done, total=total)

        yield show


def _display() -> Any:
    progress, column = need("rich.progress", "live"), need("rich.table", "live").Column
    return progress.Progress(
        progress.TextColumn(
            "{task.description}", table_column=column(no_wrap=True, overflow="ellipsis", max_width=36)
        ),
        progress.BarColumn(bar_width=None, table_column=column(ratio=1)),
        progress.DownloadColumn(table_column=column(no_wrap=True, justify="right")),
        progress.TransferSpeedColumn(table_column=column(no_wrap=True)),
        progress.TimeRemainingColumn(compact=True),
        console=need("rich.console", "live").Console(stderr=True),
        expand=True,
    )
