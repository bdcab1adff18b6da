"""Memory that is free goes back to the system."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable


@functools.cache
def _trim() -> Callable[[int], int] | None:
    try:
        found: Callable[[int], int] = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError, TypeError):  # glibc alone has it
        return None
    return found


def give_back() -> None:
    """After something rare and large: what the allocator would keep of it is given back, where it can be asked to.

    Takes milliseconds, in which other threads may have to wait for memory.
    """
    trim = _trim()
    if trim is not None:
        trim(0)
