"""Where the tables for people go."""

from __future__ import annotations

import sys
from typing import Any

from ecmf.errors import need

WIDTH = 132
"""Columns of a table where no terminal tells how wide it is."""


def console() -> Any:
    """rich's console on stdout; wide in a file or a pipe, where names would be broken at 80 columns."""
    return need("rich.console", "live").Console(width=None if sys.stdout.isatty() else WIDTH)
