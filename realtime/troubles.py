"""What is not as it should be, of all that health tells, in lines for people."""

from __future__ import annotations

from collections import defaultdict

from realtime.message import Health


def troubles(health: Health) -> list[str]:
    """One line each, empty when all is well; what most branches have in common is said once and of nobody."""
    without: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    for branch, use in health.engine.items():
        if use.left_out is None and use.fallback:
            without["", use.fallback].append(branch)
        for each in use.left_out or ():
            if not each.slower:  # that another engine is faster is no trouble
                without[", ".join(each.engines), each.reason].append(branch)
    engines = []
    for (names, why), branches in without.items():
        common = 2 * len(branches) >= len(health.engine)
        who = "" if common else f"{', '.join(branches)} "
        engines.append(f"{who}runs without {names}: {why}" if names else f"{who}{why}")
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
