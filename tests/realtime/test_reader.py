"""Given output that nobody reads, nobody waits for it; given a reader, every line comes."""

from __future__ import annotations

import io
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import pytest
from wire import estimate

from realtime.cli import _Stderr
from realtime.reader import takes_more
from realtime.status_line import StatusLine


@pytest.fixture
def pipe() -> Iterator[tuple[int, TextIO]]:
    """A pipe's reading end, and its writing end as a stream."""
    read, write = os.pipe()
    stream = os.fdopen(write, "w")
    os.set_blocking(read, False)
    yield read, stream
    os.close(read)
    with open(os.devnull, "wb") as nowhere:  # noqa: PTH123
        os.dup2(nowhere.fileno(), stream.fileno())
    stream.close()


def test_a_status_line_is_left_out_while_nobody_reads_and_comes_again(pipe: tuple[int, TextIO]) -> None:
    read, stream = pipe
    status = StatusLine(stream, every_ns=0)
    for number in range(3000):  # several times what a pipe holds: this ends only if nothing waits
        status.write(estimate(t_publish_ns=number, latency_ms=None), "emotion/demo/", b"")
    assert not takes_more(stream)
    before = os.read(read, 1 << 20)
    assert before.endswith(b"\n") and before.count(b"\n") < 3000, "whole lines, not all of them"
    status.write(estimate(t_publish_ns=3000, latency_ms=None), "emotion/demo/", b"")
    assert os.read(read, 1 << 20).count(b"\n") == 1


def test_a_reader_that_leaves_ends_nothing() -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(os.dup(write), "w") as stream:
        status = StatusLine(stream, every_ns=0)
        for number in range(3):
            status.write(estimate(t_publish_ns=number, latency_ms=None), "emotion/demo/", b"")
        status.close()
        with open(os.devnull, "wb") as nowhere:  # noqa: PTH123
            os.dup2(nowhere.fileno(), stream.fileno())
    os.close(write)


def test_a_log_line_waits_for_nobody(pipe: tuple[int, TextIO], monkeypatch: pytest.MonkeyPatch) -> None:
    read, stream = pipe
    monkeypatch.setattr("sys.stderr", stream)
    handler = _Stderr()
    for _ in range(3000):
        handler.emit(logging.makeLogRecord({"msg": "overload: " + 60 * "x", "levelno": logging.WARNING}))
    assert os.read(read, 1 << 20).count(b"\n") < 3000


def test_files_and_buffers_always_take_more(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w") as file:
        assert takes_more(file)
    assert takes_more(io.StringIO())
