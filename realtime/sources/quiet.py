"""Keep C libraries from writing on the terminal while they look for devices."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Iterator

_lock = threading.Lock()
_inside = 0
"""Threads that want quiet now: camera and microphone may be looked for at once."""
_kept: int | None = None
"""File descriptor 2 as it was before the first of them came, for the last to put back."""


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Send file descriptor 2 to nowhere meanwhile: ALSA, JACK and OpenCV know no other way to be silenced.

    Other threads' writes to stderr are lost for that moment, so use it only around opening and listing. Threads may
    overlap in it.
    """
    global _inside
    sys.stderr.flush()
    with _lock:
        if not _inside:
            _silence()
        _inside += 1
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if not _inside:
                _restore()


def _silence() -> None:
    global _kept
    try:
        _kept = os.dup(2)
    except OSError:  # started without a stderr: nothing can be written on it
        return
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
    except OSError:
        _restore()  # no descriptor is left: noise is the lesser evil, and the table is not to fill up
        return
    os.dup2(nowhere, 2)
    os.close(nowhere)


def _restore() -> None:
    global _kept
    if _kept is not None:
        os.dup2(_kept, 2)
        os.close(_kept)
        _kept = None
