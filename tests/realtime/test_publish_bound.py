"""Where a publisher may bind: what is there already is spared, and a refusal is one clear line."""

from __future__ import annotations

from pathlib import Path
from socket import AF_UNIX, socket

import pytest
from broadcast import Broadcast

from ecmf.errors import UsageError
from realtime.publish import Publisher
from realtime.subscribe import Subscriber

LOOPBACK = "tcp://127.0.0.1:*"


def is_heard(publisher: Publisher) -> bool:
    with Broadcast(publisher), Subscriber(publisher.endpoint) as subscriber:
        return subscriber.receive(5.0) is not None


def test_an_address_in_use_names_the_port_and_the_remedy() -> None:
    first = Publisher(LOOPBACK)
    port = first.endpoint.rpartition(":")[2]
    with pytest.raises(
        UsageError, match=rf"--bind tcp://127\.0\.0\.1:{port} is already in use.*another --bind"
    ):
        Publisher(first.endpoint)
    first.close()
    Publisher(first.endpoint).close()


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("tcp://192.0.2.1:5555", "not an address of this machine"),
        ("tcp://nosuchcard0:5555", "not an address of this machine"),
        ("nonsense", "write it like tcp://"),
        ("ipc:///no/such/folder/socket", "folder that does not exist"),
        (f"ipc:///tmp/{'x' * 120}", "too long for a socket's path"),
        ("ipc:///tmp", "would replace what is there"),
    ],
)
def test_an_address_that_cannot_be_bound_is_one_clear_line(address: str, says: str) -> None:
    with pytest.raises(UsageError, match=says) as caught:
        Publisher(address)
    assert address in str(caught.value) and "\n" not in str(caught.value)


def test_an_ipc_address_works(tmp_path: Path) -> None:
    publisher = Publisher(f"ipc://{tmp_path}/s")
    assert is_heard(publisher)
    publisher.close()


def test_an_ipc_address_in_use_is_refused_and_its_publisher_goes_on(tmp_path: Path) -> None:
    first = Publisher(f"ipc://{tmp_path}/s")
    with pytest.raises(UsageError, match=r"/s is already in use; stop who holds it \(ss -lxp\)"):
        Publisher(first.endpoint)
    assert is_heard(first)
    first.close()
    Publisher(f"ipc://{tmp_path}/s").close()


def test_an_ipc_address_that_a_killed_publisher_left_is_taken(tmp_path: Path) -> None:
    with socket(AF_UNIX) as left:
        left.bind(f"{tmp_path}/s")
    assert (tmp_path / "s").is_socket()
    Publisher(f"ipc://{tmp_path}/s").close()


def test_a_file_at_an_ipc_address_is_left_as_it_is(tmp_path: Path) -> None:
    notes = tmp_path / "notes.txt"
    notes.write_text("a year's work")
    with pytest.raises(UsageError, match="no socket; take a path of its own"):
        Publisher(f"ipc://{notes}")
    assert notes.read_text() == "a year's work"


def test_publishing_beyond_this_machine_is_said(caplog: pytest.LogCaptureFixture) -> None:
    Publisher("tcp://*:*").close()
    assert "everyone who reaches this machine" in caplog.text
    caplog.clear()
    Publisher(LOOPBACK).close()
    assert caplog.text == ""
