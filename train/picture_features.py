"""What a face picture looks like to networks that never saw an emotion label: ImageNet textures and blendshapes.

For label refinement, where features trained on better labels of the same pictures are out of bounds.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecmf.errors import need
from ecmf.weights import imported
from train.atomic import whole

VERSION = 1
SIDE = 112
"""Crops are shown at this size, half of what EfficientNet-lite0 was trained on."""
STAGES = (("_blocks.7.sum", 3), ("_blocks.10.sum", 3), ("_blocks.14.sum", 2))
"""Inner layers, and into how many cells a side each is averaged: where in the face something is, is kept coarsely."""
BATCH = 32


class Textures:
    """EfficientNet-lite0's inner layers on aligned grey crops."""

    def __init__(self, *, offline: bool = False) -> None:
        onnx, openvino = need("onnx", "live"), need("openvino", "live")
        bundle = imported("scene", offline=offline)
        self.sha256 = bundle.sha256
        self._mean = float(bundle.manifest.preprocessing["mean"])
        self._scale = float(bundle.manifest.preprocessing["scale"])
        model = onnx.load(bundle.model)
        size = model.graph.input[0].type.tensor_type.shape.dim
        size[2].dim_value = size[3].dim_value = SIDE
        del model.graph.value_info[:], model.graph.output[:]
        for name, _ in STAGES:
            model.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
        core = openvino.Core()
        settings = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"}
        self._run: Any = core.compile_model(core.read_model(model.SerializeToString(), b""), "CPU", settings)

    def of(self, faces: Sequence[NDArray[np.uint8]] | NDArray[np.uint8]) -> NDArray[np.float16]:
        """float16[n, 2496] of up to BATCH crops uint8[n, side, side]."""
        cv2 = need("cv2", "live")
        shown = np.stack([cv2.resize(face, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR) for face in faces])
        light = shown.astype(np.float32)
        spread = light.std(axis=(1, 2), keepdims=True) + 8
        even = np.clip((light - light.mean(axis=(1, 2), keepdims=True)) / spread * 56 + 127, 0, 255)
        picture = np.repeat(((even / 255 - self._mean) / self._scale)[:, None], 3, axis=1)
        found = self._run(picture.astype(np.float32))
        return np.concatenate(
            [_cells(found[index], cells) for index, (_, cells) in enumerate(STAGES)], axis=1
        ).astype(np.float16)


def _cells(maps: NDArray[np.float32], cells: int) -> NDArray[np.float32]:
    """float32[n, c, h, w] averaged in cells x cells parts, flattened."""
    ends = np.linspace(0, maps.shape[2], cells + 1).round().astype(int)
    parts = [
        maps[:, :, ends[i] : ends[i + 1], ends[j] : ends[j + 1]].mean(axis=(2, 3))
        for i in range(cells)
        for j in range(cells)
    ]
    return np.stack(parts, axis=1).reshape(len(maps), -1)


def textures(
    faces: NDArray[np.uint8], cache: Path, name: str, *, offline: bool = False
) -> NDArray[np.float16]:
    """Textures of all crops uint8[n, side, side], kept in ``cache``."""
    from train.progress import tracked

    network = Textures(offline=offline)
    digest = hashlib.sha256(repr((VERSION, SIDE, STAGES, network.sha256, faces.shape)).encode())
    digest.update(np.ascontiguousarray(faces).data)
    path = cache / f"textures-{name}-{digest.hexdigest()[:16]}.npy"
    if path.is_file():
        return np.load(path, mmap_mode="r")
    starts = range(0, len(faces), BATCH)
    found = [network.of(faces[start : start + BATCH]) for start in tracked(starts, f"textures, {name}")]
    with whole(path) as file:
        np.save(file, np.concatenate(found))
    return np.load(path, mmap_mode="r")


def reduced(
    values: NDArray[np.floating], fit_rows: NDArray[np.int64], kept: int
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Main directions of some rows: mean float32[d], scale float32[d], directions float32[d, kept]."""
    from sklearn.decomposition import PCA

    rows = values[np.sort(fit_rows)].astype(np.float32)
    mean, scale = rows.mean(0), 1 / (rows.std(0) + 1e-3)
    found = PCA(kept, svd_solver="randomized", random_state=0, iterated_power=2).fit((rows - mean) * scale)
    # Half whitened: the first directions are light and pose, the small ones hold the expression.
    turn = found.components_.T / found.explained_variance_[None] ** 0.25
    return mean, scale, turn.astype(np.float32)


def project(
    values: NDArray[np.floating], how: tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]
) -> NDArray[np.float32]:
    """float32[n, kept], a part at a time: the textures may be larger than memory likes."""
    mean, scale, turn = how
    parts = [
        ((values[i : i + 4096].astype(np.float32) - mean) * scale) @ turn for i in range(0, len(values), 4096)
    ]
    return np.concatenate(parts)
