"""Where a face lies in a picture, made the same for every face: a five-point similarity warp.

Coordinates are continuous pixels: the top-left pixel covers [0, 1) x [0, 1), its centre is (0.5, 0.5).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecmf.errors import UsageError, need

ARCFACE = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]],
    np.float64,
)
"""float64[5, 2]: ArcFace's five-point template in its 112 x 112 crop (Deng et al. 2019, insightface):
left eye, right eye, nose tip, left and right mouth corner, left and right as seen in the picture."""

ZOOM = 1.05
"""Size of the face in the crop relative to ArcFace's, whose crop cuts open mouths' chins."""
CENTRE = (0.5, 0.56)
"""Where the middle between the eye line and the mouth line falls, as a share of the crop's width and height.

On 400 pictures of FER+ train the chin then lies at 0.88, 0.94, 0.99 of the height (10, 50, 90 % quantiles),
the brows at 0.20 (median). FER's own framing, zoom 1.13 and centre 0.58, would cut one chin in three.
"""

_EYES = ((33, 133), (362, 263))
_NOSE_TIP = 1
_MOUTH_CORNERS = (61, 291)


def template(size: int) -> NDArray[np.float64]:
    """float64[5, 2]: where the five points lie in a crop of ``size`` pixels."""
    middle = np.array([ARCFACE[:, 0].mean(), (ARCFACE[:2, 1].mean() + ARCFACE[3:, 1].mean()) / 2])
    return ((ARCFACE - middle) * (ZOOM / 112) + np.array(CENTRE)) * size


def five_points(landmarks: NDArray[np.floating]) -> NDArray[np.float64]:
    """float64[5, 2] in ARCFACE's order from MediaPipe's ``float[478, >=2]`` (or 468) landmarks.

    The eyes are the middles of their corners, which do not move with the gaze as the irises do.
    """
    xy = np.asarray(landmarks, np.float64)[:, :2]
    eyes = [xy[list(corners)].mean(axis=0) for corners in _EYES]
    return np.stack([*eyes, xy[_NOSE_TIP], xy[_MOUTH_CORNERS[0]], xy[_MOUTH_CORNERS[1]]])


def similarity(source: NDArray[np.floating], target: NDArray[np.floating]) -> NDArray[np.float64]:
    """float64[2, 3]: the rotation, scale and shift that bring ``source`` nearest to ``target`` (both [n, 2]).

    Least squares in closed form (Umeyama 1991, for the plane and without mirroring): with points as complex
    numbers about their means, the factor is <source, target> / <source, source>.
    Raises UsageError when the points of ``source`` coincide or are not finite.
    """
    z = np.asarray(source, np.float64) @ np.array([1, 1j])
    w = np.asarray(target, np.float64) @ np.array([1, 1j])
    centred = z - z.mean()
    spread = float(np.vdot(centred, centred).real)
    if not (np.isfinite(spread) and np.isfinite(w).all()) or spread < 1e-12:
        raise UsageError("face points coincide or are not finite; a face needs at least two different points")
    a = np.vdot(centred, w - w.mean()) / spread
    shift = w.mean() - a * z.mean()
    return np.array([[a.real, -a.imag, shift.real], [a.imag, a.real, shift.imag]])


def invert(matrix: NDArray[np.floating]) -> NDArray[np.float64]:
    """The inverse of an affine ``float[2, 3]``."""
    linear = np.linalg.inv(np.asarray(matrix, np.float64)[:, :2])
    return np.hstack([linear, -linear @ matrix[:, 2:]])


def move(matrix: NDArray[np.floating], points: NDArray[np.floating]) -> NDArray[np.float64]:
    """Apply an affine ``float[2, 3]`` to ``float[n, 2]`` points."""
    return np.asarray(points, np.float64) @ np.asarray(matrix, np.float64)[:, :2].T + matrix[:, 2]


def warp(
    frame: NDArray[np.uint8], matrix: NDArray[np.floating], size: int, *, black: bool = False
) -> NDArray[np.uint8]:
    """``uint8[size, size(, 3)]`` out of ``uint8[H, W(, 3)]`` through ``matrix`` (frame to crop coordinates).

    Beyond the frame its edge pixels repeat, or it is ``black``. Where the crop shrinks the picture by two or more,
    the source is averaged over blocks first: bilinear sampling alone would skip pixels and flicker.
    """
    cv2: Any = need("cv2", "live")
    matrix = np.asarray(matrix, np.float64)
    shrink = int(1 / np.sqrt(abs(np.linalg.det(matrix[:, :2]))))
    if shrink >= 2:
        corners = move(invert(matrix), np.array([[0, 0], [size, 0], [0, size], [size, size]]))
        x0, y0 = (max(int(v) - shrink, 0) for v in np.floor(corners.min(axis=0)))
        x1, y1 = (int(v) + shrink for v in np.ceil(corners.max(axis=0)))
        part = frame[y0:y1, x0:x1]
        height, width = (max(n // shrink, 1) for n in part.shape[:2])
        if part.size:
            # Whole blocks only, so that every block has the same weight; the rest lies beyond the crop.
            part = part[: min(height * shrink, part.shape[0]), : min(width * shrink, part.shape[1])]
            scale = np.array([width / part.shape[1], height / part.shape[0]])
            frame = cv2.resize(part, (width, height), interpolation=cv2.INTER_AREA)
            linear = matrix[:, :2] / scale
            matrix = np.hstack([linear, matrix[:, 2:] + matrix[:, :2] @ np.array([[x0], [y0]])])
    # warpAffine counts from pixel centres.
    centred = matrix.copy()
    centred[:, 2] += matrix[:, :2] @ np.array([0.5, 0.5]) - 0.5
    return cv2.warpAffine(
        np.ascontiguousarray(frame),
        centred,
        (size, size),
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_CONSTANT if black else cv2.BORDER_REPLICATE,
    )


def grey(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """uint8[H, W] luma of a BGR picture (ITU-R BT.601), or the grey picture itself."""
    if picture.ndim == 2:
        return picture
    cv2: Any = need("cv2", "live")
    return cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY)


def crop(frame: NDArray[np.uint8], points: NDArray[np.floating], size: int) -> NDArray[np.uint8]:
    """The aligned grey face, ``uint8[size, size]``, forehead to chin.

    ``frame``: uint8[H, W, 3] BGR or uint8[H, W] grey; ``points``: float[5, 2], ARCFACE's order, frame pixels.
    Raises UsageError for points that coincide or are not finite.
    """
    return grey(warp(frame, similarity(points, template(size)), size))
