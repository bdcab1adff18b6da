"""What is not as it should be, of all that health tells, in lines for people."""

from __future__ import annotations

import re
from collections import defaultdict

from realtime.message import Health

_PARTS = re.compile(r"; (?=[a-z][\w ,.-]*: )")
"""Between the reasons of a fallback, each of which begins with the names of the engines that it speaks of."""
_MEASURED = re.compile(r" here \([^)]* ms\)| at a fifth of ")
"""An engine that was left out because another is faster is no trouble."""


def troubles(health: Health) -> list[str]:
    """One line each, empty when all is well; what most branches have in common is said once and of nobody."""
    without: defaultdict[str, list[str]] = defaultdict(list)
    for branch, use in health.engine.items():
        for part in _PARTS.split(use.fallback or ""):
            if part and not _MEASURED.search(part):
                without[part].append(branch)
    engines = []
    for reason, branches in without.items():
        names, _, why = reason.partition(": ")
        common = 2 * len(branches) >= len(health.engine)
        who = "" if common else f"{', '.join(branches)} "
        engines.append(f"{who}runs without {names}: {why}" if why else f"{who}{reason}")
    return [*engines, *health.notes]


class Changes:
    """Which troubles began and which ended since the last time."""

    def __init__(self) -> None:
        self._before: list[str] | None = None

    def since(self, health: Health) -> list[str]:
        """New ones as they are, ended ones as such, and that all is well when nothing is left."""
        now = troubles(health)
        before, self._before = self._before, now
        told = [line for line in now if before is None or line not in before]
        told += [f"no longer: {line}" for line in before or () if line not in now]
        if not now and (before is None or before):
            told.append("all well")
        return told
