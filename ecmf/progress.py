"""Progress bars on stderr for whatever is fetched."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ecmf.errors import need
from ecmf.fetch import Progress


@contextmanager
def bars() -> Iterator[Progress]:
    """A `Progress` that draws one bar per download; away from a terminal, one line when each is done."""
    progress = need("rich.progress", "live")
    console = need("rich.console", "live").Console(stderr=True)
    column = need("rich.table", "live").Column
    columns = (
        progress.TextColumn(
            "{task.description}", table_column=column(no_wrap=True, overflow="ellipsis", max_width=36)
        ),
        progress.BarColumn(bar_width=None, table_column=column(ratio=1)),
        progress.DownloadColumn(table_column=column(no_wrap=True, justify="right")),
        progress.TransferSpeedColumn(table_column=column(no_wrap=True)),
        progress.TimeRemainingColumn(compact=True),
    )
    tasks: dict[str, Any] = {}
    with progress.Progress(*columns, console=console, expand=True) as display:

        def show(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = display.add_task(what, total=total)
            display.update(tasks[what], completed=done, total=total)

        yield show
