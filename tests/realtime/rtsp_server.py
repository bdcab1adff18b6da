"""An RTSP camera on loopback: ffmpeg makes the RTP packets, this hands them to one client after another over TCP."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest

ENCODER = (
    *("-c:v", "libx264", "-preset", "ultrafast", "-tune", "zerolatency", "-g", "15"),
    *("-pix_fmt", "yuv420p", "-flags", "+global_header"),
)


class RtspServer:
    """Enough of RFC 2326 for a client that asks for interleaved TCP; counts how often it was asked to describe."""

    def __init__(self, clip: Path, folder: Path, port: int = 0) -> None:
        if shutil.which("ffmpeg") is None:
            pytest.skip("ffmpeg is not installed")
        self.described = 0
        self._ended = False
        self._clients: list[socket.socket] = []
        self._rtp = self._datagrams()
        sdp = folder / "camera.sdp"
        sdp.unlink(missing_ok=True)
        to = f"rtp://127.0.0.1:{self._rtp.getsockname()[1]}?pkt_size=1200"
        self.encoder = subprocess.Popen(
            [
                *("ffmpeg", "-v", "error", "-re", "-stream_loop", "-1", "-i", str(clip), "-an", *ENCODER),
                *("-f", "rtp", "-sdp_file", str(sdp), to),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        while not (sdp.exists() and "m=video" in sdp.read_text()):
            assert self.encoder.poll() is None, "ffmpeg does not encode"
            time.sleep(0.02)
        self._sdp = "".join(
            "m=video 0 RTP/AVP 96\r\n" if line.startswith("m=") else f"{line}\r\n"
            for line in sdp.read_text().splitlines()
            if not line.startswith(("SDP:", "a=tool", "b=")) and line
        )
        self._playing: socket.socket | None = None
        self._server = socket.create_server(("127.0.0.1", port))
        self.port = self._server.getsockname()[1]
        self.address = f"rtsp://127.0.0.1:{self.port}/camera"
        for work in (self._accept, self._forward):
            threading.Thread(target=work, daemon=True).start()

    def stop(self) -> int:
        """As when its power is cut; returns when, on the monotonic clock."""
        self._ended = True
        self.encoder.kill()
        died_ns = time.monotonic_ns()
        for each in (self._server, self._rtp, *self._clients):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        self.encoder.wait()
        return died_ns

    @staticmethod
    def _datagrams() -> socket.socket:
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        made.bind(("127.0.0.1", 0))
        return made

    def _forward(self) -> None:
        with contextlib.suppress(OSError):
            while packet := self._rtp.recv(65536):
                if self._playing is not None:
                    try:
                        self._playing.sendall(b"$\0" + len(packet).to_bytes(2, "big") + packet)
                    except OSError:
                        self._playing = None

    def _accept(self) -> None:
        while not self._ended:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            self._clients.append(client)
            threading.Thread(target=self._talk, args=(client,), daemon=True).start()

    def _talk(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            asked = b""
            while piece := client.recv(4096):
                asked += piece
                while b"\r\n\r\n" in asked:
                    head, asked = asked.split(b"\r\n\r\n", 1)
                    # What the client reports about its reception (RTCP) comes interleaved with its requests.
                    lines = head[max(0, head.rfind(b" rtsp://") - 20) :].decode("latin-1").splitlines()
                    self._answer(client, lines)

    def _answer(self, client: socket.socket, lines: list[str]) -> None:
        verb = lines[0].split()[0].lstrip("\0").upper()
        fields = {k.strip().lower(): v.strip() for k, _, v in (line.partition(":") for line in lines[1:])}
        said, body = {"CSeq": fields.get("cseq", "0"), "Session": "1"}, ""
        if verb.endswith("OPTIONS"):
            said["Public"] = "OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN"
        elif verb.endswith("DESCRIBE"):
            self.described += 1
            body = self._sdp
            said |= {"Content-Type": "application/sdp", "Content-Base": f"{self.address}/"}
            said["Content-Length"] = str(len(body))
        elif verb.endswith("SETUP"):
            said["Transport"] = "RTP/AVP/TCP;unicast;interleaved=0-1"
        head = "".join(f"{name}: {value}\r\n" for name, value in said.items())
        client.sendall(f"RTSP/1.0 200 OK\r\n{head}\r\n{body}".encode())
        if verb.endswith("PLAY"):
            self._playing = client
