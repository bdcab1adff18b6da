"""Measure a face bundle on pictures of faces that it has never seen; behind `train.evaluate --bundle face`."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecmf.branches.face.quality import turn
from ecmf.bundle import Bundle, load_bundle
from ecmf.engines.base import Engine
from ecmf.engines.cache import cache_dir
from ecmf.engines.choose import open_engine
from ecmf.labels import EKMAN, FERPLUS, fold
from train import corpora, face_crops
from train.datasets import ferplus, muxspace
from train.face_changes import (
    CHANGES,
    HEIGHTS,
    Change,
    Picture,
    Subject,
    subject,
    to_height,
)
from train.face_changes import VERSION as CHANGES_VERSION
from train.scores import calibration_error, recalls, softmax

_HAPPINESS, _NEUTRAL = FERPLUS.index("happiness"), FERPLUS.index("neutral")

TURNS = (0, 10, 20, 30, 90)
"""Degrees of head turn at which the table is divided."""


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
    fer_path, mux_path = (corpora.find(data, "face", names) for names in (corpora.FERPLUS, corpora.MUXSPACE))
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
    rows_mux, truth_mux = rows_mux[found], mux.label[rows_mux][found]
    probs_mux = model.probs(crops_mux.rows(np.flatnonzero(found)))
    result["muxspace_test"] = happy_or_neutral(probs_mux, truth_mux)
    result["muxspace_test"]["left_out_no_face_found"] = int((~found).sum())
    tell("heads turned away")
    turned = turns((fer.pictures[row] for row in rows), face_crops.FER_VIEW, cropper)
    turned_mux = turns((mux.picture(int(row)) for row in rows_mux), face_crops.PHOTO_VIEW, cropper)
    result["head_turn_degrees"] = {}
    for low, high in itertools.pairwise(TURNS):
        part = crops.aligned & (turned >= low) & (turned < high)
        part_mux = (turned_mux >= low) & (turned_mux < high)
        there = happy_or_neutral(probs_mux[part_mux], truth_mux[part_mux])
        result["head_turn_degrees"][f"{low} to {high}"] = {
            "ferplus_n": int(part.sum()),
            "ferplus_accuracy": float((probs.argmax(axis=1) == truth)[part].mean()),
            "muxspace_n": there["n"],
            "muxspace_happy_or_neutral": there["balanced_accuracy"],
        }
    rng = np.random.default_rng(0)
    two = rows_mux[np.isin(truth_mux, (_HAPPINESS, _NEUTRAL))]
    two = np.sort(rng.choice(two, min(sample, len(two)), replace=False))
    some = np.sort(rng.choice(rows, min(sample, len(rows)), replace=False))
    of_fer = _Sample(fer_path, face_crops.FER_VIEW, cache, cropper, lambda: [fer.pictures[r] for r in some])
    of_mux = _Sample(
        mux_path, face_crops.PHOTO_VIEW, cache, cropper, lambda: [mux.picture(int(r)) for r in two]
    )
    result["robustness"] = {}
    for name, change in CHANGES.items():
        tell(f"robustness: {name}")
        changed = of_fer.changed(f"{name}, {sample}", change, model.size)
        right = model.probs(changed).argmax(axis=1) == fer.majority[some]
        result["robustness"][name] = {
            "ferplus_n": len(some),
            "ferplus_accuracy": float(right.mean()),
            "ferplus_landmarks_found": float(changed.aligned.mean()),
            **_mux_row(model, of_mux.changed(f"{name}, {sample}", change, model.size), mux.label[two]),
        }
    result["face_height_px"] = {}
    for height in HEIGHTS:
        tell(f"faces of {height} pixels")
        changed = of_mux.changed(f"{height} px, {sample}", to_height(height), model.size)
        result["face_height_px"][str(height)] = _mux_row(model, changed, mux.label[two])
    return result


class _Sample:
    """Some pictures of a corpus, and their crops after a change, which ``cache`` keeps."""

    def __init__(
        self,
        source: Path,
        view: face_crops.View,
        cache: Path,
        cropper: face_crops.Cropper,
        pictures: Callable[[], list[Picture]],
    ) -> None:
        self._source, self._view, self._cache, self._cropper = source, view, cache, cropper
        self._pictures = pictures

    @cached_property
    def _subjects(self) -> list[Subject]:
        return [subject(picture, self._view, self._cropper) for picture in self._pictures()]

    def changed(self, what: str, change: Change, size: int) -> face_crops.Crops:
        """``what`` names change and sample for the cache."""

        def make() -> face_crops.Crops:
            pictures = [change(face, np.random.default_rng(n)) for n, face in enumerate(self._subjects)]
            return face_crops.extract(pictures, len(pictures), size, self._view, self._cropper)

        return face_crops.cached(
            self._cache, self._source, size, self._view, make, f"{CHANGES_VERSION}: {what}"
        )


def turns(
    pictures: Iterable[Picture], view: face_crops.View, cropper: face_crops.Cropper
) -> NDArray[np.float64]:
    """float64[n]: degrees by which each head is turned or tilted away from the camera."""
    return np.array([turn(cropper.landmarks(picture, view.spread)) for picture in pictures])


def _mux_row(model: FaceModel, crops: face_crops.Crops, truth: Any) -> dict[str, Any]:
    row = happy_or_neutral(model.probs(crops), truth)
    return {
        "muxspace_n": row["n"],
        "muxspace_happy_or_neutral": row["balanced_accuracy"],
        "muxspace_landmarks_found": float(crops.aligned.mean()),
    }
