"""Extract features, without training: python -m train.features --data DIR

train.fit does this by itself; extract beforehand what is large, with several processes or machines. A clip that was
extracted is never extracted again, in whichever shard it is, so a stopped run goes on where it was.

  python -m train.features --data CLIPS                     everything here
  torchrun --nproc-per-node 2 -m train.features --data CLIPS     the same, by two processes
  python -m train.features --data CLIPS --shard 2/4         the second quarter: other machines take the other ones
  python -m train.features --data CLIPS --status            which shards are there, which are missing
  python -m train.features --data CLIPS --merge             check them against each other, and put them side by side
  python -m train.features --features MER2025               pack utterance features into memory-mapped arrays

Machines share the folder --cache, or copy theirs into one (rsync -a) before --merge. Then train with the same --cache.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

from ecmf.cue import MODALITIES
from ecmf.engines.cache import cache_dir
from ecmf.errors import UsageError
from train import clip_samples, clip_store, command, distributed, mer_features, shards, workers
from train.datasets import folder, layouts, mer2025
from train.fit_mer import RECIPE, read_recipe

log = logging.getLogger("train.features")


def clips(listed: folder.Folder, cache: Path, asked: argparse.Namespace) -> str:
    """Do what is asked with the clips of a data set; says what was done."""
    if asked.status:
        absent = shards.missing(listed, cache)
        done = len(shards.here(listed, cache))
        left = f"; missing: {', '.join(map(str, absent))}" if absent else "; --merge checks them"
        return f"{done} of {done + len(absent)} shards are in {shards.folder_of(listed, cache)}{left}"
    processes = asked.processes or workers.cores()
    if asked.shard is not None:
        shard = shards.Shard.parse(asked.shard)
        written = shards.extract(listed, cache, shard, processes)
        return f"shard {shard}: {len(shard.clips(listed))} clips; {written}"
    if asked.merge:
        samples = shards.merge(listed, cache)
    else:
        found = clip_store.extract(listed, cache, processes=processes)
        samples = clip_samples.assemble(listed, found, training=False, cache=cache)
    with_cue = {m: int((samples.batch.quality[:, i] > 0).sum()) for i, m in enumerate(MODALITIES)}
    counted = ", ".join(f"{m} {count}" for m, count in with_cue.items())
    return f"{len(listed.items)} clips, {len(samples.clip)} moments ({counted}) in {cache}"


def packed(root: Path, cache: Path, labels: Sequence[str] | None, config: Path | None) -> str:
    """Pack the features of MER2025's layout; says what was done."""
    corpus = mer2025.read(root, labels)
    recipe = read_recipe(config or RECIPE)
    found = mer_features.load(corpus, [*corpus.names, *corpus.candidates], recipe.features, cache)
    parts = [f"{f.name} ({MODALITIES[f.kind]}, {f.values.shape[1]} numbers)" for f in found]
    return f"{len(corpus.names)} clips and {len(corpus.candidates)} candidates: {', '.join(parts)} in {cache}"


def parser() -> argparse.ArgumentParser:
    made = command.parser("features", __doc__)
    what = made.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--data",
        type=Path,
        metavar="DIR",
        help="a folder with labels.csv, or RAVDESS, EMO-DB, MELD, FER2013, FER+, muxspace as they come",
    )
    command.add(what, "--features")
    how = made.add_mutually_exclusive_group()
    how.add_argument("--shard", metavar="I/N", help="only this part of the clips; N machines take one each")
    how.add_argument("--merge", action="store_true", help="check that all shards are there and fit together")
    how.add_argument("--status", action="store_true", help="say which shards are there")
    workers.add_processes(made)
    command.add(made, "--labels", "--config", "--cache")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    asked = parser().parse_args(arguments)

    def work() -> str:
        cache = asked.cache or cache_dir() / "features"
        command.writable("--cache", cache)
        labels = None if asked.labels is None else folder.label_set(asked.labels)
        with distributed.joined():
            if asked.features is None:
                if asked.config is not None:
                    raise UsageError("--config goes with --features; clips are read as live, by no recipe")
                listed = layouts.read(asked.data, labels, training=False, unlabelled=True)
                log.info("%s", listed.told())
                return clips(listed, cache, asked)
            if asked.shard or asked.merge or asked.status:
                raise UsageError("--shard, --merge and --status go with --data; --features only packs")
            if asked.processes is not None:
                raise UsageError(
                    "--processes goes with --data; --features only packs, which one process does"
                )
            return packed(asked.features, cache, labels, asked.config)

    return command.carried_out(work)


if __name__ == "__main__":
    raise SystemExit(main())
