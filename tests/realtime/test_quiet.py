"""C libraries are silenced while devices are looked for, and only then."""

from __future__ import annotations

import os
import threading

import pytest

from realtime.sources.quiet import quiet


def stderr() -> tuple[int, int]:
    """What file descriptor 2 is."""
    found = os.fstat(2)
    return found.st_dev, found.st_ino


def test_what_a_library_writes_meanwhile_is_not_seen(capfd: pytest.CaptureFixture[str]) -> None:
    with quiet():
        os.write(2, b"ALSA lib confmisc.c: cannot find card\n")
    os.write(2, b"ecmf-live: ready\n")
    assert capfd.readouterr().err == "ecmf-live: ready\n"


def test_camera_and_microphone_opened_at_once_leave_stderr_as_it_was() -> None:
    """Both were pulled out and are looked for: whoever began first ends first."""
    before, silent = stderr(), []
    first_in, second_in, first_out = threading.Event(), threading.Event(), threading.Event()

    def camera() -> None:
        with quiet():
            first_in.set()
            assert second_in.wait(30)
        silent.append(stderr() != before)  # the other one still opens its device
        first_out.set()

    def microphone() -> None:
        assert first_in.wait(30)
        with quiet():
            second_in.set()
            assert first_out.wait(30)

    both = [threading.Thread(target=each) for each in (camera, microphone)]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join(30)
    assert silent == [True] and stderr() == before


def test_an_opening_that_fails_leaves_stderr_as_it_was() -> None:
    before = stderr()
    with pytest.raises(OSError, match="no camera"), quiet():
        raise OSError("no camera")
    assert stderr() == before
