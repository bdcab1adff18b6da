"""The parity gate: a built engine must answer as the plain graph does, on real pictures, speech and sentences.

The reference is the bundle's graph run by ONNX Runtime in float32 without any optimization (OpenVINO in float32 for
TensorFlow Lite, which nothing else here reads). The label that the trained network gave when it was exported must
come out as well.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecmf import golden
from ecmf.bundle import Bundle
from ecmf.engines import graph
from ecmf.engines.base import Arrays, Engine, EngineSpec, Precision
from ecmf.errors import EngineError, need

TOLERANCE: Mapping[Precision, float] = {"fp32": 1e-4, "fp16": 5e-3, "bf16": 3e-2}
"""Largest difference from the reference, relative to the output's largest value."""
ROUNDING = 2e-2
"""The same for ONNX Runtime on a graph that quantizes its activations as it runs: a tie may round the other way, which
is a step of 1/255 of a layer's range."""
AGREEMENT = 1.0
"""int8: share of golden inputs whose label must not change, where the model gives labels."""
COSINE = 0.98
"""int8: lowest cosine similarity of any output, where it gives none."""
TIMING_S = 0.3
"""Spent on measuring an engine's latency."""


@dataclass(frozen=True)
class ParityReport:
    """How an engine compares with the reference."""

    passed: bool
    samples: int
    error: float
    """Largest difference of any output, relative to the output's largest value."""
    tolerance: float | None
    """What ``error`` may be; None for int8."""
    agreement: float | None
    """Share of samples with the reference's label, and with the label stored in the bundle; None without labels."""
    cosine: float
    """Lowest cosine similarity of any output with the reference's."""
    reference: str
    latency_ms: float
    """Median at batch 1 of a few runs on this machine, as busy as it was."""

    @property
    def verdict(self) -> str:
        """In one line."""
        allowed = f"{self.tolerance:g} allowed" if self.tolerance is not None else "int8: by labels or cosine"
        labels = "" if self.agreement is None else f", {self.agreement:.0%} of the labels"
        return (
            f"error {self.error:.2g} ({allowed}), cosine {self.cosine:.5f}{labels} "
            f"on {self.samples} golden inputs against {self.reference}"
        )

    def record(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def check(engine: Engine, bundle: Bundle, spec: EngineSpec | None = None) -> ParityReport:
    """Compare ``engine`` with the reference on the golden inputs. Raises golden.NoGolden, EngineError."""
    spec = spec or EngineSpec(precision=engine.precision)
    samples = golden.inputs(bundle, spec)
    reference = Reference(bundle, floating=engine.backend != "onnxruntime")
    error, cosine, matches = 0.0, 1.0, []
    stored = golden.stored_outputs(bundle) if not spec.sizes else []
    for index, sample in enumerate(samples):
        found, expected = engine.run(sample), reference.run(sample)
        if found.keys() != expected.keys():
            raise EngineError(
                f"{engine.backend}: {bundle.id} gives outputs {sorted(found)}, not {sorted(expected)}"
            )
        for name, wanted in expected.items():
            error = max(error, relative_error(found[name], wanted))
            cosine = min(cosine, similarity(found[name], wanted))
        if "logits" in expected:
            answers = found["logits"].argmax(-1)
            matches.append(bool((answers == expected["logits"].argmax(-1)).all()))
            if index < len(stored) and "logits" in stored[index]:
                matches.append(bool((answers == np.argmax(stored[index]["logits"], -1)).all()))
    agreement = sum(matches) / len(matches) if matches else None
    tolerance = TOLERANCE.get(engine.precision)
    if tolerance is not None and engine.backend == "onnxruntime" and graph.quantizes_as_it_runs(bundle.model):
        tolerance = ROUNDING
    if tolerance is not None:
        passed = error <= tolerance and agreement in (None, 1.0)
    else:
        passed = agreement >= AGREEMENT if agreement is not None else cosine >= COSINE
    return ParityReport(
        passed=passed,
        samples=len(samples),
        error=float(f"{error:.3g}"),
        tolerance=tolerance,
        agreement=agreement,
        cosine=round(cosine, 6),
        reference=reference.name,
        latency_ms=latency_ms(engine, samples[0]),
    )


def relative_error(found: NDArray[Any], expected: NDArray[Any]) -> float:
    """Largest absolute difference over the largest absolute expected value; infinite for shape, NaN or overflow."""
    if found.shape != expected.shape or not np.isfinite(found).all():
        return float("inf")
    scale = max(float(np.abs(expected).max(initial=0.0)), 1e-9)
    return float(np.abs(found.astype(np.float64) - expected).max(initial=0.0)) / scale


def similarity(found: NDArray[Any], expected: NDArray[Any]) -> float:
    """Cosine of the angle between two arrays, flattened; -1 where the shapes differ or a value is not finite."""
    if found.shape != expected.shape or not np.isfinite(found).all():
        return -1.0
    a, b = found.astype(np.float64).ravel(), expected.astype(np.float64).ravel()
    norm = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / norm if norm else float(np.array_equal(a, b))


def latency_ms(engine: Engine, sample: Arrays) -> float:
    """Median of the runs that fit into TIMING_S, at least five, after one to warm up."""
    engine.run(sample)
    times: list[float] = []
    began = time.perf_counter()
    while len(times) < 5 or (time.perf_counter() - began < TIMING_S and len(times) < 100):
        start = time.perf_counter()
        engine.run(sample)
        times.append((time.perf_counter() - start) * 1e3)
    return round(statistics.median(times), 3)


class Reference:
    """A bundle's graph run plainly: what every engine must equal."""

    def __init__(self, bundle: Bundle, *, floating: bool = True) -> None:
        """``floating``: see ecmf.engines.graph.read. Raises MissingExtra, EngineError."""
        self._engine: Engine | None = None
        if bundle.model.suffix == ".tflite":
            from ecmf.engines.openvino import OpenVinoBackend

            self.name = "openvino fp32"
            self._engine = OpenVinoBackend().compile(bundle, EngineSpec())
            return
        self.name = "onnxruntime fp32, not optimized"
        ort = need("onnxruntime", "live")
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        content = graph.read(bundle, "fp32", floating=floating).SerializeToString()
        self._session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])

    def run(self, sample: Arrays) -> dict[str, NDArray[Any]]:
        """As an engine does."""
        if self._engine is not None:
            return self._engine.run(sample)
        names = [output.name for output in self._session.get_outputs()]
        return dict(zip(names, self._session.run(None, dict(sample)), strict=True))
