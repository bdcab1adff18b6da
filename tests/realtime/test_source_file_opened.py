"""What is opened as a recording, files and web addresses, and what is refused in one line: pipes, streams, rubbish."""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from clips import write_clap
from mjpeg_server import MjpegServer
from played import clicks, flashes, read

from ecmf.errors import SourceError
from realtime.sources.file import open_media


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


def test_a_recording_on_the_web_is_played_like_a_file(tmp_path: Path, web: str) -> None:
    write_clap(tmp_path / "clap.mkv", clap_s=1.0)
    frames, blocks = read(open_media(f"{web}/clap.mkv", pace=None))
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
