"""`ecmf-listen` against a real publisher on loopback."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq
from broadcast import Broadcast
from wire import estimate, health

from ecmf.errors import EcmfError
from realtime import listen, schema
from realtime.message import encode
from realtime.publish import Publisher
from realtime.subscribe import Received, Subscriber


@pytest.fixture
def publisher() -> Iterator[Publisher]:
    made = Publisher("tcp://127.0.0.1:*")
    yield made
    made.close()


def test_json_lines_are_the_messages_and_count_ends_it(
    publisher: Publisher, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    with Broadcast(publisher):
        assert listen.main(["--connect", publisher.endpoint, "--json", "--count", "20"]) == 0
    out, err = capfdbinary.readouterr()
    found = [json.loads(line) for line in out.splitlines()]
    assert len(found) == 20 and err == b""
    assert {message["type"] for message in found} == {"emotion", "transcript", "health"}
    mine = [
        message["seq"] for message in found if (message["type"], message["source"]) == ("emotion", "demo")
    ]
    assert mine == list(range(mine[0], mine[0] + len(mine)))


def test_one_source_only(publisher: Publisher, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    with Broadcast(publisher):
        arguments = ["--connect", publisher.endpoint, "--json", "--count", "5", "--source", "other"]
        assert listen.main(arguments) == 0
    found = [json.loads(line) for line in capfdbinary.readouterr().out.splitlines()]
    assert {message["source"] for message in found} == {"other"}


def test_people_get_a_line_an_estimate_and_nothing_that_steers_the_terminal(
    publisher: Publisher, capfd: pytest.CaptureFixture[str]
) -> None:
    with Broadcast(publisher):
        assert listen.main(["--connect", publisher.endpoint, "--count", "12"]) == 0
    out = capfd.readouterr().out
    lines = out.splitlines()
    assert sum("happiness" in line for line in lines) + sum("(no_person)" in line for line in lines) == 12
    assert any("health: all well" in line for line in lines)
    said = [line for line in lines if "demo     “" in line]
    read = [line for line in lines if line == "demo       reads as joyful"]
    assert all("It was �[31mthe best" in line for line in said) and abs(len(said) - len(read)) <= 1
    assert "\x1b[31m" not in out


def test_ctrl_c_ends_it_quietly(publisher: Publisher) -> None:
    with Broadcast(publisher):
        process = subprocess.Popen(
            [sys.executable, "-m", "realtime.listen", "--connect", publisher.endpoint, "--json"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,  # so that nothing is read ahead of what communicate() reads
        )
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["v"] == 1
        process.send_signal(signal.SIGINT)
        rest, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (0, b"")
    for line in rest.splitlines():
        json.loads(line)


def test_a_reader_that_goes_away_ends_it_quietly(publisher: Publisher) -> None:
    with Broadcast(publisher):
        process = subprocess.Popen(
            [sys.executable, "-m", "realtime.listen", "--connect", publisher.endpoint, "--json"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert process.stdout is not None and process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(timeout=30) == 0
        assert process.stderr.read() == b""
        process.stderr.close()


def test_a_gap_is_told(publisher: Publisher, capfd: pytest.CaptureFixture[str]) -> None:
    over = threading.Event()

    def skip() -> None:
        seq = 0
        while not over.wait(0.002):
            message = estimate(seq=seq)
            publisher.write(message, "emotion/demo/", encode(message))
            seq += 4

    thread = threading.Thread(target=skip)
    thread.start()
    try:
        assert listen.main(["--connect", publisher.endpoint, "--count", "3", "--json"]) == 0
    finally:
        over.set()
        thread.join()
    assert capfd.readouterr().err.count("missed 3 messages of emotion/demo/ before seq") == 2


def test_silence_is_told_once(
    publisher: Publisher, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Impatient(listen.Stop):
        """Somebody who has had enough after a few looks."""

        looks = 0

        def asked(self) -> bool:
            self.looks += 1
            return self.looks > 4

    monkeypatch.setattr(listen, "Stop", Impatient)
    monkeypatch.setattr(listen, "QUIET_S", -1.0)
    monkeypatch.setattr(listen, "POLL_S", 0.0)
    assert listen.main(["--connect", publisher.endpoint]) == 0
    assert capfd.readouterr().err.count(f"nothing from {publisher.endpoint} yet") == 1
    arguments = ["--connect", publisher.endpoint, "--only", "transcript", "--source", "desk"]
    assert listen.main(arguments) == 0
    assert "is ecmf-live running there? (with --transcript" in capfd.readouterr().err


def test_a_publisher_that_falls_silent_is_told_once(
    publisher: Publisher, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    coming = [Received("health/demo/", health(), encode(health()), 0), None, None, None]

    class Falling(Subscriber):
        def receive(self, timeout_s: float | None = None) -> Received | None:
            found = coming.pop(0)
            if not coming:
                raise EcmfError("that was all")
            return found

    monkeypatch.setattr(listen, "Subscriber", Falling)
    monkeypatch.setattr(listen, "QUIET_S", -1.0)
    assert listen.main(["--connect", publisher.endpoint]) == 2
    said = capfd.readouterr().err.splitlines()
    assert len(said) == 2 and f"nothing from {publisher.endpoint} for" in said[0]


def test_only_one_kind(publisher: Publisher, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    with Broadcast(publisher):
        arguments = ["--connect", publisher.endpoint, "--json", "--count", "10", "--only", "emotion"]
        assert listen.main(arguments) == 0
        assert listen.main(["--connect", publisher.endpoint, "--count", "2", "--only", "health"]) == 0
    found = capfdbinary.readouterr().out.splitlines()
    assert {json.loads(line)["type"] for line in found[:10]} == {"emotion"}
    assert found[10:] == [b"demo     health: all well"]


def test_several_publishers_are_heard_together(
    publisher: Publisher, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    second = Publisher("tcp://127.0.0.1:*")
    with Broadcast(publisher), Broadcast(second):
        arguments = ["--connect", publisher.endpoint, "--connect", second.endpoint, "--json"]
        assert listen.main([*arguments, "--only", "health", "--count", "40"]) == 0
    second.close()
    assert len(capfdbinary.readouterr().out.splitlines()) == 40


def test_the_schema_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    assert listen.main(["--schema"]) == 0
    assert json.loads(capfd.readouterr().out) == schema.schema()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--connect", "localhost"], "cannot connect to localhost: expected an address"),
        (["--only", "face"], "argument --only: invalid choice: 'face'"),
        (["--count", "0"], "--count 0: expected a whole number"),
        (["--count", "x"], "--count x: expected a whole number"),
        (["--source", "a/b"], "source a/b: expected letters"),
        (["--nonsense"], "unrecognized arguments: --nonsense"),
    ],
)
def test_nonsense_is_one_line_and_exit_code_2(
    arguments: list[str], says: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert listen.main(arguments) == 2
    out, err = capfd.readouterr()
    assert out == "" and says in err and err.count("\n") == 1


def test_a_publisher_of_something_else_is_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    with zmq.Context() as context, context.socket(zmq.PUB) as socket:
        port = socket.bind_to_random_port("tcp://127.0.0.1")
        over = threading.Event()

        def chatter() -> None:
            while not over.wait(0.002):
                socket.send_multipart((b"emotion/x/", b'{"temperature": 21}'))

        thread = threading.Thread(target=chatter)
        thread.start()
        try:
            assert listen.main(["--connect", f"tcp://127.0.0.1:{port}"]) == 2
        finally:
            over.set()
            thread.join()
    assert "not a message of version 1" in capfd.readouterr().err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
@pytest.mark.parametrize("options", [["--json"], []])
def test_a_full_disk_is_one_line(publisher: Publisher, options: list[str]) -> None:
    command = [sys.executable, "-m", "realtime.listen", "--connect", publisher.endpoint, *options]
    with Broadcast(publisher), Path("/dev/full").open("wb") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=120)
    assert done.returncode == 2
    assert "ecmf-listen: stdout cannot be written any more: No space left on device" in done.stderr
    assert "Traceback" not in done.stderr
