"""An int8 twin of a bundle's graph, calibrated on real data, kept only if the task hardly suffers.

    python -m train.quantize --bundle face --data DATA
    python -m train.quantize --bundle scene --data DATA

``DATA/face`` holds ferplus.parquet (for face) or muxspace.parquet (for scene), or these corpora as their owners lay
them out. Calibrated on training pictures only, judged on FER+ valid or on muxspace's test people.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecmf.branches.scene import image_of
from ecmf.bundle import SHIPPED, Bundle, load_bundle, write_bundle
from ecmf.engines.base import Arrays
from ecmf.engines.cache import cache_dir
from ecmf.engines.graph import INT8
from ecmf.errors import EngineError, UsageError, need
from ecmf.weights import imported
from train import command, corpora, face_crops
from train.datasets import ferplus, muxspace

SAMPLES = 300
SEED = 1
DROP = 0.005
"""Half a point: what the task metric may lose."""
JUDGED = 1200
"""Photographs of muxspace that the scene's metric is fitted on, and as many that it is measured on."""


@dataclass(frozen=True)
class Task:
    """What a kind of bundle is calibrated and judged on."""

    calibration: Sequence[Arrays]
    metric: str
    score: Callable[[Path], float]
    """The metric of a graph, higher is better."""


class _Reader:
    """Calibration samples as onnxruntime's quantizer asks for them."""

    def __init__(self, samples: Sequence[Arrays]) -> None:
        self._rest: Iterator[Arrays] = iter(samples)

    def get_next(self) -> dict[str, NDArray[Any]] | None:
        """The next sample, None after the last."""
        sample = next(self._rest, None)
        return None if sample is None else dict(sample)


def to_int8(source: Path, target: Path, samples: Sequence[Arrays]) -> None:
    """Write a graph with int8 weights and activations between QuantizeLinear and DequantizeLinear nodes.

    Symmetric, weights per channel, biases left in float32: what TensorRT's parser takes. What is little work
    but most of the loss stays in float32: depthwise convolutions, the first convolution and the last layers (Gemm).
    Face network 1.0, FER+ valid: 0.7 points lost without depthwise, 0.3 without all three.
    """
    onnx = need("onnx", "live")
    model = single(onnx.load(source))
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    delicate = [
        node.name
        for index, node in enumerate(convolutions)
        if index == 0 or any(a.name == "group" and a.i > 1 for a in node.attribute)
    ]
    q = need("onnxruntime.quantization", "live")
    reader = type("Reader", (_Reader, q.CalibrationDataReader), {})(samples)
    q.quantize_static(
        model,
        target,
        reader,
        quant_format=q.QuantFormat.QDQ,
        activation_type=q.QuantType.QInt8,
        weight_type=q.QuantType.QInt8,
        per_channel=True,
        op_types_to_quantize=["Conv", "MatMul"],
        nodes_to_exclude=delicate,
        calibrate_method=q.CalibrationMethod.MinMax,
        extra_options={"ActivationSymmetric": True, "WeightSymmetric": True, "QuantizeBias": False},
    )


def single(model: Any) -> Any:
    """The ONNX model with float32 weights where it stores float16 and a cast: the quantizer looks for the former."""
    onnx = need("onnx", "live")
    graph = model.graph
    halves = {i.name: i for i in graph.initializer if i.data_type == onnx.TensorProto.FLOAT16}
    casts = [
        node
        for node in graph.node
        if node.op_type == "Cast"
        and node.input[0] in halves
        and node.attribute[0].i == onnx.TensorProto.FLOAT
    ]
    for cast in casts:
        values = onnx.numpy_helper.to_array(halves[cast.input[0]]).astype(np.float32)
        graph.initializer.append(onnx.numpy_helper.from_array(values, cast.output[0]))
        graph.node.remove(cast)
    read = {name for node in graph.node for name in node.input}
    kept = [i for i in graph.initializer if i.name in read]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    return model


def quantize(bundle: Bundle, task: Task, *, seed: int = SEED) -> tuple[Bundle, dict[str, Any]]:
    """The bundle with its int8 twin beside the graph, in the same folder, and what was measured.

    Raises EngineError, and leaves the bundle as it was, when the metric drops by more than DROP.
    """
    with tempfile.TemporaryDirectory() as scratch:
        twin = Path(scratch) / INT8
        to_int8(bundle.model, twin, task.calibration)
        before, after = task.score(bundle.model), task.score(twin)
        measured = {
            "metric": task.metric,
            "fp32": round(before, 5),
            "int8": round(after, 5),
            "calibration_samples": len(task.calibration),
            "seed": seed,
        }
        if before - after > DROP:
            raise EngineError(
                f"int8 of {bundle.id} is refused: {task.metric} falls from {before:.4f} to {after:.4f}, "
                f"more than {DROP}; the bundle stays as it is"
            )
        kept: dict[str, Path | bytes] = {
            name: Path(shutil.copy(bundle.folder / name, scratch))
            for name in bundle.manifest.files
            if name != INT8
        }
        metrics = {**bundle.manifest.metrics, "int8": measured}
        manifest = replace(bundle.manifest, metrics=metrics, files={})
        return write_bundle(bundle.folder, manifest, {**kept, INT8: twin}), measured


