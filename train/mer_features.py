"""Utterance features in MER2025's layout: several a modality, a file a clip, packed into a memory-mapped array each."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ecmf.cue import MODALITIES
from ecmf.errors import DataError, UsageError
from train import distributed
from train.atomic import locked, mapped, whole
from train.datasets import mer2025
from train.progress import tracked

VERSION = 2
"""Raise it when the packed files change."""
_TELLTALE = {
    "voice": (
        "hubert",
        "wav2vec",
        "wavlm",
        "whisper",
        "data2vec-audio",
        "emotion2vec",
        "vggish",
        "egemaps",
        "is09",
    ),
    "text": (
        "bert",
        "llama",
        "gpt",
        "baichuan",
        "bloom",
        "qwen",
        "glm",
        "xlnet",
        "sentence",
        "falcon",
        "moss",
        "lert",
    ),
    "face": (
        "face",
        "senet",
        "manet",
        "emonet",
        "msceleb",
        "fer",
        "clip",
        "dino",
        "eva",
        "videomae",
        "resnet",
        "vit",
    ),
}
"""Parts of feature names that tell the modality, looked for in this order (hubert before bert). MER2025's visual
features are made from cropped faces; a feature of the whole frame is named in the recipe."""


@dataclass(frozen=True)
class Feature:
    """One feature of all clips, memory-mapped."""

    name: str
    kind: int
    """Modality: number in MODALITIES."""
    file: Path
    """Of ``values``; its name tells the content."""
    values: NDArray[np.float32]
    """float32[n, d]; zeros where absent."""
    present: NDArray[np.bool_]

    @classmethod
    def open(cls, name: str, kind: int, file: Path) -> Feature:
        """What ``pack`` has made. The system is asked to read the file ahead: rows are wanted in no order."""
        if hasattr(os, "posix_fadvise"):
            with file.open("rb") as opened:
                os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_WILLNEED)
        return cls(name, kind, file, np.load(file, mmap_mode="r"), np.load(file.with_suffix(".present.npy")))

    def __reduce__(self) -> tuple[object, ...]:
        """Another process maps the same file, and the memory is shared."""
        return Feature.open, (self.name, self.kind, self.file)


def kind_of(name: str, stated: Mapping[str, str]) -> int:
    """Number of the modality of a feature. Raises UsageError where neither ``stated`` nor the name tells."""
    if name in stated:
        return [*MODALITIES].index(stated[name])  # type: ignore[arg-type]
    for modality, parts in _TELLTALE.items():
        if any(part in name.lower() for part in parts):
            return [*MODALITIES].index(modality)  # type: ignore[arg-type]
    raise UsageError(f'which modality is feature {name}? Say it in the recipe: [features] "{name}" = "face"')


def pack(name: str, folder: Path, kind: int, names: Sequence[str], cache: Path) -> Feature:
    """One file of all clips' vectors, made once and then memory-mapped.

    A clip without a file is absent. Raises DataError for vectors that are not finite or of another size than the rest.
    """
    digest = hashlib.sha256(repr((VERSION, str(folder.resolve()), list(names))).encode())
    there = {}
    with os.scandir(folder) as entries:
        for entry in entries:
            stat = entry.stat()
            there[entry.name] = (stat.st_size, stat.st_mtime_ns)
    digest.update(repr(sorted(there.items())).encode())
    path = cache / f"{name}-{digest.hexdigest()[:16]}.npy"
    with locked(cache):
        if not path.is_file():
            _pack(name, folder, [clip if f"{clip}.npy" in there else None for clip in names], path)
    return Feature.open(name, kind, path)


def _pack(name: str, folder: Path, clips: Sequence[str | None], path: Path) -> None:
    present = np.zeros(len(clips), bool)
    packed: np.memmap[Any, Any] | None = None
    temporary = path.with_name(f".{name}.part")
    try:
        for row, clip in enumerate(tracked(clips, name)):
            if clip is None:
                continue
            vector = read(folder / f"{clip}.npy")
            if packed is None:
                packed = mapped(temporary, np.float32, (len(clips), len(vector)))
            if len(vector) != packed.shape[1]:
                raise DataError(
                    f"{folder / clip}.npy has {len(vector)} numbers, the files before it have {packed.shape[1]}"
                )
            packed[row], present[row] = vector, True
        if packed is None:
            raise DataError(f"{folder} holds no <clip>.npy of the listed clips")
        packed.flush()
        with whole(path.with_suffix(".present.npy")) as file:
            np.save(file, present)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def read(file: Path) -> NDArray[np.float32]:
    """float32[d] of a clip: the mean over time where the file has several rows.

    Raises DataError naming the file for what is no array, and for numbers that are not finite.
    """
    try:
        stored = np.asarray(np.load(file), np.float32)
    except (ValueError, EOFError, OSError) as error:
        raise DataError(f"{file} cannot be read: {error}") from None
    vector = stored.reshape(-1, stored.shape[-1]).mean(axis=0) if stored.ndim else stored.reshape(1)
    if not len(vector) or not np.isfinite(vector).all():
        raise DataError(f"{file} (clip {file.stem}) is not finite: NaN or infinite features")
    return vector


def load(
    corpus: mer2025.Mer2025, names: Sequence[str], stated: Mapping[str, str], cache: Path
) -> list[Feature]:
    """All features of ``names`` that ``stated`` does not leave out; under torchrun each process packs some.

    Raises DataError, UsageError as ``pack`` and ``kind_of`` do.
    """
    chosen = [(name, folder) for name, folder in corpus.features.items() if stated.get(name, "?") != ""]
    if not chosen:
        raise UsageError("the recipe leaves every feature out; keep at least one")
    kinds = {name: kind_of(name, stated) for name, _ in chosen}
    if distributed.size() > 1:
        with distributed.together():
            for name, folder in distributed.every(chosen):
                pack(name, folder, kinds[name], names, cache / "mer2025")
    return [pack(name, folder, kinds[name], names, cache / "mer2025") for name, folder in chosen]


def rows_of(features: Sequence[Feature], rows: NDArray[np.int64]) -> dict[str, Tensor]:
    """A head's inputs for some clips, read from the maps; ascending rows read the disk forwards."""
    values = np.empty((len(rows), sum(feature.values.shape[1] for feature in features)), np.float32)
    start = 0
    for feature in features:
        end = start + feature.values.shape[1]
        values[:, start:end] = feature.values[rows]
        start = end
    present = np.stack([feature.present[rows] for feature in features], axis=1).astype(np.float32)
    return {"features": torch.from_numpy(values), "quality": torch.from_numpy(present)}
