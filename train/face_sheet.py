"""A contact sheet: frames of a video with what the live face branch says of them, to judge a network by eye."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecmf.branches.face import FaceBranch
from ecmf.cue import Cue
from ecmf.errors import SourceError, need
from ecmf.labels import EKMAN


@dataclass(frozen=True)
class Reading:
    """The largest face of one frame."""

    t_s: float
    """Media time."""
    frame: NDArray[np.uint8]
    """uint8[H, W, 3] BGR."""
    cue: Cue | None
    """None where no face was seen."""

    @property
    def label(self) -> str | None:
        if self.cue is None or self.cue.probs is None:
            return None
        return EKMAN[int(self.cue.probs.argmax())]


def read(video: Path, branch: FaceBranch) -> Iterator[Reading]:
    """Every frame of ``video`` in order. Raises SourceError when it cannot be decoded."""
    cv2: Any = need("cv2", "live")
    capture = cv2.VideoCapture(str(video))
    rate = capture.get(cv2.CAP_PROP_FPS)
    if not capture.isOpened() or not rate > 0:
        raise SourceError(f"{video} cannot be decoded as a video; check the file")
    number = 0
    while True:
        good, frame = capture.read()
        if not good:
            break
        start = round(number / rate * 1e9)
        cues = branch.process(frame, start, start + round(1e9 / rate))
        yield Reading(number / rate, frame, cues[0] if cues else None)
        number += 1
    capture.release()


def shares(readings: list[Reading], begin_s: float, end_s: float) -> dict[str | None, float]:
    """Share of the frames in [begin_s, end_s) that carry each label, the commonest first."""
    labels = [r.label for r in readings if begin_s <= r.t_s < end_s]
    if not labels:
        return {}
    return dict(sorted(((k, labels.count(k) / len(labels)) for k in set(labels)), key=lambda item: -item[1]))


def draw(readings: list[Reading], out: Path, *, every_s: float, columns: int = 8) -> None:
    """Write a PNG with one picture every ``every_s`` seconds: face box, time, label, the three likeliest."""
    cv2: Any = need("cv2", "live")
    tiles, following = [], 0.0
    for reading in readings:
        if reading.t_s + 1e-6 < following:
            continue
        following += every_s
        tiles.append(_tile(cv2, reading))
    if not tiles:
        raise SourceError("no frame to draw; check the video")
    blank = np.full_like(tiles[0], 32)
    tiles += [blank] * (-len(tiles) % columns)
    rows = [np.concatenate(tiles[i : i + columns], axis=1) for i in range(0, len(tiles), columns)]
    out.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(out), np.concatenate(rows)):
        raise SourceError(f"{out} cannot be written; check the folder and the ending .png")


def _tile(cv2: Any, reading: Reading, side: int = 180, text: int = 62) -> NDArray[np.uint8]:
    frame = reading.frame.copy()
    height, width = frame.shape[:2]
    x, y, size = width / 2, height / 2, min(height, width)
    if reading.cue is not None and reading.cue.bbox is not None:
        left, top, w, h = reading.cue.bbox
        x, y, size = left + w / 2, top + h / 2, int(1.6 * max(w, h))
    low = np.clip([x - size / 2, y - size / 2], 0, None).astype(int)
    part = frame[low[1] : low[1] + int(size), low[0] : low[0] + int(size)]
    tile = np.full((side + text, side, 3), 24, np.uint8)
    scale = side / max(part.shape[:2])
    shape = (max(1, int(part.shape[1] * scale)), max(1, int(part.shape[0] * scale)))
    tile[: shape[1], : shape[0]] = cv2.resize(part, shape, interpolation=cv2.INTER_AREA)
    lines = [f"{reading.t_s:.2f} s  " + (reading.label or "no face")]
    if reading.cue is not None and reading.cue.probs is not None:
        best = np.argsort(-reading.cue.probs)[:3]
        lines.append(" ".join(f"{EKMAN[k][:4]} {reading.cue.probs[k]:.2f}" for k in best))
        lines.append(f"quality {reading.cue.quality:.2f}")
    for row, line in enumerate(lines):
        cv2.putText(
            tile,
            line,
            (4, side + 16 + 18 * row),
            cv2.FONT_HERSHEY_SIMPLEX,
            0.42,
            (235, 235, 235),
            1,
            cv2.LINE_AA,
        )
    return tile
