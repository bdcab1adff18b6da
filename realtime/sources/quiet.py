"""Keep C libraries from writing on the terminal while they look for devices."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Send file descriptor 2 to nowhere meanwhile: ALSA, JACK and OpenCV know no other way to be silenced.

    Other threads' writes to stderr are lost for that moment, so use it only around opening and listing.
    """
    sys.stderr.flush()
    try:
        kept = os.dup(2)
    except OSError:  # started without a stderr: nothing can be written on it
        yield
        return
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 2)
        os.close(nowhere)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
