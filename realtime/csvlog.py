"""One row an estimate, in flat columns, for a table program: annotate a file or log a session."""

from __future__ import annotations

import csv
import io
import os
import stat
from collections.abc import Sequence
from pathlib import Path

from ecmf.cue import MODALITIES
from ecmf.errors import EcmfError, UsageError
from ecmf.labels import EKMAN
from realtime.message import Estimate, Message

_PLAIN = (
    "wall",
    "run",
    "source",
    "seq",
    "person",
    "t_media_s",
    "t_capture_ns",
    "t_publish_ns",
    "clock",
    "trigger",
    "label",
    "confidence",
    "reason",
)
_STATE = ("present", "weight", "age_ms", "quality", "reason")


class CsvLog:
    """Appends whole rows: each is one write, so a kill between two of them leaves a table that can be read.

    A file that is already there is continued when it has the same columns (``run`` and ``source`` tell the runs
    apart); a row that a power cut left unfinished is removed first. Where the file is moved, removed or emptied
    meanwhile, as those who rotate logs do, the next row begins a table anew under the same path.
    """

    def __init__(self, path: Path, labels: Sequence[str]) -> None:
        """``labels``: those of the fusion head. Raises UsageError for a file that cannot be continued."""
        self._path = path
        self._labels = tuple(labels)
        self._file = self._open()

    def write(self, message: Message, topic: str, payload: bytes) -> None:
        if isinstance(message, Estimate):
            if self._rotated():
                before, self._file = self._file, self._open()
                os.close(before)
            self._append(self._file, _row(self._cells(message)))

    def close(self) -> None:
        os.close(self._file)

    def _open(self) -> int:
        try:
            file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise UsageError(f"--csv {self._path} cannot be written: {error.strerror}") from None
        try:
            self._continue(file, _row(self._columns()))
        except BaseException:
            os.close(file)
            raise
        return file

    def _rotated(self) -> bool:
        """Whether the path no longer leads to what was opened, or that has been emptied."""
        opened = os.fstat(self._file)
        try:
            found = self._path.stat()
        except OSError:
            return True
        return not os.path.samestat(opened, found) or (stat.S_ISREG(opened.st_mode) and opened.st_size == 0)

    def _columns(self) -> list[str]:
        probabilities = [f"{kind}.{label}" for kind in ("raw", "smoothed") for label in self._labels]
        states = [f"{name}.{key}" for name in MODALITIES for key in _STATE]
        opinions = [f"{name}.{label}" for name in MODALITIES if name != "scene" for label in EKMAN]
        box = ["bbox.x", "bbox.y", "bbox.width", "bbox.height"]
        return [*_PLAIN, *probabilities, *states, *opinions, *box, "latency_ms", "model"]

    def _cells(self, estimate: Estimate) -> list[object]:
        cells: list[object] = [getattr(estimate, name) for name in _PLAIN]
        for probabilities in (estimate.raw, estimate.smoothed):
            cells += [(probabilities or {}).get(label) for label in self._labels]
        for _, state in estimate.modalities.items():
            cells += [int(state.present), *(getattr(state, key) for key in _STATE[1:])]
        for name, state in estimate.modalities.items():
            if name != "scene":
                cells += [(state.probs or {}).get(label) for label in EKMAN]
        cells += estimate.bbox or [None] * 4
        return [*cells, (estimate.latency_ms or {}).get("total"), estimate.model]

    def _continue(self, file: int, columns: bytes) -> None:
        """Write the header into an empty file; check it, and cut off half a row, in one that is not."""
        size = os.fstat(file).st_size
        if size and not columns.startswith(os.pread(file, len(columns), 0)):
            raise UsageError(f"--csv {self._path} holds another table; name a new file or move that one away")
        end = _end_of_last_row(file, size)
        if end < size:
            os.ftruncate(file, end)
        if end == 0:
            self._append(file, columns)

    def _append(self, file: int, row: bytes) -> None:
        size = os.fstat(file).st_size
        try:
            written = os.write(file, row)
        except OSError as error:
            raise EcmfError(f"--csv {self._path} cannot be written any more: {error.strerror}") from None
        if written != len(row):
            os.ftruncate(file, size)
            raise EcmfError(f"--csv {self._path} cannot be written any more: the disk is full")


def _end_of_last_row(file: int, size: int) -> int:
    """Offset after the last newline; 0 when there is none."""
    step = 65536
    while size:
        start = max(0, size - step)
        found = os.pread(file, size - start, start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        size = start
    return 0


def _row(cells: Sequence[object]) -> bytes:
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(cells)
    return line.getvalue().encode()
