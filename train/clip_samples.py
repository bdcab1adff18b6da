"""All moments of a data set side by side in memory-mapped arrays, so that memory does not grow with it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecmf.cue import MODALITIES, Modality
from ecmf.errors import DataError
from ecmf.head import FLOOR
from ecmf.labels import EKMAN, opinion, opinions
from train import clip_cues, distributed
from train.atomic import locked, mapped
from train.clip_store import VERSION, Extracted, check
from train.datasets.folder import Folder
from train.pairing import TRUST, Batch
from train.progress import tracked


@dataclass(frozen=True)
class Samples:
    """Moments of clips, as the head reads them."""

    batch: Batch
    clip: NDArray[np.int64]
    """int64[n]: number of the clip each moment is of."""
    split: NDArray[np.str_]
    modalities: frozenset[Modality]
    """Those that at least one moment to train on has."""
    key: str = ""
    """Of the arrays' content; empty: not known."""
    speaker: NDArray[np.str_] = field(default_factory=lambda: np.zeros(0, np.str_))
    """Who is in each moment; empty: not known."""

    def rows(self, chosen: NDArray[np.bool_] | NDArray[np.integer]) -> Batch:
        return take(self.batch, chosen)


def take(batch: Batch, rows: NDArray[Any]) -> Batch:
    """Some rows of a batch, read into memory."""
    cues = {m: np.asarray(cue[rows]) for m, cue in batch.cues.items()}
    return Batch(cues, np.asarray(batch.log_probs[rows]), batch.quality[rows], batch.target[rows])


def assemble(
    listed: Folder,
    clips: Sequence[Sequence[clip_cues.Moment]],
    *,
    training: bool = True,
    cache: Path | None = None,
) -> Samples:
    """Put the moments that can give an estimate side by side: those with a face, a voice or words.

    With ``cache`` the arrays are files there, made once and memory-mapped. Raises DataError when there is no such
    moment, for features that are not finite, and for ``training`` when all clips to train on of some label lack one.
    """
    if cache is not None and isinstance(clips, Extracted):
        names = [file.name for file in clips.files]
        key = hashlib.sha256(repr((VERSION, names, listed.labels)).encode()).hexdigest()[:24]
        folder = cache / "moments" / key
        with distributed.together(), locked(cache / "moments"):
            if not (folder / "clip.npy").is_file():
                _pack(listed, clips, folder)
        arrays = {f.stem: np.load(f, mmap_mode="r") for f in folder.glob("[!.]*.npy")}
    else:
        key, arrays = "", _side_by_side(listed, clips, lambda name, shape, kind: np.zeros(shape, kind))
    clip = np.array(arrays["clip"])
    _check_labels(listed, clip, training=training)
    target = np.array(
        [listed.labels.index(listed.items[n].label) if listed.items[n].label else -1 for n in clip], np.int64
    )
    split = np.array([listed.items[n].split for n in clip])
    quality = np.array(arrays["quality"])
    trained = quality[split == "train"] if training else quality
    modalities = frozenset(m for index, m in enumerate(MODALITIES) if trained[:, index].any())
    batch = Batch({m: arrays[m] for m in MODALITIES}, arrays["log_probs"], quality, target)
    speaker = np.array([listed.items[n].speaker for n in clip])
    return Samples(batch, clip, split, modalities, key, speaker)


def _pack(listed: Folder, clips: Sequence[Sequence[clip_cues.Moment]], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)

    def make(name: str, shape: tuple[int, ...], kind: Any) -> NDArray[Any]:
        return mapped(folder / f"{name}.npy", kind, shape)

    arrays = _side_by_side(listed, clips, make)
    for array in arrays.values():
        if isinstance(array, np.memmap):
            array.flush()
    write = folder / ".clip.npy"
    np.save(write, arrays["clip"])
    write.replace(folder / "clip.npy")  # last: it says that the others are whole


def _side_by_side(listed: Folder, clips: Sequence[Sequence[clip_cues.Moment]], make: Any) -> dict[str, Any]:
    size: dict[str, int] = {}
    clip: list[int] = []
    for number, moments in enumerate(tracked(clips, "moments")):
        usable = [moment for moment in moments if moment.keys() & set(TRUST)]
        check(listed, listed.items[number], usable)
        clip += [number] * len(usable)
        for moment in usable:
            for modality, cue in moment.items():
                size.setdefault(modality, len(cue.embedding))
    count = len(clip)
    if not count:
        raise DataError(f"{listed.table}: in no clip a face, a voice or words were found")
    arrays: dict[str, Any] = {m: make(m, (count, size.get(m, 1)), np.float32) for m in MODALITIES}
    arrays["log_probs"] = make("log_probs", (count, len(MODALITIES), len(listed.labels)), np.float32)
    arrays["quality"] = make("quality", (count, len(MODALITIES)), np.float32)
    matrix = np.eye(len(EKMAN), dtype=np.float32) if listed.labels == EKMAN else opinions(listed.labels)
    row = 0
    for number in dict.fromkeys(clip):
        for moment in clips[number]:
            if not moment.keys() & set(TRUST):
                continue
            for modality, cue in moment.items():
                index = MODALITIES.index(modality)
                arrays[modality][row] = cue.embedding
                arrays["quality"][row, index] = cue.quality
                said = None if cue.probs is None else opinion(cue.probs, matrix, FLOOR)
                if said is not None:
                    arrays["log_probs"][row, index] = said
            row += 1
    arrays["clip"] = np.array(clip, np.int64)
    return arrays


def _check_labels(listed: Folder, clip: NDArray[np.int64], *, training: bool) -> None:
    usable = {int(number) for number in np.unique(clip) if listed.items[number].split == "train"}
    for label in listed.labels if training else ():
        if not any(listed.items[number].label == label for number in usable):
            example = next(i for i in listed.items if i.label == label and i.split == "train")
            raise DataError(
                f"{listed.where(example)}: in no clip labelled {label!r} in train a face, a voice or words were found"
            )
