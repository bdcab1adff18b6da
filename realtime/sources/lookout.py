"""When to look for a sound device that is away: looking is not free, and it may be away for hours."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Hashable
from pathlib import Path

SHARE = 1 / 60
"""Of the time that it has been away, the wait between two looks: every second after a minute ..."""
LONGEST_S = 30.0
"""... and no longer than this."""


class Lookout:
    """PortAudio finds a device only when it is started anew, which takes 25 ms and, in ALSA, 12 kB for good: twice a
    second that would be 90 MB an hour. So it is looked for ever less often, and at once when something was plugged in
    or a sound server has started.
    """

    def __init__(
        self, now_s: Callable[[], float] = time.monotonic, present: Callable[[], Hashable] | None = None
    ) -> None:
        """``present``: whatever changes when a device may have come back."""
        self._now_s = now_s
        self._present = present or sound_devices
        self._seen: Hashable = None
        self._since_s: float | None = None
        """When it went away, or the last change."""
        self._looked_s = 0.0

    def due(self) -> bool:
        """Whether to look now. To be asked twice a second or so, while it is away."""
        now_s, before = self._now_s(), self._seen
        self._seen = self._present()
        if self._since_s is None or self._seen != before:
            self._since_s = now_s
        elif now_s - self._looked_s < min((now_s - self._since_s) * SHARE, LONGEST_S):
            return False
        self._looked_s = now_s
        return True

    def found(self) -> None:
        """It is back."""
        self._since_s = None


def sound_devices() -> Hashable:
    """What the kernel has of them (Linux), and which sound servers run."""
    found: list[Hashable] = []
    with contextlib.suppress(OSError):
        found.append(Path("/proc/asound/cards").read_text("utf-8", "replace"))
    with contextlib.suppress(OSError):
        found.append(tuple(sorted(Path("/dev/snd").iterdir())))
    if runtime := os.environ.get("XDG_RUNTIME_DIR"):
        for socket in ("pulse/native", "pipewire-0"):
            with contextlib.suppress(OSError):
                told = Path(runtime, socket).stat()
                found.append((socket, told.st_ino, told.st_mtime_ns))
    return tuple(found)
