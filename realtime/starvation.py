"""How much of the time this process waits for a processor: a worker that is starved is not one that hangs."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

TASKS = Path("/proc/self/task")


class Starvation:
    """Time that threads were ready to run and did not, as Linux counts it; elsewhere never any. For one thread."""

    def __init__(self) -> None:
        self._at_ns = time.monotonic_ns()
        self._waited_ns = _waited()
        self._shares: dict[str, float] = {}

    def share(self) -> float:
        """Seconds waited in each second since the last time, all threads together, 1 at most.

        0: whoever wanted to run could; 1: somebody waited all the time.
        """
        at_ns, before = self._at_ns, self._waited_ns
        self._at_ns, self._waited_ns = time.monotonic_ns(), _waited()
        # A thread that began meanwhile brings all that it ever waited; that is no more than since the last time.
        passed_ns = max(1, self._at_ns - at_ns)
        self._shares = {
            thread: min(1.0, max(0, now - before.get(thread, 0)) / passed_ns)
            for thread, now in self._waited_ns.items()
        }
        return min(1.0, sum(self._shares.values()))

    def of(self, thread: int | None) -> float:
        """The same of one thread, by its native id, as it was when ``share`` was last asked; 0 where it is unknown."""
        return self._shares.get(str(thread), 0.0)


def _waited() -> dict[str, int]:
    """Nanoseconds on a run queue, per thread, from the second field of its schedstat."""
    found: dict[str, int] = {}
    with contextlib.suppress(OSError):
        for task in TASKS.iterdir():
            with contextlib.suppress(OSError, IndexError, ValueError):  # threads end while they are listed
                found[task.name] = int((task / "schedstat").read_text("ascii").split()[1])
    return found
