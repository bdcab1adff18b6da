"""A clip as the live branches see and hear it."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import pytest

from train.clip_cues import ClipReader


@pytest.mark.slow
def test_a_video_with_sound_gives_every_cue(
    demo_smile: Path, weight: Callable[[str], Path], tmp_path: Path
) -> None:
    av = pytest.importorskip("av")
    path = tmp_path / "talk.mkv"
    with (
        av.open(str(path), "w") as target,
        av.open(str(demo_smile)) as pictures,
        av.open(str(weight("demo-speech-short"))) as sound,
    ):
        video, audio = (
            target.add_stream("mpeg4", rate=30),
            target.add_stream("pcm_s16le", rate=16000, layout="mono"),
        )
        video.width, video.height = pictures.streams.video[0].width, pictures.streams.video[0].height
        video.pix_fmt = "yuv420p"
        resampler = av.AudioResampler(format="s16", layout="mono", rate=16000)
        for number, frame in enumerate(pictures.decode(video=0)):
            shown = av.VideoFrame.from_ndarray(frame.to_ndarray(format="bgr24"), format="bgr24")
            shown.pts, shown.time_base = number, Fraction(1, 30)
            target.mux(video.encode(shown))
        target.mux(video.encode(None))
        for frame in sound.decode(audio=0):
            for part in resampler.resample(frame):
                target.mux(audio.encode(part))
        target.mux(audio.encode(None))
    moments = ClipReader().read(path)
    kinds = set().union(*(moment.keys() for moment in moments))
    assert kinds == {"face", "scene", "voice", "text"}
    assert "face" not in moments[-1]  # the pictures end seven seconds before the sound
