"""A window with the picture, the face boxes and their labels, where there is a display."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any

from ecmf.errors import UsageError, need
from realtime.message import Estimate, Message
from realtime.sources.base import Frame
from realtime.view import GONE_NS

GREEN, GREY = (80, 200, 80), (160, 160, 160)


class Preview:
    """Frames and estimates come from any thread; only the main thread draws."""

    def __init__(self, title: str, *, on_closed: Callable[[], None]) -> None:
        """``on_closed`` is called when the person closes the window or presses q or Escape in it.

        Raises UsageError where there is no display or OpenCV was built without windows.
        """
        if not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
            raise UsageError(
                "--preview needs a display, and neither DISPLAY nor WAYLAND_DISPLAY is set; leave it out, "
                "or connect with ssh -X"
            )
        self._cv2 = need("cv2", "live")
        self._title = title
        self._on_closed = on_closed
        self._lock = threading.Lock()
        self._frame: Frame | None = None
        self._estimates: dict[int | None, Estimate] = {}
        try:
            self._cv2.namedWindow(title, self._cv2.WINDOW_NORMAL | self._cv2.WINDOW_KEEPRATIO)
        except self._cv2.error as error:
            reason = str(error).strip().splitlines()[-1]
            raise UsageError(f"--preview cannot open a window ({reason}); leave it out") from None

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
        font = self._cv2.FONT_HERSHEY_SIMPLEX
        self._cv2.putText(image, text, (x, y), font, 0.6, (0, 0, 0), 3, self._cv2.LINE_AA)
        self._cv2.putText(image, text, (x, y), font, 0.6, colour, 1, self._cv2.LINE_AA)
