"""A recording as a source: everything in order on media time, paced like a device, in loops."""

from __future__ import annotations

import itertools
import threading
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from clips import write_clap
from played import clicks, flashes, read

from ecmf.errors import SourceError
from realtime.clock import FakeClock
from realtime.sources.base import BLOCK, SAMPLE_RATE
from realtime.sources.file import FileVideo, open_media
from realtime.sources.playback import LEAD_NS


@pytest.fixture
def stop() -> threading.Event:
    return threading.Event()


def test_fast_gives_everything_in_order_on_media_time(tmp_path: Path, stop: threading.Event) -> None:
    media = open_media(write_clap(tmp_path / "clap.mkv", seconds=2, fps=25), pace=None)
    assert media.video and media.audio and media.duration_s == pytest.approx(2)
    assert (media.video.width, media.video.height, media.video.fps, media.audio.rate) == (64, 48, 25, 48_000)
    samples = list(media.samples(stop))
    assert [s.end_ns for s in samples] == sorted(s.end_ns for s in samples)
    frames, blocks = read(media)
    assert [frame.index for frame in frames] == list(range(50))
    assert [frame.media_s for frame in frames] == pytest.approx([n / 25 for n in range(50)])
    assert all(frame.start_ns == round(frame.media_s * 1e9) and frame.clock == "file" for frame in frames)
    assert sum(len(block.samples) for block in blocks) == 2 * SAMPLE_RATE
    assert all(len(block.samples) == BLOCK for block in blocks[:-1])
    assert all(a.end_ns == b.start_ns for a, b in itertools.pairwise(blocks))


def test_fast_is_deterministic(tmp_path: Path) -> None:
    media = open_media(write_clap(tmp_path / "clap.mkv"), pace=None)
    (frames, blocks), (frames_again, blocks_again) = read(media), read(media)
    assert all(np.array_equal(a.image, b.image) for a, b in zip(frames, frames_again, strict=True))
    assert all(np.array_equal(a.samples, b.samples) for a, b in zip(blocks, blocks_again, strict=True))


def test_loops_are_seamless_and_stay_together(tmp_path: Path) -> None:
    media = open_media(write_clap(tmp_path / "clap.mkv", seconds=2, clap_s=0.4), loop=True, pace=None)
    frames, blocks = read(media, seconds=9)
    assert np.diff([frame.start_ns for frame in frames]) == pytest.approx(40e6, abs=1.1e6)
    assert all(a.end_ns == b.start_ns for a, b in itertools.pairwise(blocks))
    assert all(len(block.samples) == BLOCK for block in blocks)
    assert flashes(frames) == pytest.approx([0.4, 2.4, 4.4, 6.4, 8.4], abs=0.005)
    assert clicks(blocks) == pytest.approx([0.4, 2.4, 4.4, 6.4, 8.4], abs=0.005)
    assert max(frame.media_s or 0 for frame in frames) < 2 > max(block.media_s or 0 for block in blocks)
    assert [frame.index for frame in frames] == list(range(len(frames)))


def test_tracks_of_different_length_loop_together(tmp_path: Path) -> None:
    path = write_clap(tmp_path / "clap.mkv", seconds=2, clap_s=1.9, sound_from_s=0.0)
    short = tmp_path / "short.mkv"
    with av.open(str(path)) as source, av.open(str(short), "w") as target:
        tracks = {s.index: target.add_stream_from_template(s) for s in source.streams}
        for packet in source.demux():
            if packet.dts is None or (packet.stream.type == "video" and packet.pts * packet.time_base >= 1.0):
                continue
            packet.stream = tracks[packet.stream.index]
            target.mux(packet)
    frames, blocks = read(open_media(short, loop=True, pace=None), seconds=6)
    starts = [frame.start_ns / 1e9 for frame in frames if frame.media_s == 0]
    assert starts == pytest.approx([0, 2, 4, 6], abs=0.003)
    assert clicks(blocks) == pytest.approx([1.9, 3.9, 5.9], abs=0.005)


def test_paced_samples_come_when_they_are_due(tmp_path: Path, stop: threading.Event) -> None:
    clock = FakeClock(10**12)
    media = open_media(write_clap(tmp_path / "clap.mkv"), pace=clock)
    assert media.video and media.audio
    start_ns = 10**12 + LEAD_NS
    for number, frame in enumerate(media.video.frames(stop)):
        assert frame.start_ns == start_ns + number * 40_000_000 == clock.monotonic_ns()
    clock = FakeClock(10**12)
    media = open_media(write_clap(tmp_path / "clap.mkv"), pace=clock)
    assert media.audio
    for block in media.audio.blocks(stop):
        assert block.end_ns == clock.monotonic_ns()


