"""Pictures of faces -> what the face branch sees of them: the aligned crop and the 52 blendshapes, cached.

Uses the live branch's own alignment, landmarks and blendshapes, so that nothing differs between training and use.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ecmf.errors import need
from train import corpora
from train.atomic import whole

if TYPE_CHECKING:
    from ecmf.branches.face.blendshapes import Blendshapes
    from ecmf.branches.face.finder import Finder, Found
    from ecmf.branches.face.landmarks import Landmarker, Landmarks, Region

VERSION = 2
"""Raise it when Cropper would give other crops or blendshapes: caches of before are then left aside."""
PRESENCE = 0.5
"""Below it the landmarks are not believed: fixed crop, blendshapes zero (the network's "unknown")."""
ROOM = 0.5
"""Black border around a picture for the finder, relative to its shorter side."""


@dataclass(frozen=True)
class Crops:
    """What is known of ``n`` pictures."""

    face: NDArray[np.uint8]
    """uint8[n, size, size]: aligned grey crops."""
    blendshapes: NDArray[np.float32]
    """float32[n, 52] in [0, 1]; zeros where no landmarks were found."""
    presence: NDArray[np.float32]
    """float32[n] in [0, 1]: the landmark model's belief in a face. Below PRESENCE the crop is the fixed one."""

    def __len__(self) -> int:
        return len(self.face)

    def rows(self, rows: NDArray[np.int64]) -> Crops:
        return Crops(self.face[rows], self.blendshapes[rows], self.presence[rows])

    @property
    def aligned(self) -> NDArray[np.bool_]:
        """bool[n]: crops that follow landmarks."""
        return self.presence >= PRESENCE


class Cropper:
    """One picture with one face that fills most of it -> crop and blendshapes."""

    def __init__(
        self,
        landmarker: Landmarker | None = None,
        blendshapes: Blendshapes | None = None,
        finder: Finder | None = None,
        *,
        offline: bool = False,
    ) -> None:
        from ecmf.branches.face.blendshapes import Blendshapes
        from ecmf.branches.face.finder import open_finder
        from ecmf.branches.face.landmarks import Landmarker

        self._landmarker = landmarker or Landmarker(offline=offline)
        self._blendshapes = blendshapes or Blendshapes(offline=offline)
        self._finder = finder or open_finder("landmarker", offline=offline)

    def landmarks(self, picture: NDArray[np.uint8], spread: float) -> Landmarks:
        """Landmarks of the face in the middle of ``picture`` (uint8[H, W(, 3)]).

        The live branch's finder says where to look first. Where that shows no face: the middle of the picture, a
        square whose side is ``spread`` of the picture's shorter one. Of two doubtful answers the better.
        """
        from ecmf.branches.face.landmarks import Region

        first = self._find(picture)
        found = None if first is None else self._follow(picture, first)
        if found is not None and found.presence >= PRESENCE:
            return found
        height, width = picture.shape[:2]
        middle = self._follow(picture, Region(width / 2, height / 2, spread * min(height, width), 0.0))
        return middle if found is None or middle.presence > found.presence else found

    def _find(self, picture: NDArray[np.uint8]) -> Region | None:
        """Where the landmark model should look, for the face that is large and near the middle."""
        from ecmf.branches.face.landmarks import Region

        cv2: Any = need("cv2", "live")
        # Faces that touch the picture's edges are found only with some room around them.
        room = round(ROOM * min(picture.shape[:2]))
        framed = cv2.copyMakeBorder(picture, room, room, room, room, cv2.BORDER_CONSTANT)
        if framed.ndim == 2:
            framed = cv2.cvtColor(framed, cv2.COLOR_GRAY2BGR)
        height, width = framed.shape[:2]

        def aside(face: Found) -> float:
            x, y, w, h = face.box
            return float(np.hypot(x + w / 2 - width / 2, y + h / 2 - height / 2) / max(w, h, 1))

        faces = self._finder.find(framed)
        if not faces:
            return None
        region = min(faces, key=lambda face: aside(face) - face.box[2] / width).region
        return Region(region.x - room, region.y - room, region.side, region.angle)

    def _follow(self, picture: NDArray[np.uint8], region: Region) -> Landmarks:
        """The region follows the landmarks as from frame to frame in a video, until it lies still, at most twice."""
        found = self._landmarker.run(picture, region)
        for _ in range(2):
            following = found.region
            moved = np.hypot(following.x - region.x, following.y - region.y) / region.side
            still = moved < 0.06 and abs(following.angle - region.angle) < 0.1
            if found.presence < 0.1 or (still and 0.85 < following.side / region.side < 1.18):
                break
            again = self._landmarker.run(picture, following)
            if again.presence < found.presence - 0.2:
                break
            found, region = again, following
        return found

    def shapes(self, found: Landmarks) -> NDArray[np.float32]:
        """float32[52] blendshapes."""
        return self._blendshapes.run(found.points)

    def crop(
        self, picture: NDArray[np.uint8], size: int, spread: float, fixed: float
    ) -> tuple[NDArray[np.uint8], NDArray[np.float32], float]:
        """Aligned uint8[size, size], float32[52] and presence of one picture.

        ``fixed``: side of the square in the middle that serves as crop where no face is found, relative to the
        picture's shorter side.
        """
        from ecmf.branches.face import align

        found = self.landmarks(picture, spread)
        if found.presence >= PRESENCE:
            points = align.five_points(found.points)
            return align.crop(picture, points, size), self.shapes(found), found.presence
        height, width = picture.shape[:2]
        scale = size / (fixed * min(height, width))
        matrix = np.array(
            [[scale, 0, size / 2 - scale * width / 2], [0, scale, size / 2 - scale * height / 2]]
        )
        return align.grey(align.warp(picture, matrix, size)), np.zeros(52, np.float32), found.presence


@dataclass(frozen=True)
class View:
    """How a corpus frames its faces: see Cropper.landmarks and Cropper.crop."""

    spread: float
    fixed: float


FER_VIEW = View(spread=1.35, fixed=1.0)
"""FER's pictures are cut tightly around the face."""
PHOTO_VIEW = View(spread=0.9, fixed=0.55)
"""muxspace and LFW: head and some shoulders, the face in the middle."""


def extract(
    pictures: Sequence[NDArray[np.uint8]] | Iterable[NDArray[np.uint8]],
    count: int,
    size: int,
    view: View,
    cropper: Cropper,
    progress: Callable[[int], None] | None = None,
) -> Crops:
    """Crops of ``count`` pictures, in order. ``progress`` is told the number done."""
    face = np.empty((count, size, size), np.uint8)
    shapes = np.empty((count, 52), np.float32)
    presence = np.empty(count, np.float32)
    for row, picture in enumerate(pictures):
        face[row], shapes[row], presence[row] = cropper.crop(picture, size, view.spread, view.fixed)
        if progress is not None:
            progress(row + 1)
    return Crops(face, shapes, presence)


def cached(
    cache: Path, source: Path, size: int, view: View, make: Callable[[], Crops], what: str = ""
) -> Crops:
    """``make()``, kept in ``cache`` under a name made of the source file, the size and how faces are cut out.

    ``what``: which pictures of the source, and how they were changed; empty for all of them, as they are.
    """
    from ecmf.branches.face import align, landmarks

    stood_for = corpora.size(source)
    how = (VERSION, size, view, align.template(size).round(3).tolist(), landmarks.MARGIN, PRESENCE)
    named = (source.name, stood_for, how, what) if what else (source.name, stood_for, how)
    key = hashlib.sha256(repr(named).encode()).hexdigest()[:16]
    path = cache / f"face-crops-{source.stem}-{size}-{key}.npz"
    if path.is_file():
        with np.load(path) as stored:
            return Crops(stored["face"], stored["blendshapes"], stored["presence"])
    crops = make()
    with whole(path) as file:
        np.savez(file, face=crops.face, blendshapes=crops.blendshapes, presence=crops.presence)
    return crops


def corpus(
    cache: Path,
    source: Path,
    size: int,
    cropper: Callable[[], Cropper],
    progress: Callable[[int, int], None] | None = None,
) -> Crops:
    """Crops of every picture of ferplus or muxspace (told apart by ``source``'s name), from the cache where it can.

    ``cropper`` is called only when there is something to extract; ``progress`` is told done and total.
    """
    from train.datasets import ferplus, muxspace

    of_fer = source.name in corpora.FERPLUS
    view = FER_VIEW if of_fer else PHOTO_VIEW

    def make() -> Crops:
        pictures: Iterable[NDArray[np.uint8]]
        if of_fer:
            pictures, count = (fer := ferplus.read(source)).pictures, len(fer.name)
        else:
            mux = muxspace.read(source)
            pictures, count = (mux.picture(row) for row in range(len(mux.name))), len(mux.name)
        tell = None if progress is None else lambda done: progress(done, count)
        return extract(pictures, count, size, view, cropper(), tell)

    return cached(cache, source, size, view, make)
