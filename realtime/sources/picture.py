"""A still picture, shown five times a second."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ecmf.errors import SourceError, need
from realtime.sources.base import Frame
from realtime.sources.playback import Playback
from realtime.sources.quiet import quiet
from realtime.watch_picture import PictureWatch

if TYPE_CHECKING:
    from realtime.health import CameraState

FPS = 5.0


def is_picture(path: Path) -> bool:
    """Whether the bytes of ``path`` begin like a still picture (the name does not matter)."""
    cv2 = need("cv2", "live")
    with path.open("rb") as file:
        animated = file.read(4) == b"GIF8"
    return not animated and bool(cv2.haveImageReader(str(path)))


def read_picture(path: Path) -> NDArray[np.uint8]:
    """uint8[height, width, 3] BGR, upright as its EXIF says. Raises SourceError when it cannot be decoded."""
    cv2 = need("cv2", "live")
    try:
        with quiet():  # libpng warns about colour profiles
            image = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as error:
        raise SourceError(f"picture {path} cannot be decoded: {error.err}") from None
    if image is None:
        raise SourceError(f"picture {path} cannot be decoded: it is damaged")
    return image


class Picture:
    """A picture as a camera: repeated, or shown once."""

    def __init__(self, path: Path, playback: Playback, *, repeat: bool) -> None:
        self.name = path.name
        self.fps = FPS
        self._image = read_picture(path)
        self.height, self.width = self._image.shape[:2]
        self._playback = playback
        self._repeat = repeat
        self._watch = PictureWatch(still=True)

    def frames(self, stop: threading.Event) -> Iterator[Frame]:
        for index in itertools.count() if self._repeat else range(1):
            media_s = index / FPS
            stamp_ns = self._playback.stamp_ns(round(media_s * 1e9))
            if not self._playback.wait(stamp_ns, stop):
                return
            yield self._watch.see(Frame(self._image.copy(), stamp_ns, stamp_ns, "file", media_s, index))

    def condition(self) -> CameraState:
        """How it is doing now; any thread may ask."""
        return self._watch.condition(self.width, self.height)

    def close(self) -> None:
        pass
