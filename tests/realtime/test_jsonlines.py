"""Lines for another program: whole, in order, and never in the way."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

from wire import estimate

from realtime.jsonlines import QUEUE, JsonLines
from realtime.message import encode


def test_lines_come_out_whole_and_in_order() -> None:
    reader, writer = os.pipe()
    lines = JsonLines(writer, on_gone=lambda: None)
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
    lines = JsonLines(writer, on_gone=lambda: None)
    payload = b"x" * 4096
    for _ in range(QUEUE + 200):  # a pipe holds 64 KiB: this ends only if nothing waits for the reader
        lines.write(estimate(), "", payload)
    assert lines.dropped > 100
    os.close(reader)
    lines.close()


def test_annotation_waits_for_the_reader_and_loses_nothing() -> None:
    reader, writer = os.pipe()
    lines = JsonLines(writer, lossless=True, on_gone=lambda: None)
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
    gone = threading.Event()
    lines = JsonLines(writer, lossless=True, on_gone=gone.set)
    os.close(reader)
    lines.write(estimate(), "", b"x")
    assert gone.wait(30)
    for _ in range(2 * QUEUE):
        lines.write(estimate(), "", b"x")
    lines.close()


def test_chatter_of_libraries_goes_to_stderr() -> None:
    program = (
        "import os\nfrom realtime.jsonlines import claim_stdout\n"
        "real = claim_stdout()\nprint('from python', flush=True)\nos.write(1, b'from C\\n')\nos.write(real, b'{}\\n')"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout == "{}\n"
    assert found.stderr == "from python\nfrom C\n"
