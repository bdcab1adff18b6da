"""A window with the picture, the face boxes and their labels, where there is a display."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

from ecmf.errors import UsageError, need
from realtime.latest import GONE_NS
from realtime.message import Estimate, Message
from realtime.sources.base import Frame

TRIAL_S = 15
"""How long opening a first window may take."""

GREEN, GREY = (80, 200, 80), (160, 160, 160)


class Preview:
    """Frames and estimates come from any thread; only the main thread draws."""

    def __init__(self, title: str, *, on_closed: Callable[[], None]) -> None:
        """``on_closed`` is called when the person closes the window or presses q or Escape in it.

        Raises UsageError where there is no display or OpenCV was built without windows.
        """
        _refuse_without_display()
        os.environ.setdefault("QT_LOGGING_RULES", "*.warning=false")  # its complaints about fonts help nobody
        self._cv2 = need("cv2", "live")
        self._title = title
        self._on_closed = on_closed
        self._lock = threading.Lock()
        self._frame: Frame | None = None
        self._estimates: dict[int | None, Estimate] = {}
        plain = self._cv2.WINDOW_NORMAL | self._cv2.WINDOW_KEEPRATIO | self._cv2.WINDOW_GUI_NORMAL
        self._cv2.namedWindow(title, plain)
        self._size = (0, 0)

    def offer(self, frame: Frame) -> None:
        """Show this frame next; one that was not drawn yet is replaced."""
        with self._lock:
            self._frame = frame

    def write(self, message: Message, topic: str, payload: bytes) -> None:
        if isinstance(message, Estimate):
            with self._lock:
                self._estimates[message.person] = message
                self._estimates = {
                    person: each
                    for person, each in self._estimates.items()
                    if message.t_publish_ns - each.t_publish_ns <= GONE_NS
                }

    def draw(self) -> None:
        """Draw what is newest and take what the person does in the window. On the main thread."""
        with self._lock:
            frame, self._frame = self._frame, None
            estimates = list(self._estimates.values())
        if frame is not None:
            image = frame.image.copy()
            if self._size != image.shape[:2]:
                self._size = image.shape[:2]
                self._cv2.resizeWindow(self._title, image.shape[1], image.shape[0])
            for estimate in estimates:
                self._mark(image, estimate)
            self._cv2.imshow(self._title, image)
        pressed = self._cv2.waitKey(1) & 0xFF
        closed = self._cv2.getWindowProperty(self._title, self._cv2.WND_PROP_VISIBLE) < 1
        if closed or pressed in (ord("q"), 27):
            self._on_closed()

    def close(self) -> None:
        self._cv2.destroyAllWindows()

    def _mark(self, image: Any, estimate: Estimate) -> None:
        text = estimate.label or str(estimate.reason).replace("_", " ")
        if estimate.confidence is not None:
            text += f" {estimate.confidence:.0%}"
        colour = GREEN if estimate.label else GREY
        x, y = 8, 24
        if estimate.bbox is not None:
            left, top, width, height = (round(number) for number in estimate.bbox)
            self._cv2.rectangle(image, (left, top), (left + width, top + height), colour, 2)
            x, y = max(left, 0), max(top - 8, 16)
        font, line = self._cv2.FONT_HERSHEY_SIMPLEX, self._cv2.LINE_AA
        # The outline is the same text moved about: since OpenCV 5 a bolder one is wider.
        for aside, below in ((-1, -1), (-1, 1), (1, -1), (1, 1)):
            self._cv2.putText(image, text, (x + aside, y + below), font, 0.6, (0, 0, 0), 1, line)
        self._cv2.putText(image, text, (x, y), font, 0.6, colour, 1, line)


def _refuse_without_display() -> None:
    """Try a window in a process of its own: Qt ends the whole process where it cannot reach its display."""
    if not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        raise UsageError(
            "--preview needs a display, and neither DISPLAY nor WAYLAND_DISPLAY is set; leave it out, or use ssh -X"
        )
    trial = "import cv2; cv2.namedWindow('ecmf-live'); cv2.waitKey(1)"
    try:
        found = subprocess.run(
            [sys.executable, "-c", trial], capture_output=True, text=True, timeout=TRIAL_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise UsageError(
            f"--preview: the display did not answer within {TRIAL_S} s; leave --preview out"
        ) from None
    if found.returncode:
        lines = [line for line in found.stderr.splitlines() if "connect" in line] or found.stderr.splitlines()
        reason = lines[0] if lines else f"exit code {found.returncode}"
        raise UsageError(f"--preview cannot open a window ({reason}); leave it out, or set DISPLAY right")
