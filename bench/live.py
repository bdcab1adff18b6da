"""The live pipeline in a process of its own, watched from outside: its messages, processor time and memory."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from ecmf.errors import SourceError, need
from realtime.message import Message, decode

START_S = 180.0
"""Longest wait for the first message: engines may have to be built."""
SILENT_S = 30.0
"""Longest wait for any later one; health comes once a second."""


@dataclass(frozen=True)
class Usage:
    """What a process had used at one moment."""

    t_ns: int
    cpu_s: float
    """User and system, all threads, since it started."""
    rss_mb: float
    machine_s: float = 0.0
    """Busy seconds of all cores and processes since the machine started."""

    @classmethod
    def of(cls, pid: int) -> Usage:
        """Read now. Raises SourceError when the process is gone."""
        try:
            fields = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()
            pages = int(Path(f"/proc/{pid}/statm").read_text("ascii").split()[1])
        except (OSError, IndexError):
            raise SourceError("the measured process ended before the measurement did") from None
        ticks = int(fields[11]) + int(fields[12])
        return cls(
            time.monotonic_ns(),
            ticks / os.sysconf("SC_CLK_TCK"),
            pages * os.sysconf("SC_PAGE_SIZE") / 2**20,
            _machine_s(),
        )


def _machine_s() -> float:
    """Seconds in which some core worked or was taken away by the hypervisor, from /proc/stat."""
    first = Path("/proc/stat").read_text("ascii").partition("\n")[0]
    user, nice, system, _idle, _wait, irq, soft_irq, steal = map(int, first.split()[1:9])
    return (user + nice + system + irq + soft_irq + steal) / os.sysconf("SC_CLK_TCK")


@dataclass
class Started:
    """A running process and what it says on stderr."""

    process: subprocess.Popen[bytes]
    stderr: IO[bytes]
    began: float
    """time.monotonic() just before it was started."""

    def last_words(self) -> str:
        """The last line of stderr."""
        self.stderr.seek(0)
        said = self.stderr.read().decode("utf-8", "replace").strip().splitlines()
        return said[-1] if said else f"it ended with code {self.process.poll()} and said nothing"


@contextmanager
def started(
    module: str, arguments: Sequence[str], *, stdout: int = subprocess.DEVNULL, cwd: Path | None = None
) -> Iterator[Started]:
    """``python -m module arguments`` in ``cwd``, asked to end on the way out and killed when it does not.

    SIGTERM ends this process in order meanwhile, so that it leaves none behind.
    """
    with tempfile.TemporaryFile() as stderr, _exits_on_sigterm():
        began = time.monotonic()
        command = [sys.executable, "-m", module, *arguments]
        process = subprocess.Popen(command, stdout=stdout, stderr=stderr, cwd=cwd)
        try:
            yield Started(process, stderr, began)
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            if process.stdout is not None:
                process.stdout.close()


@contextmanager
def _exits_on_sigterm() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():  # only there can this be changed
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def endpoint() -> Iterator[str]:
    """A ZeroMQ address that nobody else uses; its folder is removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="ecmf-bench-") as folder:
        yield f"ipc://{folder}/stream"


def messages(live: Started, address: str) -> Iterator[tuple[int, Message]]:
    """Monotonic time of reception, and message; without end. Raises SourceError when no more come."""
    zmq: Any = need("zmq", "live")
    socket = zmq.Context.instance().socket(zmq.SUB)
    socket.setsockopt(zmq.SUBSCRIBE, b"")
    socket.setsockopt(zmq.RCVHWM, 100_000)
    socket.setsockopt(zmq.RCVTIMEO, 500)
    socket.connect(address)
    patience_s, looked_s = START_S, time.monotonic()
    try:
        while True:
            now_s = time.monotonic()
            # While this process was stopped itself nobody was silent.
            patience_s -= min(1.0, now_s - looked_s)
            looked_s = now_s
            try:
                socket.recv()
                payload = socket.recv()
            except zmq.Again:
                if live.process.poll() is not None:
                    raise SourceError(live.last_words()) from None
                if patience_s <= 0:
                    raise SourceError(
                        f"nothing is published any more; last said: {live.last_words()}"
                    ) from None
                continue
            received_ns = time.monotonic_ns()
            yield received_ns, decode(payload)
            patience_s, looked_s = SILENT_S, time.monotonic()
    finally:
        socket.close(linger=0)
