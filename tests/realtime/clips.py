"""Small media files made by the tests themselves: what is in them, and when, is known exactly."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

RATE = 48_000


def write_clap(
    path: Path,
    *,
    seconds: float = 2.0,
    clap_s: float = 1.0,
    fps: int = 25,
    picture: bool = True,
    sound: bool = True,
    rate: int = RATE,
    size: tuple[int, int] = (64, 48),
    sound_from_s: float = 0.0,
    codec: str = "pcm_s16le",
) -> Path:
    """A dark, silent clip with one flash (a white frame) and one click (2 ms) at ``clap_s``."""
    width, height = size
    with av.open(str(path), "w") as container:
        if picture:
            video = container.add_stream("mpeg4", rate=fps)
            video.width, video.height, video.pix_fmt = width, height, "yuv420p"
            video.bit_rate = 2_000_000
        if sound:
            audio = container.add_stream(codec, rate=rate, layout="stereo")
        if picture:
            for number in range(round(seconds * fps)):
                bright = number == round(clap_s * fps)
                frame = av.VideoFrame.from_ndarray(
                    np.full((height, width, 3), 255 if bright else 16, np.uint8), format="bgr24"
                )
                frame.pts, frame.time_base = number, Fraction(1, fps)
                container.mux(video.encode(frame))
            container.mux(video.encode())
        if sound:
            pcm = np.zeros(round((seconds - sound_from_s) * rate), np.int16)
            begin = round((clap_s - sound_from_s) * rate)
            pcm[begin : begin + rate // 500] = 20_000
            for begin in range(0, len(pcm), 1024):
                piece = np.repeat(pcm[begin : begin + 1024], 2)[None, :]
                frame = av.AudioFrame.from_ndarray(piece, format="s16", layout="stereo")
                frame.sample_rate = rate
                frame.pts, frame.time_base = round(sound_from_s * rate) + begin, Fraction(1, rate)
                container.mux(audio.encode(frame))
            container.mux(audio.encode())
    return path


def write_shifted(source: Path, path: Path, by_s: float, *, after_s: float = 0.0, only: str = "") -> Path:
    """The same packets with stamps that are ``by_s`` later from ``after_s`` on; ``only``: of the track of that kind."""
    with av.open(str(source)) as read, av.open(str(path), "w") as written:
        tracks = {each.index: written.add_stream_from_template(each) for each in read.streams}
        for packet in read.demux():
            if packet.dts is None:
                continue
            moved = packet.dts * packet.time_base >= after_s and only in ("", packet.stream.type)
            late = round(by_s / packet.time_base) if moved else 0
            packet.pts, packet.dts = packet.pts + late, packet.dts + late
            packet.stream = tracks[packet.stream.index]
            written.mux(packet)
    return path