def test_slow_decoding_counts_as_latency(tmp_path: Path, stop: threading.Event) -> None:
    clock = FakeClock()
    media = open_media(write_clap(tmp_path / "clap.mkv"), pace=clock)
    assert media.video
    frames = media.video.frames(stop)
    first = next(frames)
    clock.advance(500_000_000)
    second = next(frames)
    assert second.start_ns == first.start_ns + 200_000_000
    assert clock.monotonic_ns() - second.end_ns == 300_000_000


def test_a_decoder_that_falls_behind_drops_frames_until_it_is_in_time(
    tmp_path: Path, stop: threading.Event
) -> None:
    clock = FakeClock()
    media = open_media(write_clap(tmp_path / "clap.mkv", seconds=4), pace=clock)
    assert isinstance(media.video, FileVideo)
    frames = media.video.frames(stop)
    first = next(frames)
    clock.advance(2_000_000_000)
    times = [(frame.start_ns - first.start_ns) / 1e9 for frame in frames]
    assert times[:9] == pytest.approx([0.2 * n for n in range(1, 10)])
    assert times[9:] == pytest.approx([1.92 + 0.04 * n for n in range(52)])
    assert media.video.dropped == 99 - len(times)


def test_stop_ends_both_tracks(tmp_path: Path, stop: threading.Event) -> None:
    media = open_media(write_clap(tmp_path / "clap.mkv"), loop=True, pace=FakeClock())
    assert media.video and media.audio
    frames, blocks = media.video.frames(stop), media.audio.blocks(stop)
    next(frames), next(blocks)
    stop.set()
    assert list(frames) == [] == list(blocks)


@pytest.mark.parametrize(("picture", "sound"), [(True, False), (False, True)])
def test_one_track_is_enough(tmp_path: Path, picture: bool, sound: bool) -> None:
    path = write_clap(tmp_path / ("a.mp4" if picture else "a.wav"), picture=picture, sound=sound)
    frames, blocks = read(open_media(path, pace=None))
    assert bool(frames) == picture
    assert bool(blocks) == sound


def test_what_is_switched_off_stays_off(tmp_path: Path) -> None:
    path = write_clap(tmp_path / "clap.mkv")
    assert open_media(path, audio=False, pace=None).audio is None
    assert open_media(path, video=False, pace=None).video is None
    with pytest.raises(SourceError, match="has no pictures"):
        open_media(write_clap(tmp_path / "a.wav", picture=False), audio=False, pace=None)


def test_a_picture_is_shown_once_or_five_times_a_second(tmp_path: Path, stop: threading.Event) -> None:
    path = tmp_path / "still.png"
    cv2.imwrite(str(path), np.full((20, 30, 3), (1, 2, 3), np.uint8))
    frames, blocks = read(open_media(path, pace=None))
    assert len(frames) == 1 and not blocks
    assert frames[0].image.shape == (20, 30, 3) and frames[0].image[0, 0].tolist() == [1, 2, 3]
    paced = open_media(path, pace=FakeClock())
    assert paced.video
    frames = list(itertools.islice(paced.video.frames(stop), 11))
    assert frames[10].start_ns - frames[0].start_ns == 2_000_000_000


def test_a_portrait_video_is_upright_and_square(tmp_path: Path) -> None:
    path = tmp_path / "phone.mp4"
    with av.open(str(path), "w") as container:
        track = container.add_stream("mpeg4", rate=25)
        track.width, track.height, track.pix_fmt = 96, 48, "yuv420p"
        track.set_display_rotation(90)
        image = np.full((48, 96, 3), 16, np.uint8)
        image[:, 72:] = 235
        for _ in range(3):
            container.mux(track.encode(av.VideoFrame.from_ndarray(image, format="bgr24")))
        container.mux(track.encode())
    with cv2_capture(path) as expected:
        frames, _ = read(open_media(path, pace=None))
        assert frames[0].image.shape == expected.shape == (96, 48, 3)
        assert np.abs(frames[0].image.astype(int) - expected).mean() < 8


class cv2_capture:
    """The first frame as OpenCV, which turns videos by itself, shows it."""

    def __init__(self, path: Path) -> None:
        self._capture = cv2.VideoCapture(str(path))

    def __enter__(self) -> np.ndarray:
        return self._capture.read()[1]

    def __exit__(self, *_: object) -> None:
        self._capture.release()


def test_a_damaged_end_is_the_end(tmp_path: Path) -> None:
    path = write_clap(tmp_path / "clap.mkv", seconds=4)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    frames, blocks = read(open_media(path, pace=None))
    assert 30 < len(frames) < 80
    assert 1.5 < blocks[-1].end_ns / 1e9 < 3
