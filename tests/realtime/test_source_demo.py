from __future__ import annotations

import itertools
import threading
from pathlib import Path

import numpy as np

from realtime.clock import FakeClock
from realtime.sources.base import AudioBlock, Frame
from realtime.sources.demo import open_demo
from realtime.sources.playback import LEAD_NS


def test_the_demo_is_a_face_with_a_voice_and_ends_with_the_face(demo_face: Path, demo_speech: Path) -> None:
    media = open_demo(pace=None, loop=False, offline=True)
    samples = list(media.samples(threading.Event()))
    frames = [sample for sample in samples if isinstance(sample, Frame)]
    blocks = [sample for sample in samples if isinstance(sample, AudioBlock)]
    assert len(frames) == 472 and frames[0].image.shape == (360, 640, 3)
    assert 19.6 < frames[-1].end_ns / 1e9 < 19.7
    assert 19.6 < blocks[-1].end_ns / 1e9 < 19.7
    # The video's own sound is silence; the reading is heard instead.
    assert np.sqrt(np.mean(np.concatenate([block.samples for block in blocks]) ** 2)) > 0.01


def test_the_demo_loops_on_one_clock(demo_face: Path, demo_speech: Path) -> None:
    clock, stop = FakeClock(10**12), threading.Event()
    media = open_demo(pace=clock, offline=True)
    assert media.video and media.audio
    blocks = itertools.islice(media.audio.blocks(stop), 1500)  # 48 s; the reading has 44.4
    *_, before, last = blocks
    assert before.end_ns == last.start_ns == 10**12 + LEAD_NS + 1499 * 32_000_000
    assert last.media_s is not None and 3 < last.media_s < 4
    assert clock.monotonic_ns() == last.end_ns
    first = next(media.video.frames(stop))
    assert first.start_ns == 10**12 + LEAD_NS


def test_the_demo_can_be_mute_or_blind(demo_face: Path, demo_speech: Path) -> None:
    assert open_demo(pace=None, audio=False, offline=True).audio is None
    assert open_demo(pace=None, video=False, offline=True).video is None
