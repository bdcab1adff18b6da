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
from hypothesis import given
from hypothesis import strategies as st
from wire import estimate, health, transcript, unlabelled

from realtime import listen
from realtime.message import encode
from realtime.publish import Publisher, Sinks


@pytest.fixture
def publisher() -> Iterator[Publisher]:
    made = Publisher("tcp://127.0.0.1:*")
    yield made
    made.close()


class Broadcast:
    """Publishes a round of messages again and again, until somebody has heard enough."""

    def __init__(self, publisher: Publisher) -> None:
        self._sinks = Sinks([publisher], now_ns=lambda: 0, transcript=True)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Broadcast:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(0.002):
            self._sinks.publish(estimate())
            self._sinks.publish(unlabelled(source="other"))
            self._sinks.publish(transcript(text="It was \x1b[31mthe best", final=True))
            self._sinks.publish(health())


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
    assert any("It was �[31mthe best" in line for line in lines)
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


@given(st.lists(st.integers(0, 30), unique=True, min_size=1).map(sorted))
def test_every_message_is_either_here_or_counted_as_missed(seqs: list[int]) -> None:
    gaps = listen.Gaps()
    missed = [gaps.missed("emotion/demo/", "run", seq) for seq in seqs]
    assert None not in missed
    assert sum(count or 0 for count in missed) + len(seqs) == seqs[-1] - seqs[0] + 1
    assert gaps.missed("emotion/demo/", "run", seqs[-1]) is None
    assert gaps.missed("health/demo/", "run", 17) == 0
    assert gaps.missed("emotion/demo/", "another run", 0) == 0


def test_a_gap_is_told(capfd: pytest.CaptureFixture[str]) -> None:
    seen = listen.Seen()
    for seq in (4, 5, 9):
        assert seen.decode("emotion/demo/", encode(estimate(seq=seq))) is not None
    assert seen.decode("emotion/demo/", encode(estimate(seq=9))) is None
    assert "missed 3 messages of emotion/demo/ before seq 9" in capfd.readouterr().err


def test_silence_is_told_once(capfd: pytest.CaptureFixture[str]) -> None:
    stop = listen.Stop()

    class Silent:
        """A socket on which nothing comes, until the person has had enough."""

        polls = 0

        def poll(self, timeout_ms: int) -> int:
            self.polls += 1
            if self.polls == 4:
                stop.ask()
            return 0

    assert list(listen.messages(Silent(), stop, quiet_s=-1.0, address="tcp://x:1")) == []
    assert capfd.readouterr().err.count("nothing from tcp://x:1 yet") == 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--connect", "localhost"], "--connect localhost: expected an address"),
        (["--connect", "tcp://127.0.0.1:*"], "expected an address"),
        (["--count", "0"], "--count 0: expected a whole number"),
        (["--count", "x"], "--count x: expected a whole number"),
        (["--source", "a/b"], "--source a/b: expected letters"),
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
