"""The pictures that face packages are compared on: FER+ test, photographs, and frames of the demo video."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecmf.errors import need
from ecmf.labels import EKMAN, FERPLUS

ENLARGED, CANVAS = 192, (360, 640)
PHOTOGRAPH = 288
FRAMES_FROM_S = 9.0
"""The demo's face turns from distress to laughter here."""

Pictures = dict[str, NDArray[np.uint8]]
Truth = dict[str, NDArray[np.int64]]


def read(data: Path, faces: int | None, few: int, seed: int) -> tuple[Pictures, Truth]:
    """Pictures per task, and positions in EKMAN for those that have labels.

    FER+: one clear majority among the seven labels, no picture that is also in train or valid.
    """
    from ecmf.weights import fetch
    from realtime.sources.decode import pictures as decoded
    from train import corpora
    from train.datasets import ferplus, muxspace

    rng = np.random.default_rng(seed)
    fer = ferplus.read(corpora.find(data, "face", corpora.FERPLUS))
    mux = muxspace.read(corpora.find(data, "face", corpora.MUXSPACE))
    place = np.array([EKMAN.index(label) if label in EKMAN else -1 for label in FERPLUS])

    def draw(rows: NDArray[np.int64], most: int | None) -> NDArray[np.int64]:
        return rows if most is None or most >= len(rows) else np.sort(rng.choice(rows, most, replace=False))

    tight = fer.rows("test")
    tight = draw(tight[place[fer.majority[tight]] >= 0], faces)
    some = draw(tight, few)
    people = np.flatnonzero((mux.split == "test") & (place[mux.label] >= 0))
    people = draw(people, few)
    frames = []
    film = fetch("demo-face")
    for picture in decoded(str(film), film.name):
        if picture.media_s >= FRAMES_FROM_S:
            frames.append(picture.image())
        if len(frames) == few:
            break
    pictures = {
        "network": fer.pictures[tight],
        "found": np.stack([framed(picture, ENLARGED) for picture in fer.pictures[some]]),
        "photographs": np.stack([framed(mux.picture(int(row)), PHOTOGRAPH) for row in people]),
        "frame": np.stack(frames),
    }
    truth = {
        "network": place[fer.majority[tight]],
        "found": place[fer.majority[some]],
        "photographs": place[mux.label[people]],
    }
    return pictures, truth


def framed(picture: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """``picture``, scaled to ``side`` pixels, in the middle of uint8[360, 640] of its mean grey.

    A webcam's frame: faces that fill the whole picture are out of some finders' range.
    """
    cv2: Any = need("cv2", "live")
    canvas = np.full(CANVAS, round(float(picture.mean())), np.uint8)
    top, left = (CANVAS[0] - side) // 2, (CANVAS[1] - side) // 2
    canvas[top : top + side, left : left + side] = cv2.resize(
        picture, (side, side), interpolation=cv2.INTER_CUBIC
    )
    return canvas
