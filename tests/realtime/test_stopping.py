"""The wish to end, however it is expressed."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading

import pytest

from realtime.stopping import Stop


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_asks_and_the_old_handlers_come_back(number: signal.Signals) -> None:
    # In a process of its own: what other tests load may leave an alternate signal stack too small for this processor.
    script = f"""
import os, signal
from realtime.stopping import Stop
before = signal.getsignal({int(number)})
stop = Stop()
with stop.on_signals():
    assert not stop.asked()
    os.kill(os.getpid(), {int(number)})
    assert stop.asked()
assert signal.getsignal({int(number)}) is before
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


def test_in_another_thread_it_leaves_signals_alone() -> None:
    stop, seen = Stop(), []
    handler = signal.getsignal(signal.SIGINT)

    def work() -> None:
        with stop.on_signals():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [handler]


def run(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)


def test_a_second_ctrl_c_ends_it_at_once() -> None:
    found = run(
        "import os, signal\nfrom realtime.stopping import Stop\n"
        "with Stop().on_signals():\n"
        "    os.kill(os.getpid(), signal.SIGINT); print('first', flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGINT); print('second', flush=True)\n"
    )
    assert (found.returncode, found.stdout, found.stderr) == (130, "first\n", "")


def test_a_thread_that_never_ends_does_not_keep_the_process() -> None:
    found = run(
        "import sys, threading\nfrom realtime.stopping import leave\n"
        "threading.Thread(target=threading.Event().wait).start()\n"
        "print('out'); print('err', file=sys.stderr); sys.exit(leave(0))"
    )
    assert (found.returncode, found.stdout, found.stderr) == (0, "out\n", "err\n")
