"""The demo: a real face and a real voice, played together like a camera and a microphone."""

from __future__ import annotations

from ecmf import weights
from realtime.clock import Clock
from realtime.sources.file import Media, open_media
from realtime.sources.playback import Playback

FACE = "demo-face"
SPEECH = "demo-speech"


def open_demo(
    *,
    video: bool = True,
    audio: bool = True,
    loop: bool = True,
    pace: Clock | None,
    offline: bool = False,
) -> Media:
    """The face video with the reading as its sound, on one clock; both are fetched on first use.

    With ``loop`` each repeats by itself (their lengths differ, so they meet in ever new places); without,
    both end with the video. Raises WeightError when they cannot be fetched.
    """
    playback = Playback(pace)
    face = open_media(
        weights.fetch(FACE, offline=offline), audio=False, loop=loop, pace=pace, playback=playback
    )
    end_s = None if loop else face.duration_s
    voice = None
    if audio:
        voice = open_media(
            weights.fetch(SPEECH, offline=offline),
            video=False,
            loop=loop,
            pace=pace,
            playback=playback,
            end_s=end_s,
        ).audio
    return Media("demo", face.video if video else None, voice, end_s)
