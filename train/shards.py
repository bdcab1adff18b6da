"""Extraction shared out over processes and machines: each takes a shard and says in a manifest what it did.

CACHE/clips/<hash>.npz               cues of a clip, by its content (see train.clip_store)
CACHE/shards/<hash>/2-of-4.json      what shard 2 of 4 of a data set holds: a row, a name and a hash for every clip

The machines share CACHE, or their CACHE folders are copied into one afterwards; then `merge` checks that every clip is
in exactly one shard and that its cues are there.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ecmf.errors import DataError, UsageError
from train import clip_cues, clip_samples, clip_store
from train.atomic import write_whole
from train.datasets.folder import Folder

FORMAT = 1
_NAME = re.compile(r"(\d+)-of-(\d+)\.json")


@dataclass(frozen=True)
class Shard:
    number: int
    """From 1 to ``of``."""
    of: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """From "2/4". Raises UsageError."""
        match = re.fullmatch(r"(\d+)/(\d+)", text)
        if match is None or not 1 <= int(match[1]) <= int(match[2]):
            raise UsageError(f"--shard {text}: expected i/n with i from 1 to n, for example 2/4")
        return cls(int(match[1]), int(match[2]))

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    def clips(self, listed: Folder) -> list[int]:
        """Numbers of its clips: every n-th, since neighbours are alike in length."""
        return list(range(self.number - 1, len(listed.items), self.of))


def folder_of(listed: Folder, cache: Path) -> Path:
    """Where the manifests of a data set's shards lie: by the names and rows of its clips, not by where they lie."""
    names = [(item.row, item.path.name, item.speaker) for item in listed.items]
    return cache / "shards" / hashlib.sha256(repr(names).encode()).hexdigest()[:16]


def extract(listed: Folder, cache: Path, shard: Shard, processes: int = 1) -> Path:
    """Extract the shard's clips and write its manifest, last. Raises DataError as ``clip_store.extract`` does."""
    chosen = shard.clips(listed)
    files = clip_store.extract(listed, cache, chosen, processes=processes).files
    record = {
        "format": FORMAT,
        "shard": shard.number,
        "of": shard.of,
        "branches": list(clip_cues.identity()),
        "clips": [
            [listed.items[number].row, listed.items[number].path.name, file.stem, number]
            for number, file in zip(chosen, files, strict=True)
        ],
    }
    path = folder_of(listed, cache) / f"{shard.number}-of-{shard.of}.json"
    write_whole(path, (json.dumps(record) + "\n").encode())
    return path


def here(listed: Folder, cache: Path) -> dict[Shard, Mapping[str, Any]]:
    """The manifests that are there. Raises DataError for one that cannot be read or names another shard."""
    found: dict[Shard, Mapping[str, Any]] = {}
    for path in sorted(folder_of(listed, cache).glob("*.json")):
        match = _NAME.fullmatch(path.name)
        try:
            record = json.loads(path.read_text("utf-8"))
            shard = Shard(int(record["shard"]), int(record["of"]))
            sound = record["format"] == FORMAT and all(len(clip) == 4 for clip in record["clips"])
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{path} is no shard's manifest ({error}); delete it and extract that shard again"
            ) from None
        if not sound or match is None or Shard(int(match[1]), int(match[2])) != shard:
            raise DataError(f"{path} says it is shard {shard}; delete it and extract that shard again")
        found[shard] = record
    return found


def missing(listed: Folder, cache: Path) -> list[Shard]:
    """Shards that are not there, of as many as those that are there say. Raises DataError where they disagree."""
    found = here(listed, cache)
    if not found:
        raise DataError(f"{listed.table}: no shard is in {folder_of(listed, cache)}; give --shard 1/n first")
    counts = sorted({shard.of for shard in found})
    if len(counts) > 1:
        one, other = (next(s for s in found if s.of == count) for count in counts[:2])
        raise DataError(
            f"{folder_of(listed, cache)}: shards {one} and {other} are of different divisions; delete the manifests "
            "of one of them"
        )
    return [s for n in range(counts[0]) if (s := Shard(n + 1, counts[0])) not in found]


def merge(listed: Folder, cache: Path) -> clip_samples.Samples:
    """Check all shards against each other and put their moments side by side in memory-mapped arrays.

    Raises DataError naming the missing shards, a clip in two or in none of them, branches that differ, and cues that
    are not in the cache.
    """
    absent = missing(listed, cache)
    if absent:
        raise DataError(
            f"{listed.table}: shard {', '.join(map(str, absent))} missing in {folder_of(listed, cache)}; extract it "
            "with --shard, or copy it here"
        )
    branches = list(clip_cues.identity())
    owner: dict[int, Shard] = {}
    for shard, record in here(listed, cache).items():
        if record["branches"] != branches:
            raise DataError(f"shard {shard} was made by other branches than are here now; extract it again")
        for row, name, digest, number in record["clips"]:
            where = f"{listed.table}, row {row} ({name})"
            if number in owner:
                raise DataError(f"{where} is in two shards, {owner[number]} and {shard}; extract one again")
            if not 0 <= number < len(listed.items) or listed.items[number].path.name != name:
                raise DataError(
                    f"{where} of shard {shard} is not in the data; was the table changed meanwhile?"
                )
            if not clip_store.place(cache, digest).is_file():
                raise DataError(
                    f"{where}: its cues, {digest}.npz, are not in {cache / 'clips'}; copy them from the machine that "
                    f"made shard {shard}"
                )
            owner[number] = shard
    if len(owner) < len(listed.items):
        item = next(item for number, item in enumerate(listed.items) if number not in owner)
        raise DataError(f"{listed.where(item)} is in no shard; extract the shards again")
    clips = clip_store.extract(listed, cache)  # a clip that was changed since is extracted again
    return clip_samples.assemble(listed, clips, training=False, cache=cache)
