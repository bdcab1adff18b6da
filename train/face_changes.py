"""Faces made harder: small, blurred, dark, coloured, tilted, covered; on pictures, before landmarks and alignment."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecmf.branches.face import align
from ecmf.errors import need
from train.face_crops import PRESENCE, Cropper, View

Picture = NDArray[np.uint8]

VERSION = 1
"""Raise it when a change of the same name would give other pictures."""
HEIGHTS = (24, 32, 40, 48, 64, 80, 120, 160, 200)
"""Pixels from the forehead to the chin: the height of the aligned crop in the picture."""


@dataclass(frozen=True)
class Subject:
    """A picture and where the face lies in it."""

    picture: Picture
    """uint8[H, W(, 3)]."""
    place: NDArray[np.float64]
    """float64[2, 3]: the aligned crop, as a unit square, to picture pixels."""

    @property
    def side(self) -> float:
        """Height of the aligned crop in the picture, pixels."""
        return float(np.sqrt(abs(np.linalg.det(self.place[:, :2]))))


Change = Callable[[Subject, np.random.Generator], Picture]


def subject(picture: Picture, view: View, cropper: Cropper) -> Subject:
    """Where the face lies by its landmarks, or by the corpus's fixed crop where none are found."""
    found = cropper.landmarks(picture, view.spread)
    if found.presence >= PRESENCE:
        return Subject(
            picture, align.invert(align.similarity(align.five_points(found.points), align.template(1)))
        )
    height, width = picture.shape[:2]
    side = view.fixed * min(height, width)
    return Subject(picture, np.array([[side, 0, (width - side) / 2], [0, side, (height - side) / 2]]))


def at_height(face: Subject, height: float) -> Picture:
    """The picture reduced or enlarged so that the aligned crop measures ``height`` pixels in it."""
    cv2: Any = need("cv2", "live")
    scale = height / face.side
    size = [max(8, round(n * scale)) for n in face.picture.shape[1::-1]]
    return cv2.resize(face.picture, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)


def to_height(height: float) -> Change:
    """``at_height`` as a change."""
    return lambda face, rng: at_height(face, height)


def blur(share: float) -> Change:
    """Gaussian, its deviation a share of the crop's height."""

    def change(face: Subject, rng: np.random.Generator) -> Picture:
        cv2: Any = need("cv2", "live")
        return cv2.GaussianBlur(face.picture, (0, 0), share * face.side)

    return change


def dark(share: float, noise: float) -> Change:
    """A share of the light is left; the sensor's noise, in grey levels, stays."""

    def change(face: Subject, rng: np.random.Generator) -> Picture:
        dim = face.picture * share + rng.normal(0, noise, face.picture.shape)
        return np.clip(np.round(dim), 0, 255).astype(np.uint8)

    return change


def cover(top: float, bottom: float, left: float, right: float) -> Change:
    """A grey bar over a part of the aligned crop, in shares of its side."""
    corners = np.array([[left, top], [right, top], [right, bottom], [left, bottom]])

    def change(face: Subject, rng: np.random.Generator) -> Picture:
        cv2: Any = need("cv2", "live")
        covered = face.picture.copy()
        corner = np.round(align.move(face.place, corners)).astype(np.int32)
        cv2.fillPoly(covered, [corner], (int(face.picture.mean()),) * 3)
        return covered

    return change


def tilt(degrees: float) -> Change:
    """Rotation in the picture's plane, to either side."""

    def change(face: Subject, rng: np.random.Generator) -> Picture:
        cv2: Any = need("cv2", "live")
        height, width = face.picture.shape[:2]
        matrix = cv2.getRotationMatrix2D((width / 2, height / 2), degrees * rng.choice([-1, 1]), 1.0)
        return cv2.warpAffine(face.picture, matrix, (width, height), borderMode=cv2.BORDER_REPLICATE)

    return change


def jpeg(quality: int) -> Change:
    def change(face: Subject, rng: np.random.Generator) -> Picture:
        cv2: Any = need("cv2", "live")
        _, packed = cv2.imencode(".jpg", face.picture, [cv2.IMWRITE_JPEG_QUALITY, quality])
        return cv2.imdecode(packed, cv2.IMREAD_UNCHANGED)

    return change


def light(blue: float, green: float, red: float) -> Change:
    """Coloured light: each channel times its factor; a grey picture takes on the colour."""

    def change(face: Subject, rng: np.random.Generator) -> Picture:
        picture = face.picture if face.picture.ndim == 3 else np.repeat(face.picture[..., None], 3, axis=2)
        return np.clip(np.round(picture * np.array([blue, green, red])), 0, 255).astype(np.uint8)

    return change


CHANGES: Mapping[str, Change] = {
    "as it is": lambda face, rng: face.picture,
    "blur, sigma 3 % of the face": blur(0.03),
    "blur, sigma 6 % of the face": blur(0.06),
    "a quarter of the light, noise 3": dark(0.25, 3),
    "a tenth of the light, noise 3": dark(0.1, 3),
    "mouth covered": cover(0.66, 0.93, 0.15, 0.85),
    "eyes covered": cover(0.26, 0.47, 0.05, 0.95),
    "head tilted 20 degrees": tilt(20),
    "head tilted 40 degrees": tilt(40),
    "JPEG quality 20": jpeg(20),
    "warm light (red x 1.3, blue x 0.5)": light(0.5, 0.9, 1.3),
    "screen light (blue x 1.4, red x 0.4)": light(1.4, 0.9, 0.4),
}
