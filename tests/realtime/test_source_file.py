from __future__ import annotations

import functools
import itertools
import os
import threading
from collections.abc import Iterable, Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from clips import write_clap, write_shifted
from mjpeg_server import MjpegServer

from ecmf.errors import SourceError
from realtime.clock import FakeClock
from realtime.sources.base import BLOCK, SAMPLE_RATE, AudioBlock, Frame
from realtime.sources.file import FileVideo, Media, open_media
from realtime.sources.playback import LEAD_NS


@pytest.fixture
def stop() -> threading.Event:
    return threading.Event()


def read(media: Media, stop: threading.Event, seconds: float = 1e9) -> tuple[list[Frame], list[AudioBlock]]:
    samples = list(itertools.takewhile(lambda s: s.end_ns <= seconds * 1e9, media.samples(stop)))
    return (
        [sample for sample in samples if isinstance(sample, Frame)],
        [sample for sample in samples if isinstance(sample, AudioBlock)],
    )


def flashes(frames: Iterable[Frame]) -> list[float]:
    return [frame.start_ns / 1e9 for frame in frames if frame.image.mean() > 128]


def clicks(blocks: Iterable[AudioBlock]) -> list[float]:
    blocks = list(blocks)
    sound = np.concatenate([block.samples for block in blocks])
    loud = np.flatnonzero(np.abs(sound) > 0.1)
    return [
        blocks[0].start_ns / 1e9 + begin / SAMPLE_RATE for begin in loud[np.diff(loud, prepend=-999) > 160]
    ]


def test_fast_gives_everything_in_order_on_media_time(tmp_path: Path, stop: threading.Event) -> None:
    media = open_media(write_clap(tmp_path / "clap.mkv", seconds=2, fps=25), pace=None)
    assert media.video and media.audio and media.duration_s == pytest.approx(2)
    assert (media.video.width, media.video.height, media.video.fps, media.audio.rate) == (64, 48, 25, 48_000)
    samples = list(media.samples(stop))
    assert [s.end_ns for s in samples] == sorted(s.end_ns for s in samples)
    frames, blocks = read(media, stop)
    assert [frame.index for frame in frames] == list(range(50))
    assert [frame.media_s for frame in frames] == pytest.approx([n / 25 for n in range(50)])
    assert all(frame.start_ns == round(frame.media_s * 1e9) and frame.clock == "file" for frame in frames)
    assert sum(len(block.samples) for block in blocks) == 2 * SAMPLE_RATE
    assert all(len(block.samples) == BLOCK for block in blocks[:-1])
    assert all(a.end_ns == b.start_ns for a, b in itertools.pairwise(blocks))


def test_fast_is_deterministic(tmp_path: Path, stop: threading.Event) -> None:
    media = open_media(write_clap(tmp_path / "clap.mkv"), pace=None)
    (frames, blocks), (frames_again, blocks_again) = read(media, stop), read(media, stop)
    assert all(np.array_equal(a.image, b.image) for a, b in zip(frames, frames_again, strict=True))
    assert all(np.array_equal(a.samples, b.samples) for a, b in zip(blocks, blocks_again, strict=True))


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100, 48_000, 96_000])
@pytest.mark.parametrize("sound_from_s", [0.0, 0.5])
def test_flash_and_click_stay_together(
    tmp_path: Path, stop: threading.Event, rate: int, sound_from_s: float
) -> None:
    path = write_clap(tmp_path / "clap.mkv", rate=rate, clap_s=1.0, sound_from_s=sound_from_s)
    frames, blocks = read(open_media(path, pace=None), stop)
    assert flashes(frames) == pytest.approx([1.0])
    # The resampler rings a little before the click; container times are rounded to milliseconds.
    assert clicks(blocks) == pytest.approx([1.0], abs=0.003)


def test_a_start_time_in_the_container_does_not_part_them(tmp_path: Path, stop: threading.Event) -> None:
    path = write_clap(tmp_path / "clap.mkv", clap_s=1.0, sound=True)
    shifted = write_shifted(path, tmp_path / "shifted.mkv", 7)
    frames, blocks = read(open_media(shifted, pace=None), stop)
    assert frames[0].start_ns == 0
    assert flashes(frames) == pytest.approx([1.0], abs=0.002)
    assert clicks(blocks) == pytest.approx([1.0], abs=0.003)


