"""Given the demo, the live process publishes what it prints, reports its health, and ends when told."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import zmq

SCHEMA = json.loads((Path(__file__).parents[2] / "realtime" / "message.schema.json").read_text("utf-8"))
VALIDATOR = jsonschema.validators.validator_for(SCHEMA)(SCHEMA)
WEIGHTS = (
    "face-landmarker",
    "efficientnet-lite0",
    "silero-vad",
    "whisper-tiny.en",
    "demo-face",
    "demo-speech",
)


@pytest.fixture(scope="module")
def demo_weights(weight: Callable[[str], Path]) -> None:
    for name in WEIGHTS:
        weight(name)


def start(endpoint: str, *options: str) -> subprocess.Popen[str]:
    command = [
        sys.executable,
        "-m",
        "realtime.cli",
        "--demo",
        "--offline",
        "--json",
        "--bind",
        endpoint,
        *options,
    ]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def endpoint() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"tcp://127.0.0.1:{probe.getsockname()[1]}"


@pytest.fixture
def subscriber() -> Iterator[Callable[[str], Any]]:
    context = zmq.Context()
    made = []

    def connect(address: str) -> Any:
        sub = context.socket(zmq.SUB)
        sub.setsockopt(zmq.SUBSCRIBE, b"emotion/demo/")
        sub.setsockopt(zmq.RCVHWM, 0)
        sub.connect(address)
        made.append(sub)
        return sub

    yield connect
    context.destroy(linger=0)


@pytest.mark.usefixtures("demo_weights")
def test_the_demo_publishes_what_it_prints(subscriber: Callable[[str], Any]) -> None:
    address = endpoint()
    sub = subscriber(address)
    process = start(address, "--loop", "--llm", "off")
    assert process.stdout is not None
    messages, seen = [], set[str]()
    give_up = time.monotonic() + 120
    while len(seen) < 4 and time.monotonic() < give_up:  # until words have been read, too
        messages.append(json.loads(process.stdout.readline()))
        if messages[-1]["type"] == "emotion":
            seen |= {name for name, state in messages[-1]["modalities"].items() if state["present"]}
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    messages += [json.loads(line) for line in out.splitlines()]
    for message in messages:
        VALIDATOR.validate(message)
    estimates = [m for m in messages if m["type"] == "emotion"]
    assert [e["seq"] for e in estimates] == list(range(len(estimates)))
    assert seen == {"face", "scene", "voice", "text"}, err
    for e in estimates:
        total = (e["t_publish_ns"] - e["t_capture_ns"]) * 1e-6
        assert abs(e["latency_ms"]["total"] - total) < 0.01
        weights = [m["weight"] for m in e["modalities"].values() if m["present"]]
        assert not weights or abs(sum(weights) - 1) < 1e-3
    received = []
    while sub.poll(200):
        topic, payload = sub.recv_multipart()
        assert topic == b"emotion/demo/"
        received.append(json.loads(payload))
    assert received and received == estimates[received[0]["seq"] :]
    assert {m["type"] for m in messages} >= {"emotion", "health"}
    assert "estimates in" in err and "cores used" in err


@pytest.mark.usefixtures("demo_weights")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_ends_when_told(number: signal.Signals) -> None:
    process = start(endpoint(), "--loop", "--llm", "off")
    assert process.stdout is not None
    process.stdout.readline()  # it is running
    asked = time.monotonic()
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 0, err
    assert re.search("estimates? in", err) and "Traceback" not in err
    assert time.monotonic() - asked < 10  # generous: a hang, not a timing, is what this looks for


@pytest.mark.usefixtures("demo_weights")
def test_a_missing_weight_offline_is_one_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "realtime.cli", "--demo", "--offline", "--bind", endpoint()]
    clean = {k: v for k, v in os.environ.items() if k != "ECMF_WEIGHTS_DIR"}
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=60, env={**clean, "ECMF_CACHE": str(tmp_path)}
    )
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "offline" in done.stderr
