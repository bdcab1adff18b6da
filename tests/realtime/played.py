"""What comes out of a recording: its pictures and sound, and when the flashes and clicks of a clip are in them."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterable

import numpy as np

from realtime.sources.base import SAMPLE_RATE, AudioBlock, Frame
from realtime.sources.file import Media


def read(media: Media, seconds: float = 1e9) -> tuple[list[Frame], list[AudioBlock]]:
    """The pictures and the sound of its first ``seconds``."""
    samples = list(itertools.takewhile(lambda s: s.end_ns <= seconds * 1e9, media.samples(threading.Event())))
    return (
        [sample for sample in samples if isinstance(sample, Frame)],
        [sample for sample in samples if isinstance(sample, AudioBlock)],
    )


def flashes(frames: Iterable[Frame]) -> list[float]:
    """When a frame is bright, seconds."""
    return [frame.start_ns / 1e9 for frame in frames if frame.image.mean() > 128]


def clicks(blocks: Iterable[AudioBlock]) -> list[float]:
    """When a click begins, seconds."""
    blocks = list(blocks)
    sound = np.concatenate([block.samples for block in blocks])
    loud = np.flatnonzero(np.abs(sound) > 0.1)
    return [
        blocks[0].start_ns / 1e9 + begin / SAMPLE_RATE for begin in loud[np.diff(loud, prepend=-999) > 160]
    ]
