"""Cues of clips on disk: one small file a clip, by the clip's content, so that nothing is extracted twice."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from ecmf.cue import MODALITIES, Cue, Modality
from ecmf.errors import DataError
from train import clip_cues, distributed, workers
from train.atomic import whole, write_whole
from train.datasets.folder import Folder, Item
from train.progress import Advance, shown

VERSION = 2
"""Raise it when the files change."""
PIECE = 16
"""Clips that one of several processes takes at a time."""


class Extracted(Sequence[list[clip_cues.Moment]]):
    """Moments of every clip of a listing, each read from its file when it is asked for."""

    def __init__(self, files: Sequence[Path]) -> None:
        self.files = tuple(files)

    def __len__(self) -> int:
        return len(self.files)

    @overload
    def __getitem__(self, number: int) -> list[clip_cues.Moment]: ...
    @overload
    def __getitem__(self, number: slice) -> Extracted: ...
    def __getitem__(self, number: int | slice) -> list[clip_cues.Moment] | Extracted:
        if isinstance(number, slice):
            return Extracted(self.files[number])
        return load(self.files[number])


def digests(listed: Folder, cache: Path) -> list[str]:
    """Hex digest of each clip's content and of the branches; files unchanged since the last time are not read again."""
    identity = repr((VERSION, clip_cues.identity())).encode()
    table = hashlib.sha256(str(listed.table.resolve()).encode()).hexdigest()[:16]
    memory = cache / "clips" / f"known-{table}.json"
    known: dict[str, list[Any]] = {}
    with suppress(FileNotFoundError, ValueError):
        known = json.loads(memory.read_text("utf-8"))
    found, now = [], {}
    for item in listed.items:
        if item.content is None:
            stat = item.path.stat()
            mark = [stat.st_size, stat.st_mtime_ns]
            before = known.get(str(item.path), [None, None, ""])
            with item.path.open("rb") as file:
                content = before[2] if before[:2] == mark else hashlib.file_digest(file, "sha256").hexdigest()
            now[str(item.path)] = [*mark, content]
        else:
            data = item.content.encode() if isinstance(item.content, str) else item.content
            content = hashlib.sha256(data).hexdigest()
        found.append(
            hashlib.sha256(identity + item.path.suffix.lower().encode() + content.encode()).hexdigest()[:24]
        )
    if now != known and not distributed.rank():
        write_whole(memory, json.dumps(now).encode())
    return found


def place(cache: Path, digest: str) -> Path:
    """The file of a clip's cues."""
    return cache / "clips" / f"{digest}.npz"


def extract(
    listed: Folder,
    cache: Path,
    numbers: Sequence[int] | None = None,
    *,
    processes: int = 1,
    offline: bool = False,
) -> Extracted:
    """Cues of every clip, or of those ``numbers``, from the cache where its content and the branches are the same.

    Under torchrun every process extracts its share, else up to ``processes`` do. Raises DataError naming file and row:
    a clip that cannot be decoded, features that are not finite.
    """
    chosen = range(len(listed.items)) if numbers is None else numbers
    files = [place(cache, digest) for digest in digests(listed, cache)]
    missing = [number for number in chosen if not files[number].is_file()]
    if processes > 1 and distributed.size() == 1 and len(missing) > PIECE:
        few = range(-(-len(missing) // PIECE))
        pieces = [partial(extract_some, listed, files, missing[n :: len(few)]) for n in few]
        workers.ahead(pieces, processes, len(missing), "clips")
        missing = [number for number in missing if not files[number].is_file()]
    with distributed.together():
        mine = distributed.every(missing)
        with shown("clips", len(mine)) as advance:
            extract_some(listed, files, mine, advance, clip_cues.ClipReader(offline=offline))
    return Extracted([files[number] for number in chosen])


def extract_some(
    listed: Folder,
    files: Sequence[Path],
    numbers: Sequence[int],
    advance: Advance,
    reader: clip_cues.ClipReader | None = None,
) -> None:
    """Extract the clips ``numbers`` to their ``files``; tells how many are done."""
    reader = reader or _reader()
    for done, number in enumerate(numbers, start=1):
        item = listed.items[number]
        try:
            moments = reader.read(item.path, item.content)
        except DataError as error:
            raise DataError(f"{listed.where(item)}: unreadable clip: {error}") from None
        check(listed, item, moments)
        store(files[number], moments)
        advance(done, "")


@lru_cache(maxsize=1)
def _reader() -> clip_cues.ClipReader:
    """Of a process that extracts one part after another: the branches' networks are loaded once."""
    return clip_cues.ClipReader()


def check(listed: Folder, item: Item, moments: Sequence[clip_cues.Moment]) -> None:
    """Raises DataError naming file and row for features that are not finite."""
    for moment in moments:
        for modality, cue in moment.items():
            opinion_ok = cue.probs is None or np.isfinite(cue.probs).all()
            if not (np.isfinite(cue.embedding).all() and opinion_ok):
                raise DataError(f"{listed.where(item)}: {modality} features are not finite (NaN or infinite)")


def store(file: Path, moments: Sequence[clip_cues.Moment]) -> None:
    """Write a clip's cues whole or not at all: per modality the moments that have it, side by side."""
    arrays: dict[str, NDArray[Any]] = {"count": np.array(len(moments))}
    for modality in MODALITIES:
        at = [number for number, moment in enumerate(moments) if modality in moment]
        if not at:
            continue
        cues = [moments[number][modality] for number in at]
        arrays[f"{modality}.at"] = np.array(at)
        arrays[f"{modality}.embedding"] = np.stack([cue.embedding for cue in cues])
        arrays[f"{modality}.quality"] = np.array([cue.quality for cue in cues])
        if all(cue.probs is not None for cue in cues):
            arrays[f"{modality}.probs"] = np.stack([cue.probs for cue in cues if cue.probs is not None])
    with whole(file) as target:
        np.savez(target, **arrays)  # type: ignore[arg-type]


def load(file: Path) -> list[clip_cues.Moment]:
    """What ``store`` wrote, without capture times and boxes, which training does not need.

    Raises DataError for a file that is damaged.
    """
    try:
        with np.load(file) as stored:
            arrays = {name: stored[name] for name in stored.files}
            moments: list[dict[Modality, Cue]] = [{} for _ in range(int(arrays["count"]))]
    except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{file} holds no cues ({error}); delete it, and it is made anew") from None
    for modality in MODALITIES:
        for row, number in enumerate(arrays.get(f"{modality}.at", ())):
            probs = arrays.get(f"{modality}.probs")
            moments[int(number)][modality] = Cue(
                modality,
                None,
                arrays[f"{modality}.embedding"][row],
                None if probs is None else probs[row],
                0,
                0,
                float(arrays[f"{modality}.quality"][row]),
            )
    return list(moments)
