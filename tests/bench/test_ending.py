"""A benchmark that is asked to end takes the program that it started along."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

OWNER = """
import sys, time
from bench.live import started
with started("timeit", ["-n", "1", "-r", "1", "import time; time.sleep(60)"]) as live:
    print(live.process.pid, flush=True)
    time.sleep(60)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_sigterm_ends_what_was_started() -> None:
    with subprocess.Popen([sys.executable, "-c", OWNER], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        child = int(owner.stdout.readline())
        owner.send_signal(signal.SIGTERM)
        assert owner.wait(30) == 128 + signal.SIGTERM
    deadline_s = time.monotonic() + 5
    while time.monotonic() < deadline_s:
        try:
            os.kill(child, 0)
        except ProcessLookupError:
            return
    pytest.fail(f"process {child} outlived the benchmark that started it")
