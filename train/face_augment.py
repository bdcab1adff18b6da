"""Augmentation that imitates webcams: pose, light, small and blurred faces, noise, JPEG, covered parts."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from ecmf.branches.face.blendshapes import NAMES
from ecmf.errors import need

MIRRORED = np.array(
    [
        NAMES.index(
            name.replace("Left", "Right")
            if "Left" in name
            else name.replace("Right", "Left")
            if "Right" in name
            else name
        )
        for name in NAMES
    ]
)
"""int64[52]: where each blendshape's value comes from when the picture is mirrored."""


@dataclass(frozen=True)
class Augmentation:
    """Strengths; a share is the probability that one picture gets the effect."""

    rotation_deg: float = 10.0
    """Uniform in plus and minus this."""
    scale: float = 0.1
    """Relative size, uniform in 1 plus and minus this."""
    shift: float = 0.05
    """Of the crop's side, each axis."""
    gamma: float = 0.4
    """Exponent e**u with u uniform in plus and minus this."""
    shadow: float = 0.25
    """Largest darkening across the crop, share of the light, in a random direction."""
    small_share: float = 0.25
    """Reduced to between ``small_px`` and the full size, then enlarged."""
    small_px: int = 26
    sharpen_share: float = 0.1
    noise_share: float = 0.2
    noise: float = 0.15
    """Largest deviation of the noise relative to the picture's own."""
    jpeg_share: float = 0.08
    erase_share: float = 0.2
    """A rectangle, anywhere."""
    cover_share: float = 0.1
    """An ellipse over the mouth or the eyes, as a hand or a cup would."""
    shapes_missing: float = 0.3
    """Blendshapes withheld altogether, as when no landmarks are found."""
    shapes_noise: float = 0.04


def calmer(how: Augmentation, factor: float) -> Augmentation:
    """Every strength and share times ``factor``; blendshapes are withheld as often as before."""
    kept = {"small_px": how.small_px, "shapes_missing": how.shapes_missing}
    return Augmentation(**{f.name: kept.get(f.name, factor * getattr(how, f.name)) for f in fields(how)})


def augment(
    face: NDArray[np.uint8],
    shapes: NDArray[np.float32],
    size: int,
    how: Augmentation,
    rng: np.random.Generator,
    torch_rng: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """``uint8[b, s, s]`` and ``float32[b, 52]`` -> float32[b, 1, size, size] (0 to 255) and float32[b, 52]."""
    x, shapes = move(face, shapes, size, how, rng)
    known = (shapes.any(axis=1) & (rng.random(len(face)) >= how.shapes_missing)).astype(np.float32)
    noisy = shapes + rng.normal(0, how.shapes_noise, shapes.shape).astype(np.float32)
    x = _light(x, how, rng)
    x = _small(x, how, rng)
    x = _sharpen(x, how, rng)
    x = _noise(x, how, rng, torch_rng)
    x = _jpeg(x.clamp_(0, 255), how, rng)
    _cover(x, how, rng)
    return x, torch.from_numpy(np.clip(noisy, 0, 1) * known[:, None])


def move(
    face: NDArray[np.uint8],
    shapes: NDArray[np.float32],
    size: int,
    how: Augmentation,
    rng: np.random.Generator,
) -> tuple[Tensor, NDArray[np.float32]]:
    """Half of the pictures mirrored, all turned, scaled and shifted: what leaves the expression as it is.

    ``uint8[b, s, s]`` and ``float32[b, 52]`` -> float32[b, 1, size, size] (0 to 255) and float32[b, 52].
    """
    mirrored = rng.random(len(face)) < 0.5
    face = np.where(mirrored[:, None, None], face[:, :, ::-1], face)
    shapes = np.where(mirrored[:, None], shapes[:, MIRRORED], shapes)
    return _pose(torch.from_numpy(np.ascontiguousarray(face, np.float32))[:, None], size, how, rng), shapes


def _uniform(rng: np.random.Generator, bound: float, count: int) -> Tensor:
    return torch.from_numpy(rng.uniform(-bound, bound, count).astype(np.float32))


def _pose(x: Tensor, size: int, how: Augmentation, rng: np.random.Generator) -> Tensor:
    count = len(x)
    angle = _uniform(rng, np.deg2rad(how.rotation_deg), count)
    scale = 1 / (1 + _uniform(rng, how.scale, count))
    cos, sin = torch.cos(angle) * scale, torch.sin(angle) * scale
    across, down = 2 * _uniform(rng, how.shift, count), 2 * _uniform(rng, how.shift, count)
    matrix = torch.stack([torch.stack([cos, -sin, across], 1), torch.stack([sin, cos, down], 1)], 1)
    grid = F.affine_grid(matrix, [count, 1, size, size], align_corners=False)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False)


