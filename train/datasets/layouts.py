"""Any corpus as a listing of clips: what `python -m train.fit --data` and `train.features --data` accept.

a folder with labels.csv    path,label,speaker,split; video, sound, pictures or text files
RAVDESS, EMO-DB             the owner's folder of wav files, or a parquet file with name and flac; by speaker
MELD                        train_sent_emo.csv, dev_ and test_, or a parquet file; official split
FER2013                     fer2013.csv: its own labels; with fer2013new.csv beside it FER+'s; or a parquet file
muxspace                    data/legend.csv and images/, or a parquet file; by person
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecmf.errors import UsageError, need
from ecmf.labels import FERPLUS, to_ekman
from train.datasets import emodb, fer2013, ferplus, folder, meld, muxspace, ravdess
from train.datasets.folder import Folder, Item
from train.datasets.speech_clip import Clip


def kind_of(root: Path) -> str | None:
    """Which layout ``root`` is in: a key of READERS; None for none that is known."""
    if root.is_file():
        return next((name for name in READERS if root.name.lower().startswith(name)), None)
    signs: Mapping[str, Callable[[], bool]] = {
        "labels.csv": lambda: (root / folder.TABLE).is_file(),
        "meld": lambda: (root / "train_sent_emo.csv").is_file(),
        "fer": lambda: (root / "fer2013.csv").is_file(),
        "muxspace": lambda: (root / "data" / "legend.csv").is_file(),
        "ravdess": lambda: any(root.glob("Actor_*")) or any(root.glob("03-01-*.wav")),
        "emodb": lambda: any(emodb.is_name(f.stem) for f in (*root.glob("*.wav"), *root.glob("wav/*.wav"))),
    }
    return next((name for name, sign in signs.items() if root.is_dir() and sign()), None)


def read(
    root: Path, labels: Sequence[str] | None = None, *, training: bool = True, unlabelled: bool = False
) -> Folder:
    """The clips of ``root``. Raises DataError naming file and row, UsageError for a layout that is not known."""
    if not root.exists():
        raise UsageError(f"there is no {root}; --data names a folder of clips, or a corpus as it comes")
    kind = kind_of(root)
    if kind is None:
        raise UsageError(
            f"{root} holds no {folder.TABLE} and is in no other known layout; add one (path,label,speaker,split), "
            "or name what to train from the corpora there with --recipe"
        )
    if kind == "labels.csv":
        return folder.read(root, labels, training=training, unlabelled=unlabelled)
    items = READERS[kind](root)
    if labels is not None:
        _refuse_strangers(items, labels)
    return folder.listing(root, items, labels, training=training)


def _refuse_strangers(items: Sequence[Item], labels: Sequence[str]) -> None:
    found = {item.label for item in items}
    if not found & set(labels):
        raise UsageError(f"--labels {','.join(labels)}: the corpus has {', '.join(sorted(found))}")


def _speech(clips: Sequence[Clip]) -> list[Item]:
    """By speaker: of six in order of their names the third is for valid, the last for test; of the next six the one
    before, and so on: RAVDESS numbers men and women in turn, and both are to be measured.
    """
    speakers = sorted({clip.speaker for clip in clips})
    places = {name: (n + n // 6) % 6 for n, name in enumerate(speakers)}
    dealt = {name: {2: "valid", 5: "test"}.get(place, "train") for name, place in places.items()}
    return [
        Item(
            clip.sound if isinstance(clip.sound, Path) else Path(f"{clip.name}.flac"),
            clip.label,
            clip.speaker,
            dealt[clip.speaker],
            0,
            None if isinstance(clip.sound, Path) else clip.sound,
        )
        for clip in clips
    ]


def _meld(root: Path) -> list[Item]:
    """Lines one by one; who is in which split is the owner's choice, so a dialogue stands for a person."""
    split = {"train": "train", "dev": "valid", "test": "test"}
    return [
        Item(
            Path(f"{line.split}-{line.dialogue}-{line.number}.txt"),
            line.label,
            f"{line.split}-{line.dialogue}",
            split[line.split],
            0,
            line.text,
        )
        for line in meld.read_meld(root)
        if line.text.strip()
    ]


def _fer(root: Path) -> list[Item]:
    """Nobody knows who is who: each picture is a person, and twins of an earlier split are left out."""
    if root.is_dir() and not (root / "fer2013new.csv").is_file() and not (root / "ferplus.parquet").is_file():
        own = fer2013.read_pictures(root / "fer2013.csv")
        return [
            Item(Path(f"{row:05d}.png"), label, f"fer-{row}", split, row, _png(pixels))
            for row, label, split, pixels in own
        ]
    corpus = ferplus.read(root)
    return [
        Item(
            Path(corpus.name[row]).with_suffix(".png"),
            to_ekman(FERPLUS[corpus.majority[row]]),
            f"fer-{corpus.name[row]}",
            split,
            0,
            _png(corpus.pictures[row]),
        )
        for split in folder.SPLITS
        for row in corpus.rows(split).tolist()
    ]


def _muxspace(root: Path) -> list[Item]:
    corpus = muxspace.read(root)
    return [
        Item(
            Path(corpus.name[row]).with_suffix(".jpg"),
            to_ekman(FERPLUS[corpus.label[row]]),
            corpus.person[row] or f"unknown-{row}",
            str(corpus.split[row]),
            0,
            corpus.jpeg[row],
        )
        for row in range(len(corpus.name))
    ]


def _png(pixels: NDArray[np.uint8]) -> bytes:
    cv2: Any = need("cv2", "live")
    encoded: bytes = cv2.imencode(".png", pixels)[1].tobytes()
    return encoded


READERS: Mapping[str, Callable[[Path], list[Item]]] = {
    "ravdess": lambda root: _speech(ravdess.read_ravdess(root)),
    "emodb": lambda root: _speech(emodb.read_emodb(root)),
    "meld": _meld,
    "fer": _fer,
    "muxspace": _muxspace,
}
