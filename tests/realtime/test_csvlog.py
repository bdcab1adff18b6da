"""A table that can be read at any moment, whatever happened to the process that wrote it."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from wire import PROBS, estimate, health, transcript, unlabelled

from ecmf.errors import EcmfError, UsageError
from ecmf.labels import EKMAN
from realtime.csvlog import CsvLog
from realtime.message import Message


def write(path: Path, *messages: Message) -> None:
    log = CsvLog(path, EKMAN)
    for message in messages:
        log.write(message, "", b"")
    log.close()


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_one_row_an_estimate_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "talk.csv"
    write(
        path,
        estimate(seq=0),
        health(),
        transcript(),
        unlabelled(seq=1),
        estimate(seq=2, latency_ms={"total": 7.5}),
    )
    found = rows(path)
    assert [row["seq"] for row in found] == ["0", "1", "2"]
    first, second, third = found
    assert first["label"] == "happiness" and first["confidence"] == "0.7" and first["t_media_s"] == "1.25"
    assert [float(first[f"smoothed.{label}"]) for label in EKMAN] == list(PROBS.values())
    assert (first["face.present"], first["face.weight"], first["text.present"]) == ("1", "0.6", "0")
    assert (first["text.reason"], first["face.happiness"], first["text.happiness"]) == ("no_words", "0.7", "")
    assert (first["bbox.x"], first["bbox.height"]) == ("10.0", "120.0")
    assert second["label"] == "" and second["reason"] == "no_person" and second["raw.anger"] == ""
    assert (first["latency_ms"], third["latency_ms"]) == ("", "7.5")
    assert None not in first and None not in first.values()


def test_a_row_is_there_as_soon_as_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "talk.csv"
    log = CsvLog(path, EKMAN)
    for number in range(3):
        log.write(estimate(seq=number), "", b"")
        assert [row["seq"] for row in rows(path)] == [str(n) for n in range(number + 1)]
    log.close()


def test_a_killed_writer_leaves_only_whole_rows(tmp_path: Path) -> None:
    path = tmp_path / "talk.csv"
    program = (
        "import sys; sys.path.insert(0, sys.argv[2])\n"
        "from pathlib import Path; from wire import estimate\n"
        "from ecmf.labels import EKMAN; from realtime.csvlog import CsvLog\n"
        "log = CsvLog(Path(sys.argv[1]), EKMAN); message = estimate()\n"
        "print('writing', flush=True)\n"
        "while True: log.write(message, '', b'')\n"
    )
    writer = subprocess.Popen(
        [sys.executable, "-c", program, str(path), str(Path(__file__).parent)], stdout=subprocess.PIPE
    )
    assert writer.stdout is not None and writer.stdout.readline() == b"writing\n"
    while path.stat().st_size < 100_000:
        assert writer.poll() is None
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    writer.stdout.close()
    assert path.read_bytes().endswith(b"\n")
    found = rows(path)
    assert len(found) > 100 and all(None not in row and None not in row.values() for row in found)


def test_a_second_run_continues_and_removes_what_a_power_cut_left(tmp_path: Path) -> None:
    path = tmp_path / "talk.csv"
    write(path, estimate(run="a", seq=0))
    whole = path.read_bytes()
    path.write_bytes(whole + whole.splitlines()[1][:40])
    write(path, estimate(run="b", seq=0))
    assert [row["run"] for row in rows(path)] == ["a", "b"]
    path.write_bytes(whole[:25])
    write(path, estimate(run="c"))
    assert [row["run"] for row in rows(path)] == ["c"]


def test_where_the_file_is_moved_or_removed_the_next_row_begins_a_new_one(tmp_path: Path) -> None:
    path = tmp_path / "talk.csv"
    log = CsvLog(path, EKMAN)
    log.write(estimate(seq=0), "", b"")
    path.rename(tmp_path / "talk.csv.1")
    log.write(estimate(seq=1), "", b"")
    log.write(estimate(seq=2), "", b"")
    assert [row["seq"] for row in rows(tmp_path / "talk.csv.1")] == ["0"]
    assert [row["seq"] for row in rows(path)] == ["1", "2"]
    path.unlink()
    log.write(estimate(seq=3), "", b"")
    log.close()
    assert [row["seq"] for row in rows(path)] == ["3"]


def test_a_file_that_is_emptied_gets_its_header_again(tmp_path: Path) -> None:
    path = tmp_path / "talk.csv"
    log = CsvLog(path, EKMAN)
    log.write(estimate(seq=0), "", b"")
    os.truncate(path, 0)
    log.write(estimate(seq=1), "", b"")
    log.close()
    assert [row["seq"] for row in rows(path)] == ["1"]


def test_what_took_the_place_of_the_file_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "talk.csv"
    log = CsvLog(path, EKMAN)
    path.unlink()
    path.write_text("notes")
    with pytest.raises(UsageError, match="another table"):
        log.write(estimate(), "", b"")
    log.close()
    assert path.read_text() == "notes"


def test_a_pipe_gets_one_header(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    write(path, estimate(seq=0), estimate(seq=1))
    lines = os.read(reader, 1 << 16).splitlines()
    os.close(reader)
    assert [line.startswith(b"wall,run,") for line in lines] == [True, False, False]


@pytest.mark.parametrize("content", [b"name,age\nx,1\n", b"my notes, without a newline", b"wall,run\n"])
def test_another_table_is_refused_and_left_as_it_is(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "other.csv"
    path.write_bytes(content)
    with pytest.raises(UsageError, match="another table"):
        CsvLog(path, EKMAN)
    assert path.read_bytes() == content


def test_other_labels_make_another_table(tmp_path: Path) -> None:
    path = tmp_path / "talk.csv"
    write(path, estimate())
    with pytest.raises(UsageError, match="another table"):
        CsvLog(path, ("neutral", "happy"))


def test_a_place_that_cannot_be_written_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file or directory"):
        CsvLog(tmp_path / "missing" / "talk.csv", EKMAN)
    with pytest.raises(UsageError, match="Is a directory"):
        CsvLog(tmp_path, EKMAN)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_is_one_clear_line() -> None:
    with pytest.raises(EcmfError, match="No space left"):
        CsvLog(Path("/dev/full"), EKMAN)
