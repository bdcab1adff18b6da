"""Given a process that is stopped, ended amid its start, starved, or listened to by many who come and go."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq

pytestmark = pytest.mark.slow

PATIENCE_S = 120.0
"""Longest wait for something that happens within seconds on an idle machine."""
MOST_COMPANY = 60
"""Busy loops that leave a process of many threads too little of one core, however the scheduler shares it."""


class Live:
    """`ecmf-live` on the looping demo, what it prints, and what it says."""

    def __init__(self, *options: str, prefix: tuple[str, ...] = ()) -> None:
        command = [*prefix, sys.executable, "-m", "realtime.cli", "--demo", "--loop", "--offline", "--json"]
        self.process = subprocess.Popen(
            [*command, "--llm", "off", "--bind", "tcp://127.0.0.1:*", *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.messages: list[dict[str, Any]] = []
        self.said: list[str] = []
        self._came = threading.Condition()
        self._threads = [
            threading.Thread(target=self._read, args=(self.process.stdout, self.messages, json.loads)),
            threading.Thread(target=self._read, args=(self.process.stderr, self.said, str.rstrip)),
        ]
        for thread in self._threads:
            thread.start()

    def _read(self, stream: Any, kept: list[Any], parse: Callable[[str], Any]) -> None:
        for line in stream:
            with self._came:
                kept.append(parse(line))
                self._came.notify_all()

    def wait_for(self, wanted: Callable[[dict[str, Any]], bool], after: int = 0) -> int:
        """Number of the first message from ``after`` on that is wanted."""
        return self._wait(self.messages, wanted, after)

    def wait_for_line(self, part: str) -> None:
        """Wait until something is said on stderr."""
        self._wait(self.said, lambda line: part in line, 0)

    def _wait(self, kept: list[Any], wanted: Callable[[Any], bool], seen: int) -> int:
        deadline = time.monotonic() + PATIENCE_S
        with self._came:
            while True:
                while seen < len(kept):
                    if wanted(kept[seen]):
                        return seen
                    seen += 1
                left = deadline - time.monotonic()
                assert left > 0 and self.process.poll() is None, (self.said, kept[-1:])
                self._came.wait(min(left, 1.0))

    def address(self) -> str:
        """Where it publishes."""
        self.wait_for_line("Ctrl-C ends it")
        line = next(line for line in self.said if "Ctrl-C ends it" in line)
        return line.partition(" on ")[2].partition(";")[0]

    def end(self) -> int:
        """Ask it to end; its exit code."""
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(PATIENCE_S)
        for thread in self._threads:
            thread.join(PATIENCE_S)
        assert not any("Traceback" in line for line in self.said), self.said
        return code

    def no_gaps(self) -> bool:
        """Whether every topic was numbered without a gap, and what was printed is whole."""
        for kind in {m["type"] for m in self.messages}:
            numbers = [m["seq"] for m in self.messages if m["type"] == kind]
            if numbers != list(range(len(numbers))):
                return False
        return True


@contextlib.contextmanager
def live(*options: str, prefix: tuple[str, ...] = ()) -> Iterator[Live]:
    made = Live(*options, prefix=prefix)
    try:
        yield made
    finally:
        if made.process.poll() is None:
            made.process.kill()
            made.process.wait()


@pytest.fixture(scope="module", autouse=True)
def demo(weight: Callable[[str], Path]) -> None:
    names = (
        "face-landmarker",
        "efficientnet-lite0",
        "silero-vad",
        "whisper-tiny.en",
        "demo-face",
        "demo-speech",
    )
    for name in names:
        weight(name)


def labelled(message: dict[str, Any]) -> bool:
    return message["type"] == "emotion" and message["label"] is not None


def healthy(message: dict[str, Any]) -> bool:
    return message["type"] == "health" and all(w["restarts"] == 0 for w in message["workers"].values())


def test_stopped_for_three_seconds_it_goes_on_without_a_restart() -> None:
    with live("--asr", "off") as run:
        before = run.wait_for(labelled)
        os.kill(run.process.pid, signal.SIGSTOP)
        stopped_ns = time.monotonic_ns()
        with contextlib.suppress(subprocess.TimeoutExpired):
            run.process.wait(3)  # it cannot end: this is three seconds
        os.kill(run.process.pid, signal.SIGCONT)
        after = run.wait_for(
            lambda m: labelled(m) and m["trigger"] == "face" and m["t_capture_ns"] > stopped_ns + 3 * 10**9,
            before,
        )
        told = run.wait_for(lambda m: m["type"] == "health", after)
        assert healthy(run.messages[told]), run.messages[told]
        assert run.end() == 0
        assert run.no_gaps()
    for message in run.messages:
        if labelled(message) and message["trigger"] == "face":
            aged_ms = (message["t_publish_ns"] - message["t_capture_ns"]) * 1e-6
            assert message["modalities"]["face"]["age_ms"] >= aged_ms - 50, "what is old says so"


@pytest.mark.parametrize("phase", ["at once", "imports", "bound", "workers", "running"])
def test_sigterm_in_every_phase_of_the_start(phase: str) -> None:
    with live("-vv", "--asr", "off") as run:
        match phase:
            case "imports":
                # The interpreter is up and our own imports have begun: the handlers are there.
                maps = Path(f"/proc/{run.process.pid}/maps")
                deadline = time.monotonic() + PATIENCE_S
                while "numpy" not in maps.read_text("utf-8") and time.monotonic() < deadline:
                    assert run.process.poll() is None
            case "bound":
                run.address()
            case "workers":
                run.wait_for(lambda m: m["type"] == "health")
            case "running":
                run.wait_for(labelled)
        code = run.end()
        # Before Python itself runs, the system's default applies: the process is gone, and nothing was begun.
        assert code == 0 or (phase == "at once" and code == -signal.SIGTERM), (code, run.said)
        if code == 0 and phase != "imports":
            assert any(re.search("stopped|estimates? in", line) for line in run.said), run.said
        assert run.no_gaps()


@contextlib.contextmanager
def ever_more_company(core: str) -> Iterator[None]:
    """Put one busy loop after the other onto a core: how few starve a process depends on the scheduler.

    Each is in a session of its own: where the scheduler shares a core among sessions, together they were one.
    """
    enough, others = threading.Event(), []

    def add() -> None:
        while len(others) < MOST_COMPANY and not enough.is_set():
            burn = ["taskset", "-c", core, sys.executable, "-c", "while True: pass"]
            others.append(subprocess.Popen(burn, start_new_session=True))
            enough.wait(1.0)

    adding = threading.Thread(target=add)
    adding.start()
    try:
        yield
    finally:
        enough.set()
        adding.join()
        for other in others:
            other.kill()
            other.wait()


def test_starved_it_does_less_in_order_and_what_it_publishes_says_its_age() -> None:
    core = str(min(os.sched_getaffinity(0)))
    with live(prefix=("taskset", "-c", core)) as run:
        before = run.wait_for(labelled)
        with ever_more_company(core):
            told = run.wait_for(lambda m: m["type"] == "health" and m["load"]["level"] >= 3, before)
        run.wait_for(lambda m: m["type"] == "health", run.wait_for(labelled, told))
        assert run.end() == 0
        assert run.no_gaps()
    levels = [m["load"]["level"] for m in run.messages if m["type"] == "health"]
    assert all(abs(b - a) <= 1 for a, b in itertools.pairwise(levels)), "one step at a time"
    message = run.messages[told]
    assert message["load"]["reduced"][0].startswith("scene") and "words" in message["load"]["reduced"][1]
    assert any("reduced: scene" in note for note in message["notes"])
    assert any("overload (" in line for line in run.said)
    assert healthy(message), message["notes"]


def test_prometheus_reads_a_running_process() -> None:
    pytest.importorskip("prometheus_client")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with live("--metrics", str(port), "--asr", "off", "--mic", "off") as run:
        run.wait_for(lambda m: m["type"] == "health", run.wait_for(labelled))
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=PATIENCE_S) as answer:
            text = answer.read().decode()
        assert run.end() == 0
    counted = [line for line in text.splitlines() if line.startswith("ecmf_estimates_total{")]
    assert counted and all('source="demo"' in line for line in counted)
    assert 'ecmf_worker_alive{source="demo",worker="face"} 1.0' in text
    assert 'ecmf_camera_state{source="demo",state="ok"} 1.0' in text
    assert "process_resident_memory_bytes" in text and "ecmf_load_level" in text


def test_subscribers_come_and_go_and_one_never_reads() -> None:
    context = zmq.Context()
    with live("--asr", "off", "--mic", "off") as run:
        address = run.address()
        run.wait_for(labelled)
        files = Path(f"/proc/{run.process.pid}/fd")
        before, memory = len(list(files.iterdir())), _resident_mb(run.process.pid)

        def connect() -> Any:
            made = context.socket(zmq.SUB)
            made.setsockopt(zmq.RCVHWM, 1)
            made.subscribe("")
            made.connect(address)
            return made

        stuck = connect()
        for _ in range(20):
            sockets = [connect() for _ in range(10)]
            assert all(each.poll(PATIENCE_S * 1000) for each in sockets)
            for each in sockets:
                each.close(linger=0)
        seen = len(run.messages)
        run.wait_for(lambda m: m["type"] == "health", run.wait_for(labelled, seen))
        stuck.close(linger=0)
        deadline = time.monotonic() + PATIENCE_S
        while len(list(files.iterdir())) > before and time.monotonic() < deadline:
            run.wait_for(labelled, len(run.messages))
        assert len(list(files.iterdir())) <= before
        assert _resident_mb(run.process.pid) < memory + 60
        assert run.end() == 0
        assert run.no_gaps()
    context.destroy(linger=0)


def _resident_mb(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text("ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
