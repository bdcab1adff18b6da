"""Who is who from frame to frame: faces are followed by their landmarks and keep an anonymous number."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from ecmf.branches.face.finder import Finder, Found, overlap
from ecmf.branches.face.landmarks import Landmarker, Landmarks, Region

PRESENCE = 0.5
"""Below this the landmark model says that its region held no face (MediaPipe's default)."""
SEARCH_NS = 500_000_000
"""How often the finder looks for further people while fewer than ``max_faces`` are followed."""
CLOSE_NS = 250_000_000
"""How often a frame in which nobody is found is looked at again for a face that reaches beyond its edges."""
MEMORY_NS = 2_000_000_000
"""How long a lost face keeps its number, to be given back when it reappears near where it was heading."""
SAME = 0.45
"""Two followed boxes that overlap more than this are one face."""
_SETTLE_NS = 150_000_000
"""Velocity is an average over about this long."""


@dataclass
class Track:
    """A face that is followed, or was until ``seen_ns``."""

    id: int
    landmarks: Landmarks
    seen_ns: int
    born_ns: int
    velocity: NDArray[np.float64]
    """float64[2]: of the box's centre, pixels per second."""
    lost: bool = False

    def expected(self, now_ns: int) -> NDArray[np.float64]:
        """float64[2]: where the box's centre should be now; a lost face is not expected to move on for ever."""
        seconds = min((now_ns - self.seen_ns) / 1e9, 0.5)
        return _centre(self.landmarks) + self.velocity * seconds

    def scale(self, x: float, y: float) -> None:
        """The same face in a picture of another size."""
        self.landmarks = replace(
            self.landmarks, points=self.landmarks.points * np.array([x, y, x], np.float32)
        )
        self.velocity = self.velocity * (x, y)

    def update(self, landmarks: Landmarks, now_ns: int) -> None:
        seconds = (now_ns - self.seen_ns) / 1e9
        if 0 < seconds < 0.5 and not self.lost:
            weight = 1 - np.exp(-seconds * 1e9 / _SETTLE_NS)
            step = (_centre(landmarks) - _centre(self.landmarks)) / seconds
            self.velocity = self.velocity + weight * (step - self.velocity)
        else:
            self.velocity = np.zeros(2)
        self.landmarks, self.seen_ns, self.lost = landmarks, now_ns, False


class Tracker:
    """Follows up to ``max_faces`` people. The finder runs only when someone may have come or gone.

    A followed face costs one run of the landmark model a frame, in the region of its previous landmarks. Time is
    passed in; a frame older than the one before starts afresh, with new numbers. Frames may change their size.
    """

    def __init__(self, finder: Finder, landmarker: Landmarker, *, max_faces: int = 4) -> None:
        self._finder = finder
        self._landmarker = landmarker
        self._max_faces = max_faces
        self._tracks: list[Track] = []
        self._next_id = 0
        self._searched_ns: int | None = None
        self._looked_close_ns: int | None = None
        self._now_ns: int | None = None
        self._size: tuple[int, int] | None = None
        """Height and width of the last frame, pixels."""
        self.stage_ms: dict[str, float] = {}
        """Time spent in the last ``follow``: detect and landmarks, milliseconds."""

    def follow(self, frame: NDArray[np.uint8], now_ns: int) -> list[Track]:
        """The people in ``frame`` (uint8[H, W, 3] BGR) captured at ``now_ns``, largest first."""
        if self._now_ns is not None and now_ns < self._now_ns:
            self._tracks, self._searched_ns, self._looked_close_ns = [], None, None
        self._now_ns = now_ns
        self._resize(frame.shape[0], frame.shape[1])
        self.stage_ms = {"detect": 0.0, "landmarks": 0.0}
        self._tracks = [t for t in self._tracks if now_ns - t.seen_ns <= MEMORY_NS]
        followed = self._followed()
        for track in followed:
            landmarks = self._look(frame, track.landmarks.region)
            if landmarks is None:
                track.lost = True
            else:
                track.update(landmarks, now_ns)
        self._separate()
        if self._should_search(now_ns, just_lost=any(t.lost for t in followed)):
            self._search(frame, now_ns)
        followed = self._followed()
        return sorted(followed, key=lambda t: -t.landmarks.box[2] * t.landmarks.box[3])[: self._max_faces]

    def _resize(self, height: int, width: int) -> None:
        """A camera may change its size while it runs: people stay who they are, and are looked for anew."""
        if self._size is not None and self._size != (height, width):
            for track in self._tracks:
                track.scale(width / self._size[1], height / self._size[0])
            self._searched_ns = self._looked_close_ns = None
        self._size = height, width

    def _followed(self) -> list[Track]:
        return [t for t in self._tracks if not t.lost]

    def _look(self, frame: NDArray[np.uint8], region: Region) -> Landmarks | None:
        start = perf_counter()
        landmarks = self._landmarker.run(frame, region)
        self.stage_ms["landmarks"] += (perf_counter() - start) * 1e3
        return landmarks if landmarks.presence >= PRESENCE and _inside(landmarks, frame) else None

    def _separate(self) -> None:
        """Where two tracks slid onto one face, the one that was heading there keeps it; the other is lost."""
        followed = self._followed()
        for index, first in enumerate(followed):
            for second in followed[index + 1 :]:
                if first.lost or second.lost or not _same(first.landmarks, second.landmarks):
                    continue
                stray = max((first, second), key=lambda t: (float(np.hypot(*t.velocity)), t.born_ns))
                stray.lost = True

    def _should_search(self, now_ns: int, *, just_lost: bool) -> bool:
        followed = self._followed()
        if len(followed) >= self._max_faces:
            return False
        if self._searched_ns is None or just_lost:
            return True
        missing = not followed or len(followed) < len(self._tracks)
        return now_ns - self._searched_ns >= (self._finder.pause_ns if missing else SEARCH_NS)

    def _search(self, frame: NDArray[np.uint8], now_ns: int) -> None:
        self._searched_ns = now_ns
        self._take_in(frame, self._found(self._finder.find, frame), now_ns)
        looked = self._looked_close_ns
        if not self._followed() and (looked is None or now_ns - looked >= CLOSE_NS):
            self._looked_close_ns = now_ns
            self._take_in(frame, self._found(self._finder.find_close, frame), now_ns)

    def _found(
        self, find: Callable[[NDArray[np.uint8]], list[Found]], frame: NDArray[np.uint8]
    ) -> list[Found]:
        start = perf_counter()
        found = find(frame)
        self.stage_ms["detect"] += (perf_counter() - start) * 1e3
        return found

    def _take_in(self, frame: NDArray[np.uint8], found: list[Found], now_ns: int) -> None:
        """Follow those of the faces found who are not followed yet."""
        for face in found:
            followed = self._followed()
            if len(followed) >= self._max_faces:
                return
            x, y, width, height = face.box
            if any(_holds(t.landmarks, x + width / 2, y + height / 2) for t in followed):
                continue
            landmarks = self._look(frame, face.region)
            # A finder's box is a rough guess; a second look from the landmarks themselves settles it.
            landmarks = landmarks and self._look(frame, landmarks.region)
            if landmarks is None or any(_same(landmarks, t.landmarks) for t in followed):
                continue
            self._admit(landmarks, now_ns)

    def _admit(self, landmarks: Landmarks, now_ns: int) -> None:
        """Give a face the number of the lost one it continues, or a new one."""
        size = max(landmarks.box[2:])
        best, best_distance = None, np.inf
        for track in self._tracks:
            before = max(track.landmarks.box[2:])
            if not track.lost or not 0.5 < size / before < 2:
                continue
            away = (now_ns - track.seen_ns) / 1e9
            distance = float(np.hypot(*(track.expected(now_ns) - _centre(landmarks)))) / max(size, before)
            if distance < 0.75 + away and distance < best_distance:
                best, best_distance = track, distance
        if best is not None:
            best.update(landmarks, now_ns)
        else:
            self._tracks.append(Track(self._next_id, landmarks, now_ns, now_ns, np.zeros(2)))
            self._next_id += 1


def _centre(landmarks: Landmarks) -> NDArray[np.float64]:
    x, y, width, height = landmarks.box
    return np.array([x + width / 2, y + height / 2])


def _corners(landmarks: Landmarks) -> NDArray[np.float64]:
    x, y, width, height = landmarks.box
    return np.array([x, y, x + width, y + height])


def _same(first: Landmarks, second: Landmarks) -> bool:
    return float(overlap(_corners(first), _corners(second)[None])[0]) > SAME


def _holds(landmarks: Landmarks, x: float, y: float) -> bool:
    x0, y0, x1, y1 = _corners(landmarks)
    return bool(x0 <= x <= x1 and y0 <= y <= y1)


def _inside(landmarks: Landmarks, frame: NDArray[np.uint8]) -> bool:
    """A face whose centre left the frame is gone, whatever the model makes of repeated edge pixels."""
    x, y = _centre(landmarks)
    return bool(0 <= x < frame.shape[1] and 0 <= y < frame.shape[0])
