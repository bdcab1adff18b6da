"""One unbroken time line for a recording whose time stamps jump, as those of joined files do."""

from __future__ import annotations

from typing import Any

JUMP_S = 60.0
"""Nothing on any track for longer than this is a broken time stamp, not a gap."""

BACK_S = 1.0
"""A step back by more than this is one, too; smaller ones come from pictures that are stored out of order."""


class TimeLine:
    """Moves the stamps of packets, in the order in which they lie in the file, so that time goes on where it jumps.

    All tracks are moved alike, so that picture and sound stay together. So it must see the packets of all of them, and
    two readers of one file that show it the same packets get the same times.
    """

    def __init__(self, start_s: float) -> None:
        """``start_s``: where the file says that it starts; time 0 here."""
        self._latest_s = -start_s
        """How far stamps are moved since the last jump ..."""
        self._shifts_s: dict[int, float] = {}
        """... and those of a track that has not come to it: its last packet may follow the other's first."""
        self._ends_s: dict[int, float] = {}
        """Where the next packet of each track is to begin."""

    def place(self, packet: Any) -> None:
        """Change the stamps of ``packet``; one without any stays as it is."""
        stamp = packet.pts if packet.dts is None else packet.dts
        if stamp is None:
            return
        track, stamped_s = packet.stream.index, float(stamp * packet.time_base)
        reached_s = max(self._ends_s.values(), default=0.0)
        earliest_s = self._ends_s.get(track, 0.0) - BACK_S
        for shift_s in (self._shifts_s.get(track, self._latest_s), self._latest_s):
            if earliest_s <= stamped_s + shift_s <= reached_s + JUMP_S:
                break
        else:
            shift_s = self._latest_s = reached_s - stamped_s
        self._shifts_s[track] = shift_s
        self._ends_s[track] = stamped_s + shift_s + float((packet.duration or 0) * packet.time_base)
        ticks = round(shift_s / packet.time_base)
        if packet.pts is not None:
            packet.pts += ticks
        if packet.dts is not None:
            packet.dts += ticks