def _light(x: Tensor, how: Augmentation, rng: np.random.Generator) -> Tensor:
    count, size = len(x), x.shape[-1]
    gamma = torch.exp(_uniform(rng, how.gamma, count))[:, None, None, None]
    gain = torch.exp(_uniform(rng, 0.25, count))[:, None, None, None]  # beyond 1: the bright parts saturate
    x = 255 * ((x / 255).clamp(0, 1) ** gamma * gain).clamp(0, 1)
    direction = _uniform(rng, np.pi, count)
    depth = torch.from_numpy(rng.uniform(0, how.shadow, count).astype(np.float32))
    axis = torch.linspace(-0.5, 0.5, size)
    slope = torch.cos(direction)[:, None, None] * axis + torch.sin(direction)[:, None, None] * axis[:, None]
    return x * (1 - depth[:, None, None] * (0.5 + slope))[:, None]


def _small(x: Tensor, how: Augmentation, rng: np.random.Generator) -> Tensor:
    size = x.shape[-1]
    chosen = rng.permutation(len(x))[: round(how.small_share * len(x))]
    for part in np.array_split(chosen, 4):  # one reduced size for each quarter of them: few, large operations
        if len(part):
            small = int(rng.integers(how.small_px, size))
            reduced = F.interpolate(x[part], size=(small, small), mode="area")
            x[part] = F.interpolate(reduced, size=(size, size), mode="bilinear", align_corners=False)
    return x


def _sharpen(x: Tensor, how: Augmentation, rng: np.random.Generator) -> Tensor:
    chosen = np.flatnonzero(rng.random(len(x)) < how.sharpen_share)
    if len(chosen):
        picture = x[chosen]
        amount = torch.from_numpy(rng.uniform(0.3, 1.2, len(chosen)).astype(np.float32))[:, None, None, None]
        x[chosen] = picture + amount * (picture - F.avg_pool2d(picture, 3, 1, 1, count_include_pad=False))
    return x


def _noise(x: Tensor, how: Augmentation, rng: np.random.Generator, torch_rng: torch.Generator) -> Tensor:
    chosen = np.flatnonzero(rng.random(len(x)) < how.noise_share)
    if len(chosen):
        picture = x[chosen]
        share = torch.from_numpy(rng.uniform(0, how.noise, len(chosen)).astype(np.float32))[
            :, None, None, None
        ]
        spread = picture.std(dim=(1, 2, 3), keepdim=True)
        x[chosen] = picture + share * spread * torch.randn(picture.shape, generator=torch_rng)
    return x


def _jpeg(x: Tensor, how: Augmentation, rng: np.random.Generator) -> Tensor:
    cv2: Any = need("cv2", "live")
    for row in np.flatnonzero(rng.random(len(x)) < how.jpeg_share):
        quality = int(rng.integers(15, 70))
        picture = x[row, 0].to(torch.uint8).numpy()
        _, packed = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])
        x[row, 0] = torch.from_numpy(cv2.imdecode(packed, cv2.IMREAD_GRAYSCALE).astype(np.float32))
    return x


def _cover(x: Tensor, how: Augmentation, rng: np.random.Generator) -> None:
    size = x.shape[-1]
    rows, columns = np.mgrid[0:size, 0:size].astype(np.float32) / size
    for row in np.flatnonzero(rng.random(len(x)) < how.erase_share):
        height, width = (int(rng.uniform(0.12, 0.45) * size) for _ in range(2))
        top, left = int(rng.integers(0, size - height + 1)), int(rng.integers(0, size - width + 1))
        x[row, 0, top : top + height, left : left + width] = _filling(rng, (height, width))
    for row in np.flatnonzero(rng.random(len(x)) < how.cover_share):
        middle = rng.uniform(0.68, 0.9) if rng.random() < 0.7 else rng.uniform(0.32, 0.45)
        a, b = rng.uniform(0.15, 0.45), rng.uniform(0.08, 0.2)
        inside = ((columns - rng.uniform(0.35, 0.65)) / a) ** 2 + ((rows - middle) / b) ** 2 < 1
        filling = _filling(rng, (size, size))
        x[row, 0] = torch.where(torch.from_numpy(inside), filling, x[row, 0])


def _filling(rng: np.random.Generator, shape: tuple[int, int]) -> Tensor:
    level, grain = rng.uniform(20, 235), rng.uniform(0, 30)
    filling = rng.normal(level, grain, shape)
    return torch.from_numpy(np.clip(filling, 0, 255).astype(np.float32))
