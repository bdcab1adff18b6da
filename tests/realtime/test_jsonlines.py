"""Lines for another program: whole, in order, and never in the way."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from wire import estimate

from ecmf.errors import EcmfError
from realtime.jsonlines import POLL_S, QUEUE, JsonLines
from realtime.message import encode
from realtime.stopping import Stop


def test_lines_come_out_whole_and_in_order() -> None:
    reader, writer = os.pipe()
    lines = JsonLines(writer, Stop())
    payloads = [encode(estimate(seq=seq)) for seq in range(100)]
    received: list[bytes] = []

    def read() -> None:
        with os.fdopen(reader, "rb") as file:
            received.extend(file.read().splitlines())

    thread = threading.Thread(target=read)
    thread.start()
    for payload in payloads:
        lines.write(estimate(), "", payload)
    lines.close()
    thread.join()
    assert received == payloads
    assert lines.dropped == 0


def test_a_reader_that_stops_reading_costs_lines_and_nothing_else() -> None:
    reader, writer = os.pipe()
    lines = JsonLines(writer, Stop())
    payload = b"x" * 4096
    for _ in range(QUEUE + 200):  # a pipe holds 64 KiB: this ends only if nothing waits for the reader
        lines.write(estimate(), "", payload)
    assert lines.dropped > 100
    os.close(reader)
    lines.close()


def test_annotation_waits_for_the_reader_and_loses_nothing() -> None:
    reader, writer = os.pipe()
    lines = JsonLines(writer, Stop(), lossless=True)
    count, payload = QUEUE + 200, b"y" * 4095

    def write() -> None:
        for _ in range(count):
            lines.write(estimate(), "", payload)
        lines.close()

    thread = threading.Thread(target=write)
    thread.start()
    with os.fdopen(reader, "rb") as file:
        received = file.read()
    thread.join()
    assert received == (payload + b"\n") * count
    assert lines.dropped == 0


def test_a_closed_pipe_is_told_once_and_writing_goes_on_quietly() -> None:
    reader, writer = os.pipe()
    stop = Stop()
    lines = JsonLines(writer, stop, lossless=True)
    os.close(reader)
    for _ in range(3 * QUEUE):
        lines.write(estimate(), "", b"x")
    lines.close()
    assert stop.asked()
    assert lines.failure is None


def test_annotation_writes_the_last_lines_however_late_they_are_read() -> None:
    reader, writer = os.pipe()
    lines = JsonLines(writer, Stop(), lossless=True)
    count, payload = 64, b"z" * 4095
    for _ in range(count):  # more than a pipe holds: the rest waits when it is closed
        lines.write(estimate(), "", payload)
    closing = threading.Thread(target=lines.close, args=(0.0,))
    closing.start()
    closing.join(3 * POLL_S)
    with os.fdopen(reader, "rb") as file:
        received = file.read()
    closing.join()
    assert received == (payload + b"\n") * count
    assert lines.dropped == 0


def test_annotation_that_is_asked_to_end_waits_for_nobody() -> None:
    reader, writer = os.pipe()
    stop = Stop()
    lines = JsonLines(writer, stop, lossless=True)
    written = threading.Event()

    def write() -> None:
        for _ in range(QUEUE + 200):
            lines.write(estimate(), "", b"w" * 4096)
        written.set()

    threading.Thread(target=write, daemon=True).start()
    assert not written.wait(3 * POLL_S)
    stop.ask()
    assert written.wait(30)
    lines.close(0.0)
    assert lines.dropped > 100
    os.close(reader)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
@pytest.mark.parametrize("lossless", [True, False])
def test_a_full_disk_is_an_error_and_no_reason_to_wait(lossless: bool) -> None:
    lines = JsonLines(os.open("/dev/full", os.O_WRONLY), Stop(), lossless=lossless)
    with pytest.raises(EcmfError, match="stdout cannot be written any more: No space left on device"):
        for _ in range(1000 * QUEUE):
            lines.write(estimate(), "", b"x")
    lines.close()
    assert lines.failure is not None


def test_chatter_of_libraries_goes_to_stderr() -> None:
    program = (
        "import os\nfrom realtime.jsonlines import claim_stdout\n"
        "real = claim_stdout()\nprint('from python', flush=True)\nos.write(1, b'from C\\n')\nos.write(real, b'{}\\n')"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout == "{}\n"
    assert found.stderr == "from python\nfrom C\n"