@pytest.mark.parametrize("shifts_s", [(0, 100, 0), (100, 0), (0, 0, 0, 0, 0, 0)])
def test_stamps_that_jump_where_files_were_joined_do_not_part_them(
    tmp_path: Path, stop: threading.Event, shifts_s: tuple[float, ...]
) -> None:
    clip = write_clap(tmp_path / "clap.ts", clap_s=1.0, codec="mp2")
    parts = [write_shifted(clip, tmp_path / f"{n}.ts", by_s).read_bytes() for n, by_s in enumerate(shifts_s)]
    joined = tmp_path / "joined.ts"
    joined.write_bytes(b"".join(parts))
    frames, blocks = read(open_media(joined, pace=None), stop)
    assert flashes(frames) == pytest.approx([1 + 2 * n for n in range(len(shifts_s))], abs=0.4)
    assert clicks(blocks) == pytest.approx(flashes(frames), abs=0.12)
    looped = read(open_media(joined, pace=None, loop=True), stop, seconds=4 * len(shifts_s))
    assert len(flashes(looped[0])) == len(clicks(looped[1])) == 2 * len(shifts_s)


@pytest.mark.parametrize("away_s", [0.5, 70.0])
def test_a_track_that_was_away_for_long_comes_back_in_its_place(
    tmp_path: Path, stop: threading.Event, away_s: float
) -> None:
    path = write_clap(tmp_path / "clap.mkv", seconds=75, clap_s=72.0, fps=5, sound_from_s=away_s, rate=8_000)
    frames, blocks = read(open_media(path, pace=None), stop)
    assert flashes(frames) == pytest.approx([72.0], abs=0.002)
    assert clicks(blocks) == pytest.approx([72.0], abs=0.003)


def test_loops_are_seamless_and_stay_together(tmp_path: Path, stop: threading.Event) -> None:
    media = open_media(write_clap(tmp_path / "clap.mkv", seconds=2, clap_s=0.4), loop=True, pace=None)
    frames, blocks = read(media, stop, seconds=9)
    assert np.diff([frame.start_ns for frame in frames]) == pytest.approx(40e6, abs=1.1e6)
    assert all(a.end_ns == b.start_ns for a, b in itertools.pairwise(blocks))
    assert all(len(block.samples) == BLOCK for block in blocks)
    assert flashes(frames) == pytest.approx([0.4, 2.4, 4.4, 6.4, 8.4], abs=0.005)
    assert clicks(blocks) == pytest.approx([0.4, 2.4, 4.4, 6.4, 8.4], abs=0.005)
    assert max(frame.media_s or 0 for frame in frames) < 2 > max(block.media_s or 0 for block in blocks)
    assert [frame.index for frame in frames] == list(range(len(frames)))


def test_tracks_of_different_length_loop_together(tmp_path: Path, stop: threading.Event) -> None:
    path = write_clap(tmp_path / "clap.mkv", seconds=2, clap_s=1.9, sound_from_s=0.0)
    short = tmp_path / "short.mkv"
    with av.open(str(path)) as source, av.open(str(short), "w") as target:
        tracks = {s.index: target.add_stream_from_template(s) for s in source.streams}
        for packet in source.demux():
            if packet.dts is None or (packet.stream.type == "video" and packet.pts * packet.time_base >= 1.0):
                continue
            packet.stream = tracks[packet.stream.index]
            target.mux(packet)
    frames, blocks = read(open_media(short, loop=True, pace=None), stop, seconds=6)
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
def test_one_track_is_enough(tmp_path: Path, stop: threading.Event, picture: bool, sound: bool) -> None:
    path = write_clap(tmp_path / ("a.mp4" if picture else "a.wav"), picture=picture, sound=sound)
    frames, blocks = read(open_media(path, pace=None), stop)
    assert bool(frames) == picture
    assert bool(blocks) == sound


def test_what_is_switched_off_stays_off(tmp_path: Path, stop: threading.Event) -> None:
    path = write_clap(tmp_path / "clap.mkv")
    assert open_media(path, audio=False, pace=None).audio is None
    assert open_media(path, video=False, pace=None).video is None
    with pytest.raises(SourceError, match="has no pictures"):
        open_media(write_clap(tmp_path / "a.wav", picture=False), audio=False, pace=None)


