"""A real window on a virtual display, looked at from outside; and clear words where there is none."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ecmf.errors import UsageError
from realtime.preview import Preview

PROGRAM = """
import sys; sys.path.insert(0, sys.argv[1])
import cv2, numpy as np
from wire import estimate
from realtime.preview import GREEN, Preview
from realtime.sources.base import Frame

shown = []
show = cv2.imshow
cv2.imshow = lambda title, image: (shown.append(image.copy()), show(title, image))
closed = []
preview = Preview("test", on_closed=lambda: closed.append(True))
picture = np.full((240, 320, 3), 200, np.uint8)
preview.write(estimate(bbox=(50.0, 60.0, 100.0, 120.0)), "", b"")
preview.offer(Frame(picture, 0, 0, "file", 0.0, 0))
preview.draw()
preview.draw()
assert len(shown) == 1, "a frame is drawn once"
assert tuple(shown[0][60, 100]) == GREEN and tuple(shown[0][180, 100]) == GREEN, "the box"
assert (picture == 200).all(), "the frame itself is not drawn into"
above = shown[0][:58].astype(int)
green = np.flatnonzero((above[..., 1] - above[..., 2] > 60).any(0))
black = np.flatnonzero((above.max(-1) < 60).any(0))
assert abs(green[0] - black[0]) <= 3 and abs(green[-1] - black[-1]) <= 3, "letters lie upon their outline"
assert not closed
cv2.destroyAllWindows()
preview.draw()
assert closed, "closing the window is told"
preview.close()
print("seen")
"""


@contextlib.contextmanager
def display() -> Iterator[str]:
    """A virtual display of its own; the server itself picks a free number, so that two never get the same."""
    reading, writing = os.pipe()
    server = subprocess.Popen(
        ["Xvfb", "-displayfd", str(writing), "-screen", "0", "640x480x24", "-nolisten", "tcp"],
        pass_fds=[writing],
        stderr=subprocess.DEVNULL,
    )
    os.close(writing)
    try:
        with os.fdopen(reading) as told:
            yield f":{int(told.readline())}"
    finally:
        server.terminate()
        server.wait()


@pytest.mark.skipif(shutil.which("Xvfb") is None, reason="no virtual display: Xvfb is not installed")
def test_a_window_shows_the_box_and_tells_when_it_is_closed() -> None:
    with display() as name:
        found = subprocess.run(
            [sys.executable, "-c", PROGRAM, str(Path(__file__).parent)],
            env={**os.environ, "DISPLAY": name},
            capture_output=True,
            text=True,
            check=False,
        )
    assert (found.returncode, found.stdout) == (0, "seen\n"), found.stderr


def test_no_display_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    with pytest.raises(UsageError, match="neither DISPLAY nor WAYLAND_DISPLAY is set"):
        Preview("test", on_closed=lambda: None)


def test_a_display_that_cannot_be_reached_does_not_end_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISPLAY", ":7777")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    with pytest.raises(UsageError, match="cannot open a window"):
        Preview("test", on_closed=lambda: None)
