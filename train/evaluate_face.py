"""Measure a face bundle on pictures of faces that it has never seen; behind `train.evaluate --bundle face`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecmf.bundle import Bundle, load_bundle
from ecmf.engines.base import Engine
from ecmf.engines.cache import cache_dir
from ecmf.engines.choose import open_engine
from ecmf.labels import EKMAN, FERPLUS, fold
from train import face_crops
from train.calibrate_face import calibration_error, recalls, softmax
from train.datasets import ferplus, muxspace
from train.face_changes import CHANGES, HEIGHTS, Picture, at_height, subject

_HAPPINESS, _NEUTRAL = FERPLUS.index("happiness"), FERPLUS.index("neutral")


class FaceModel:
    """A face bundle behind an engine, for many crops at once."""

    def __init__(self, bundle: Bundle, *, threads: int = 1) -> None:
        self.size = int(bundle.manifest.inputs[0].shape[-1])
        self.labels = bundle.manifest.labels
        self._temperature = float(bundle.manifest.extra["temperature"])
        self._engine: Engine = open_engine(bundle, threads=threads)

    def probs(self, crops: face_crops.Crops, batch: int = 64) -> NDArray[np.float64]:
        """float64[n, labels], calibrated."""
        out = []
        for start in range(0, len(crops), batch):
            face = crops.face[start : start + batch, None].astype(np.float32)
            shapes = crops.blendshapes[start : start + batch]
            logits = self._engine.run({"face": face, "blendshapes": shapes})["logits"]
            out.append(softmax(logits / self._temperature))
        return np.concatenate(out)


def wilson(right: int, count: int, z: float = 1.96) -> tuple[float, float]:
    """95 % interval of a share (Wilson 1927)."""
    p, n = right / count, count
    middle, half = p + z * z / (2 * n), z * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return float((middle - half) / (1 + z * z / n)), float((middle + half) / (1 + z * z / n))


def bootstrap(
    score: Callable[[NDArray[np.int64]], float], count: int, draws: int = 1000
) -> tuple[float, float]:
    """95 % interval of ``score(rows)`` over redrawn rows, seed 0."""
    rng = np.random.default_rng(0)
    values = [score(rng.integers(0, count, count)) for _ in range(draws)]
    low, high = np.nanpercentile(values, [2.5, 97.5])
    return float(low), float(high)


def eight(probs: NDArray[np.float64], truth: NDArray[np.int64]) -> dict[str, Any]:
    """Accuracy, calibration and recall per label over FER+'s eight outputs."""
    predicted = probs.argmax(axis=1)
    right = int((predicted == truth).sum())
    return {
        "n": len(truth),
        "accuracy": right / len(truth),
        "accuracy_95": wilson(right, len(truth)),
        "ece": calibration_error(probs, truth),
        "recall": dict(zip(FERPLUS, recalls(predicted, truth, len(FERPLUS)).tolist(), strict=True)),
        "count": dict(zip(FERPLUS, np.bincount(truth, minlength=len(FERPLUS)).tolist(), strict=True)),
        "confusion": confusion(predicted, truth, len(FERPLUS)).tolist(),
    }


def seven(probs: NDArray[np.float64], truth: NDArray[np.int64]) -> dict[str, Any]:
    """The same over the seven default labels; pictures of contempt are left out, its probability folded away."""
    keep = truth != FERPLUS.index("contempt")
    folded = fold(probs[keep], FERPLUS)
    index = np.array([EKMAN.index(label) if label in EKMAN else -1 for label in FERPLUS])
    answer, predicted = index[truth[keep]], folded.argmax(axis=1)
    right = int((predicted == answer).sum())

    def uar(rows: NDArray[np.int64]) -> float:
        return float(np.nanmean(recalls(predicted[rows], answer[rows], len(EKMAN))))

    return {
        "n": len(answer),
        "accuracy": right / len(answer),
        "accuracy_95": wilson(right, len(answer)),
        "uar": uar(np.arange(len(answer))),
        "uar_95": bootstrap(uar, len(answer)),
        "ece": calibration_error(folded, answer),
        "recall": dict(zip(EKMAN, recalls(predicted, answer, len(EKMAN)).tolist(), strict=True)),
        "confusion": confusion(predicted, answer, len(EKMAN)).tolist(),
    }


def confusion(predicted: NDArray[np.int64], truth: NDArray[np.int64], labels: int) -> NDArray[np.int64]:
    """int64[labels, labels]: rows are the truth, columns the answer."""
    table = np.zeros((labels, labels), np.int64)
    np.add.at(table, (truth, predicted), 1)
    return table


def happy_or_neutral(probs: NDArray[np.float64], truth: NDArray[np.int64]) -> dict[str, Any]:
    """Balanced accuracy of happiness against neutral: which of the two has the higher probability."""
    keep = (truth == _HAPPINESS) | (truth == _NEUTRAL)
    happy, says = truth[keep] == _HAPPINESS, (probs[:, _HAPPINESS] > probs[:, _NEUTRAL])[keep]

    def balanced(rows: NDArray[np.int64]) -> float:
        return float(np.mean([says[rows][happy[rows]].mean(), 1 - says[rows][~happy[rows]].mean()]))

    any_label = probs.argmax(axis=1)[keep] == truth[keep]
    return {
        "n": int(keep.sum()),
        "balanced_accuracy": balanced(np.arange(len(happy))),
        "balanced_accuracy_95": bootstrap(balanced, len(happy)),
        "accuracy_over_all_labels": float(any_label.mean()),
    }