def test_a_picture_is_shown_once_or_five_times_a_second(tmp_path: Path, stop: threading.Event) -> None:
    path = tmp_path / "still.png"
    cv2.imwrite(str(path), np.full((20, 30, 3), (1, 2, 3), np.uint8))
    frames, blocks = read(open_media(path, pace=None), stop)
    assert len(frames) == 1 and not blocks
    assert frames[0].image.shape == (20, 30, 3) and frames[0].image[0, 0].tolist() == [1, 2, 3]
    paced = open_media(path, pace=FakeClock())
    assert paced.video
    frames = list(itertools.islice(paced.video.frames(stop), 11))
    assert frames[10].start_ns - frames[0].start_ns == 2_000_000_000


def test_a_portrait_video_is_upright_and_square(tmp_path: Path, stop: threading.Event) -> None:
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
        frames, _ = read(open_media(path, pace=None), stop)
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


def test_a_damaged_end_is_the_end(tmp_path: Path, stop: threading.Event) -> None:
    path = write_clap(tmp_path / "clap.mkv", seconds=4)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    frames, blocks = read(open_media(path, pace=None), stop)
    assert 30 < len(frames) < 80
    assert 1.5 < blocks[-1].end_ns / 1e9 < 3


@pytest.fixture
def web(tmp_path: Path) -> Iterator[str]:
    """The address of ``tmp_path`` on loopback."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=tmp_path))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def test_a_recording_on_the_web_is_played_like_a_file(
    tmp_path: Path, web: str, stop: threading.Event
) -> None:
    write_clap(tmp_path / "clap.mkv", clap_s=1.0)
    frames, blocks = read(open_media(f"{web}/clap.mkv", pace=None), stop)
    assert len(frames) == 50 and frames[0].clock == "file"
    assert flashes(frames) == pytest.approx([1.0], abs=0.002)
    assert clicks(blocks) == pytest.approx([1.0], abs=0.003)


def test_a_web_address_that_is_not_there_is_named(web: str) -> None:
    with pytest.raises(SourceError, match=r"nope\.mkv cannot be opened"):
        open_media(f"{web}/nope.mkv", pace=None)


def test_a_live_stream_cannot_be_hurried() -> None:
    server = MjpegServer()
    for _ in range(3):
        server.show(10)
    with pytest.raises(SourceError, match="is a live stream"):
        open_media(server.address, pace=None)
    server.stop()


BAD = {
    "empty.mp4": (b"", "is empty"),
    "text.mp4": (b"hello world\n" * 9, "cannot be decoded"),
    "text.txt": (b"hello world\n" * 9, "cannot be decoded"),
    "words.srt": (b"1\n00:00:01,000 --> 00:00:02,000\nhello\n", "neither pictures nor sound"),
    "list.m3u8": (b"#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n", "cannot be decoded"),
    "cut.jpg": (b"\xff\xd8\xff\xe0\x00\x10JFIF", "cannot be decoded"),
    "name": (bytes(range(256)) * 40, "cannot be decoded"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files_give_one_clear_line(tmp_path: Path, name: str, capfd: pytest.CaptureFixture[str]) -> None:
    content, says = BAD[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SourceError, match=says) as caught:
        open_media(tmp_path / name, pace=None)
    assert name in str(caught.value) and "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""


def test_missing_files_and_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"nope\.mp4 does not exist"):
        open_media(tmp_path / "nope.mp4", pace=None)
    with pytest.raises(SourceError, match="is a folder"):
        open_media(tmp_path, pace=None)


def test_a_pipe_is_refused_at_once_and_left_as_it_is(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")  # to open it would wait for a writer that may never come
    with pytest.raises(SourceError, match=r"pipe is no file, .*write it to a file first"):
        open_media(tmp_path / "pipe", pace=None)
    with pytest.raises(SourceError, match=r"/dev/null is no file, .*given as --camera N"):
        open_media("/dev/null", pace=None)


def test_a_scheme_that_is_not_known_is_named() -> None:
    with pytest.raises(SourceError, match="foo://desk/cam has a scheme that is not known"):
        open_media("foo://desk/cam", pace=None)
