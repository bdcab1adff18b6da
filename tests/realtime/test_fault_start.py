"""Given what makes a start impossible, it is said in one clear line with exit code 2, and nothing is half written."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from realtime.cli import main

LIVE = ("face-landmarker", "efficientnet-lite0", "silero-vad", "whisper-tiny.en", "demo-face", "demo-speech")


def taken_port() -> socket.socket:
    holder = socket.socket()
    holder.bind(("127.0.0.1", 0))
    holder.listen()
    return holder


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[pace\nrate = 10", "is not TOML"),
        ("rate = 10", "unknown section"),
        ("pace = 10", "stands for a section"),
        ("[pase]\nrate = 10", "(did you mean pace?)"),
        ("[pace]\nrte = 10", "(did you mean rate?)"),
        ("[pace]\nrate = 1e9", "from 0.1 to 120"),
        ("[pace]\nrate = nan", "from 0.1 to 120"),
        ("[pace]\nrate = '15'", "expected a number"),
        ("[pace]\nrate = true", "expected a number"),
        ("[pace]\nsmoothing = -1", "from 0.001 to 60"),
        ("[input]\nduration = inf", "expected a number"),
        ("[input]\ndemo = 'yes'", "expected true or false"),
        ("[wire]\nbind = 'tcp://127.0.0.1:99999'", "expected an address"),
        ("[wire]\nhigh_water_mark = 0", "from 1 to 1000000"),
        ("[wire]\nmetrics = 70000", "from 1 to 65535"),
        ("[output]\ncsv = ['a']", "expected a path"),
        ("\x00\xff", "is not TOML"),
    ],
)
def test_a_malformed_configuration(
    text: str, says: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file, table = tmp_path / "live.toml", tmp_path / "out.csv"
    file.write_bytes(text.encode("latin-1"))
    assert main(["--demo", "--config", str(file), "--csv", str(table)]) == 2
    out, err = capfd.readouterr()
    assert out == "" and err.count("\n") == 1 and says in err and str(file) in err
    assert not table.exists()


@pytest.mark.parametrize(
    ("bind", "says"),
    [
        ("tcp://192.0.2.1:5555", "is not an address of this machine"),
        ("tcp://no.such.host.invalid:5555", "is not an address"),
        ("ipc:///no/such/folder/ecmf", "names a folder that does not exist"),
    ],
)
def test_an_address_that_cannot_be_had(
    bind: str, says: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "out.csv"
    assert main(["--demo", "--bind", bind, "--csv", str(table)]) == 2
    out, err = capfd.readouterr()
    assert out == "" and err.count("\n") == 1 and f"--bind {bind} {says}" in err
    assert not table.exists()


def test_a_port_that_is_taken_leaves_no_table(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    table = tmp_path / "out.csv"
    with taken_port() as holder:
        port = holder.getsockname()[1]
        assert main(["--demo", "--bind", f"tcp://127.0.0.1:{port}", "--csv", str(table)]) == 2
        assert (
            main(["--demo", "--bind", "tcp://127.0.0.1:*", "--metrics", str(port), "--csv", str(table)]) == 2
        )
    err = capfd.readouterr().err
    assert err.count("\n") == 2 and err.count("already in use") == 2
    assert not table.exists()


@pytest.fixture
def live(weight: Callable[[str], Path]) -> dict[str, Path]:
    return {name: weight(name) for name in LIVE}


def start(
    *options: str, before: Callable[[], None] | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    """The demo for a moment, without sound: how it ends and what it says."""
    command = [
        sys.executable,
        "-m",
        "realtime.cli",
        "--demo",
        "--offline",
        "--mic",
        "off",
        "--duration",
        "0.5",
    ]
    return subprocess.run(
        [*command, "--bind", "tcp://127.0.0.1:*", "--json", *options],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        env={**os.environ, **environment},
        preexec_fn=before,
    )


def last_line(done: subprocess.CompletedProcess[str]) -> str:
    assert "Traceback" not in done.stderr
    return done.stderr.strip().splitlines()[-1]


def test_a_corrupt_weight_names_the_file_and_both_hashes(live: dict[str, Path], tmp_path: Path) -> None:
    for name, path in live.items():
        folder = path if path.is_dir() else path.parent
        shutil.copytree(folder, tmp_path / name)
    broken = tmp_path / "face-landmarker" / live["face-landmarker"].name
    content = bytearray(broken.read_bytes())
    content[len(content) // 2] ^= 1
    broken.write_bytes(content)
    done = start(ECMF_WEIGHTS_DIR=str(tmp_path))
    assert done.returncode == 2 and done.stdout == ""
    assert f"{broken} has sha256" in last_line(done) and "replace it" in last_line(done)


@pytest.mark.usefixtures("live")
@pytest.mark.parametrize("megabytes", [400, 500])
def test_too_little_memory_for_the_models(megabytes: int) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (megabytes << 20, megabytes << 20))

    done = start(before=limit)
    # Where a native thread or the dynamic loader itself runs out, nobody can catch that; but it says so.
    if done.returncode in (-signal.SIGABRT, 127):
        assert "bad_alloc" in done.stderr or "cannot allocate memory" in done.stderr
        return
    assert done.returncode == 2
    assert "memory" in last_line(done)


def in_a_small_disk(folder: Path, options: str, then: str) -> subprocess.CompletedProcess[str]:
    """``then`` in a mount name space of its own, where ``folder`` is a real disk of that kind."""
    if shutil.which("unshare") is None:
        pytest.skip("needs unshare to mount a small disk")
    script = f"mount -t tmpfs -o {options} tmpfs {folder} || exit 77; {then}"
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script], capture_output=True, text=True, timeout=300, check=False
    )
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip(f"cannot mount here: {done.stderr.strip()}")
    return done


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "says"),
    [("size=2m", "no room for"), ("ro", "Read-only file system")],
    ids=["full", "read-only"],
)
def test_a_cache_that_takes_nothing_where_something_must_be_written(
    options: str, says: str, live: dict[str, Path], tmp_path: Path
) -> None:
    weights = tmp_path / "weights"
    for name, path in live.items():
        (weights / name).parent.mkdir(exist_ok=True)
        (weights / name).symlink_to(path if path.is_dir() else path.parent)
    folder = tmp_path / "cache"
    folder.mkdir()
    run = f"ECMF_CACHE={folder} ECMF_WEIGHTS_DIR={weights} {sys.executable} -m realtime.cli --demo --offline"
    done = in_a_small_disk(
        folder, options, f"{run} --mic off --duration 0.5 --bind 'tcp://127.0.0.1:*' --json"
    )
    assert done.returncode == 2, done.stderr
    assert says in last_line(done) and "ECMF_CACHE" in last_line(done)


@pytest.mark.slow
def test_a_warm_cache_that_became_read_only_is_enough(live: dict[str, Path]) -> None:
    from ecmf.engines.choose import cache_dir

    assert start().returncode == 0  # warms it
    folder = cache_dir()
    run = f"{sys.executable} -m realtime.cli --demo --offline --mic off --duration 0.5 --bind 'tcp://127.0.0.1:*'"
    if shutil.which("unshare") is None:
        pytest.skip("needs unshare to remount")
    script = f"mount --bind {folder} {folder} && mount -o remount,ro,bind {folder} || exit 77; {run} --json"
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script], capture_output=True, text=True, timeout=300, check=False
    )
    if done.returncode == 77:
        pytest.skip(f"cannot mount here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    assert '"type":"emotion"' in done.stdout and "Traceback" not in done.stderr
