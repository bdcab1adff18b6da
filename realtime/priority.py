"""Who goes first when there are fewer cores than threads: what a person waits for, before what may take its time."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Mapping
from typing import TypeVar

T = TypeVar("T")

NICE: Mapping[str, int] = {"speech": 5, "text": 5, "scene": 5, "enrichment": 10}
"""Worker -> by how much its thread, and the native ones it starts, give way to the others.

A picture is due every few tens of milliseconds, words only in a second. On two cores that somebody's speech keeps
busy, giving way takes about a tenth off the face's 95th percentile."""
SWITCH_S = 0.0005
"""How long a thread may keep the interpreter while another waits. Python's own 5 ms are half of what a face takes."""


def share_the_interpreter() -> None:
    """For the whole process: let threads hand the interpreter's lock on sooner."""
    sys.setswitchinterval(SWITCH_S)


def giving_way(name: str, body: Callable[[T], None]) -> Callable[[T], None]:
    """``body`` as the worker ``name`` runs it, in a thread of its own: at its priority, where the system has any."""
    nice = NICE.get(name, 0)
    if not nice or sys.platform != "linux":  # elsewhere a priority is the whole process's
        return body

    def run(argument: T) -> None:
        thread = threading.get_native_id()
        # The process's own niceness counts: the thread that starts this one may have given way already.
        whole = os.getpriority(os.PRIO_PROCESS, os.getpid())
        os.setpriority(os.PRIO_PROCESS, thread, min(19, whole + nice))
        body(argument)

    return run
