"""A network camera on loopback that shows what the test gives it, when the test gives it."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import cv2
import numpy as np
from numpy.typing import NDArray


class MjpegServer:
    """Serves one client after another; counts how often it was asked."""

    def __init__(self, port: int = 0) -> None:
        self.requests = 0
        self._pictures: queue.Queue[bytes | None] = queue.Queue()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.requests += 1
                self.send_response(200)
                self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
                self.end_headers()
                with contextlib.suppress(ConnectionError):  # the client may hang up first
                    while (jpeg := outer._pictures.get()) is not None:
                        head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
                        self.wfile.write(head.encode() + jpeg + b"\r\n")
                        self.wfile.flush()

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        self.address = f"http://127.0.0.1:{self.port}/camera"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def show(self, brightness: int, size: tuple[int, int] = (64, 48)) -> int:
        """Send one picture; returns when, on the monotonic clock."""
        width, height = size
        picture: NDArray[np.uint8] = np.full((height, width, 3), brightness, np.uint8)
        jpeg = cv2.imencode(".jpg", picture)[1].tobytes()
        sent_ns = time.monotonic_ns()
        self._pictures.put(jpeg)
        return sent_ns

    def stop(self) -> None:
        """Hang up and stop answering."""
        self._pictures.put(None)
        self._server.shutdown()
        self._server.server_close()
