"""Whether whoever reads our output takes more of it: what nobody reads must hold nothing up."""

from __future__ import annotations

import io
import select
from typing import TextIO


def takes_more(stream: TextIO) -> bool:
    """Whether a line can be written without waiting: not into a pipe that nobody empties, nor on a halted terminal.

    A pipe has room for a whole line (4 kB) when the system says that it can be written to at all.
    """
    try:
        return bool(select.select([], [stream.fileno()], [], 0)[1])
    except (
        io.UnsupportedOperation,
        ValueError,
        OSError,
    ):  # no descriptor behind it, or one that polling is not for
        return True