def evaluate(
    bundle: Path,
    data: Path,
    *,
    cache: Path | None = None,
    sample: int = 400,
    cropper: face_crops.Cropper | None = None,
    tell: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """All figures of a face bundle, as JSON-ready numbers.

    ``data``: holds face/ferplus.parquet and face/muxspace.parquet (or these corpora in their official layout).
    ``cache``: keeps the cut-out faces, by default below the user's cache folder.
    ``sample``: pictures of each corpus for a row of the robustness table. ``tell`` receives what is being done.
    """
    cache = cache or cache_dir() / "features"
    loaded = load_bundle(bundle)
    model = FaceModel(loaded)
    cropper = cropper or face_crops.Cropper()
    folder = face_crops.face_folder(data)
    fer_path, mux_path = face_crops.source(folder, "ferplus"), face_crops.source(folder, "muxspace")
    fer, mux = ferplus.read(fer_path), muxspace.read(mux_path)
    tell("FER+ test")
    rows = fer.rows("test")
    all_crops = face_crops.corpus(cache, fer_path, model.size, lambda: cropper)
    crops = all_crops.rows(rows)
    probs, truth = model.probs(crops), fer.majority[rows]
    everything = np.flatnonzero((fer.split == "test") & fer.face & ~fer.tie)
    with_twins = all_crops.rows(everything)
    result: dict[str, Any] = {
        "bundle": loaded.id,
        "ferplus_test_8": eight(probs, truth),
        "ferplus_test_7": seven(probs, truth),
        "ferplus_test_8_with_leaked_twins": {
            "n": len(everything),
            "accuracy": float((model.probs(with_twins).argmax(axis=1) == fer.majority[everything]).mean()),
        },
        "ferplus_test_8_by_alignment": {
            name: {"n": int(part.sum()), "accuracy": float((probs.argmax(1) == truth)[part].mean())}
            for name, part in (("landmarks", crops.aligned), ("fixed crop", ~crops.aligned))
        },
    }
    tell("muxspace, unseen people")
    rows_mux = np.flatnonzero(mux.split == "test")
    crops_mux = face_crops.corpus(cache, mux_path, model.size, lambda: cropper).rows(rows_mux)
    found = crops_mux.aligned
    result["muxspace_test"] = happy_or_neutral(
        model.probs(crops_mux.rows(np.flatnonzero(found))), mux.label[rows_mux][found]
    )
    result["muxspace_test"]["left_out_no_face_found"] = int((~found).sum())
    rng = np.random.default_rng(0)
    two = rows_mux[np.isin(mux.label[rows_mux], (_HAPPINESS, _NEUTRAL)) & found]
    two = np.sort(rng.choice(two, min(sample, len(two)), replace=False))
    some = np.sort(rng.choice(rows, min(sample, len(rows)), replace=False))
    faces = [subject(fer.pictures[row], face_crops.FER_VIEW, cropper) for row in some]
    photos = [subject(mux.picture(int(row)), face_crops.PHOTO_VIEW, cropper) for row in two]
    result["robustness"] = {}
    for name, change in CHANGES.items():
        tell(f"robustness: {name}")
        changed = [change(face, np.random.default_rng(seed)) for seed, face in enumerate(faces)]
        row = _fer_row(model, cropper, changed, fer.majority[some])
        changed = [change(face, np.random.default_rng(seed)) for seed, face in enumerate(photos)]
        result["robustness"][name] = {**row, **_mux_row(model, cropper, changed, mux.label[two])}
    result["face_height_px"] = {}
    for height in HEIGHTS:
        tell(f"faces of {height} pixels")
        changed = [at_height(face, height) for face in photos]
        result["face_height_px"][str(height)] = _mux_row(model, cropper, changed, mux.label[two])
    return result


def _fer_row(
    model: FaceModel, cropper: face_crops.Cropper, pictures: list[Picture], truth: Any
) -> dict[str, Any]:
    crops = face_crops.extract(pictures, len(pictures), model.size, face_crops.FER_VIEW, cropper)
    return {
        "ferplus_n": len(truth),
        "ferplus_accuracy": float((model.probs(crops).argmax(axis=1) == truth).mean()),
        "ferplus_landmarks_found": float(crops.aligned.mean()),
    }


def _mux_row(
    model: FaceModel, cropper: face_crops.Cropper, pictures: list[Picture], truth: Any
) -> dict[str, Any]:
    crops = face_crops.extract(pictures, len(pictures), model.size, face_crops.PHOTO_VIEW, cropper)
    row = happy_or_neutral(model.probs(crops), truth)
    return {
        "muxspace_n": row["n"],
        "muxspace_happy_or_neutral": row["balanced_accuracy"],
        "muxspace_landmarks_found": float(crops.aligned.mean()),
    }
