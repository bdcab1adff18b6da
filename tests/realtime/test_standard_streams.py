"""Started without standard input, output or error, or in a poor locale, the programs do what they always do."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

PROGRAM = (
    "import os, sys\nfrom realtime.standard_streams import complete\ncomplete()\n"
    "own = os.open('/dev/null', os.O_RDONLY)\n"
    "assert own > 2, own\n"
    "print('out'); print('err', file=sys.stderr); sys.stdout.flush(); sys.stdin.read(); os.write(1, b'')"
)


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_file_that_is_opened_never_takes_the_place_of_a_closed_stream(closed: str) -> None:
    command = f'exec "$0" -c "$1" {closed}'
    found = subprocess.run(
        ["sh", "-c", command, sys.executable, PROGRAM],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0, found.stderr
    assert found.stdout == ("" if " >" in f" {closed}" else "out\n")


@pytest.mark.parametrize("program", ["cli", "listen"])
@pytest.mark.parametrize("closed", [">&-", "2>&-"])
def test_bad_input_is_still_told_by_the_exit_code(program: str, closed: str) -> None:
    bad = {"cli": "--source /nowhere.mp4 --json --bind tcp://127.0.0.1:*", "listen": "--count none"}[program]
    command = f'exec "$0" -m realtime.{program} {bad} {closed}'
    found = subprocess.run(
        ["sh", "-c", command, sys.executable],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert found.returncode == 2, found.stderr
    assert ("ecmf-l" in found.stderr) is (closed == ">&-")
    assert found.stdout == ""


def test_letters_that_the_locale_does_not_know_are_replaced() -> None:
    program = "from realtime.standard_streams import complete; complete(); print('– “Jürgen”')"
    found = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": "latin-1"},
    )
    assert (found.returncode, found.stdout.decode("latin-1")) == (0, "? ?Jürgen?\n")