def session(path: Path) -> Any:
    """The graph in ONNX Runtime on one thread."""
    ort = need("onnxruntime", "live")
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def face_task(bundle: Bundle, data: Path, cache: Path, samples: int, seed: int) -> Task:
    """Calibrated on FER+ train, judged by accuracy over FER+'s eight labels on its valid split."""
    source = corpora.find(data, "face", corpora.FERPLUS)
    fer = ferplus.read(source)
    size = int(bundle.manifest.inputs[0].shape[-1])
    crops = face_crops.corpus(cache, source, size, face_crops.Cropper)
    chosen = np.sort(np.random.default_rng(seed).choice(fer.rows("train"), samples, replace=False))
    valid = fer.rows("valid")

    def inputs(row: int) -> Arrays:
        face = crops.face[row][None, None].astype(np.float32)
        return {"face": face, "blendshapes": crops.blendshapes[row][None]}

    def score(graph: Path) -> float:
        model = session(graph)
        answers = [model.run(["logits"], inputs(row))[0][0].argmax() for row in valid]
        return float(np.mean(np.array(answers) == fer.majority[valid]))

    return Task([inputs(row) for row in chosen], "FER+ valid accuracy, 8 labels", score)


def scene_task(bundle: Bundle, data: Path, cache: Path, samples: int, seed: int) -> Task:
    """Calibrated on photographs of muxspace's train people; judged by a linear probe for happy or neutral.

    The scene names no label of its own: a logistic regression on the embeddings of the plain graph, applied to the
    embeddings of either graph for other people, says whether the same can still be read from them.
    """
    cv2: Any = need("cv2", "live")
    linear = need("sklearn.linear_model", "train")
    mux = muxspace.read(corpora.find(data, "face", corpora.MUXSPACE))
    how = bundle.manifest.preprocessing
    rng = np.random.default_rng(seed)
    two = np.isin(mux.label, np.bincount(mux.label).argsort()[-2:])  # the two labels that most pictures have
    train, test = np.flatnonzero(two & (mux.split == "train")), np.flatnonzero(two & (mux.split == "test"))
    fitted, judged = (np.sort(rng.permutation(rows)[:JUDGED]) for rows in (train, test))
    chosen = np.sort(rng.choice(np.flatnonzero(mux.split == "train"), samples, replace=False))

    def inputs(row: int) -> Arrays:
        picture = mux.picture(int(row))
        if picture.ndim == 2:
            picture = cv2.cvtColor(picture, cv2.COLOR_GRAY2BGR)
        small = cv2.resize(picture, tuple(how["size"]), interpolation=cv2.INTER_AREA)
        return {"image": image_of(small, float(how["mean"]), float(how["scale"]))}

    def embeddings(graph: Path, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        model = session(graph)
        return np.stack([model.run(["embedding"], inputs(row))[0][0] for row in rows])

    probe = linear.LogisticRegression(max_iter=2000, C=0.01)
    probe.fit(embeddings(bundle.model, fitted), mux.label[fitted])

    def score(graph: Path) -> float:
        return float(probe.score(embeddings(graph, judged), mux.label[judged]))

    return Task([inputs(row) for row in chosen], "muxspace probe accuracy, two labels, other people", score)


TASKS = {"face": face_task, "scene": scene_task}


def main() -> int:
    parser = command.parser("quantize", __doc__)
    parser.add_argument("--bundle", required=True, choices=list(TASKS), help="which graph gets a twin")
    parser.add_argument(
        "--folder", type=Path, metavar="DIR", help="the bundle's, if it is not the one ecmf-live uses"
    )
    parser.add_argument(
        "--data", type=Path, required=True, metavar="DIR", help="with face/ferplus and face/muxspace"
    )
    parser.add_argument(
        "--samples",
        type=int,
        default=SAMPLES,
        metavar="N",
        help="pictures to calibrate on (default: %(default)s)",
    )
    command.add(parser, "--seed", "--cache")
    parser.set_defaults(seed=SEED)
    asked = parser.parse_args()

    def work() -> str:
        if asked.samples < 1:
            raise UsageError(f"--samples is {asked.samples}; at least one is needed")
        folder = asked.folder or (SHIPPED / asked.bundle if asked.bundle == "face" else None)
        bundle = load_bundle(folder) if folder else imported(asked.bundle)
        cache = asked.cache or cache_dir() / "features"
        task = TASKS[asked.bundle](bundle, asked.data, cache, asked.samples, asked.seed)
        made, measured = quantize(bundle, task, seed=asked.seed)
        return json.dumps({"bundle": made.id, "folder": str(made.folder), **measured})

    return command.carried_out(work)


if __name__ == "__main__":
    sys.exit(main())
