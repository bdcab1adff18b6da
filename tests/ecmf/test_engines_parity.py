"""Given a built engine and golden inputs, a right one passes with its error on record and a wrong one is refused."""

import json
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ecmf import golden
from ecmf.bundle import SHIPPED, Bundle, load_bundle, write_bundle
from ecmf.engines import cache, graph, parity
from ecmf.engines.base import Arrays, EngineSpec
from ecmf.engines.choose import BACKENDS, open_engine
from ecmf.engines.onnxruntime import OnnxRuntimeEngine
from ecmf.errors import EngineError

WEIGHTS = {
    "face-detector": ["face-landmarker"],
    "face-landmarks": ["face-landmarker"],
    "face-blendshapes": ["face-landmarker"],
    "retinaface": ["retinaface"],
    "scene": ["efficientnet-lite0"],
    "speech-tiny.en": ["whisper-tiny.en"],
    "speech-base": ["whisper-base"],
}
SHIPPED_NAMES = sorted(path.parent.name for path in SHIPPED.glob("*/manifest.json"))


@pytest.fixture
def named(weight: Callable[[str], Path], bundle: Callable[..., Bundle]) -> Callable[[str], Bundle]:
    """A bundle by name with the demo media that its golden inputs need."""

    def made(name: str) -> Bundle:
        for media in ("demo-smile", "demo-face", "demo-speech-short", "face-landmarker"):
            weight(media)
        return load_bundle(SHIPPED / name) if name in SHIPPED_NAMES else bundle(name, *WEIGHTS[name])

    return made


@pytest.fixture
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An engine cache of this test's own; weights and bundles stay where they are."""
    home = cache.cache_dir()
    mine = tmp_path / "cache"
    mine.mkdir()
    for name in ("weights", "bundles"):
        (home / name).mkdir(parents=True, exist_ok=True)
        (mine / name).symlink_to(home / name)
    monkeypatch.setenv("ECMF_CACHE", str(mine))
    return mine


@pytest.mark.parametrize("name", ["text", "face-detector"])
def test_cpu_backends_equal_the_plain_graph(named: Callable[[str], Bundle], fresh: Path, name: str) -> None:
    model = named(name)
    for backend in ("openvino", "onnxruntime"):
        if model.model.suffix == ".tflite" and backend == "onnxruntime":
            continue
        open_engine(model, backend=backend)
    proofs = [record.parity for _, record in cache.records() if record.bundle == model.id]
    assert proofs
    for proof in proofs:
        assert proof is not None and proof["passed"] and proof["latency_ms"] > 0
        assert proof["error"] <= proof["tolerance"]


@pytest.mark.slow
@pytest.mark.parametrize("name", [*WEIGHTS, *SHIPPED_NAMES])
def test_every_bundle_passes_on_every_cpu_backend(
    named: Callable[[str], Bundle], fresh: Path, name: str
) -> None:
    model = named(name)
    for backend in ("openvino", "onnxruntime"):
        if model.model.suffix == ".tflite" and backend == "onnxruntime":
            continue
        report = parity.check(open_engine(model, backend=backend), model)
        assert report.passed, f"{name} {backend}: {report.verdict}"


def test_golden_pictures_are_what_the_face_network_saw_when_it_was_exported(
    named: Callable[[str], Bundle],
) -> None:
    model = named("face")
    logits = parity.Reference(model).run(golden.inputs(model)[0])["logits"]
    expected = golden.stored_outputs(model)[0]["logits"]
    assert np.abs(logits - expected).max() < 5e-3
    assert len(np.unique(np.round(expected, 3))) > 1


class Shifted(OnnxRuntimeEngine):
    """An engine with a little error in what it answers."""

    def __init__(self, engine: Any, by: float) -> None:
        self._real, self._by, self.precision, self.backend = engine, by, engine.precision, engine.backend

    def run(self, inputs: Arrays) -> dict[str, np.ndarray[Any, Any]]:
        out = self._real.run(inputs)
        return {name: value + self._by * np.abs(value).max() for name, value in out.items()}


@pytest.mark.parametrize(
    ("precision", "by", "passes"),
    [
        ("fp32", 5e-5, True),
        ("fp32", 3e-4, False),
        ("fp16", 3e-3, True),
        ("fp16", 8e-3, False),
        ("fp32", np.nan, False),
    ],
)
def test_the_tolerance_of_a_precision_decides(
    named: Callable[[str], Bundle], fresh: Path, precision: Any, by: float, passes: bool
) -> None:
    model = named("default")
    engine = Shifted(open_engine(model, backend="onnxruntime"), by)
    engine.precision = precision
    assert parity.check(engine, model).passed is passes


def test_a_wrong_engine_is_refused_and_leaves_nothing(
    named: Callable[[str], Bundle], fresh: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, backend = named("default"), BACKENDS["onnxruntime"]
    right = type(backend).load
    monkeypatch.setattr(type(backend), "load", lambda *arguments: Shifted(right(*arguments), 0.01))
    with pytest.raises(EngineError, match=r"fails parity for default.*error 0\.01"):
        open_engine(model, backend="onnxruntime")
    assert model.id not in [record.bundle for _, record in cache.records()]


def test_an_engine_without_golden_inputs_says_that_it_is_unproven(
    named: Callable[[str], Bundle], fresh: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = named("text")
    files: dict[str, Path | bytes] = {"model.onnx": model.model}
    other = write_bundle(tmp_path / "other", replace(model.manifest, name="other"), files)
    with caplog.at_level(logging.WARNING):
        open_engine(other, backend="onnxruntime")
    assert "not proven" in caplog.text
    ((_, record),) = cache.records()
    assert record.parity is None and record.unproven and "no golden inputs" in record.unproven


def test_an_unproven_engine_is_proven_once_that_is_possible(
    named: Callable[[str], Bundle], fresh: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, spec = named("text"), EngineSpec()
    with monkeypatch.context() as without:
        without.setattr(golden, "_MAKERS", {})
        cache.build(BACKENDS["onnxruntime"], model, spec)
    folder, record = cache.build(BACKENDS["onnxruntime"], model, spec)
    assert record.parity and record.unproven is None
    assert json.loads((folder / "engine.json").read_text())["parity"]["passed"]


def test_stored_samples_come_back(tmp_path: Path, named: Callable[[str], Bundle]) -> None:
    text = named("text")
    sample = golden.inputs(text)[0]
    outputs = parity.Reference(text, floating=False).run(sample)
    files: dict[str, Path | bytes] = {
        "model.onnx": text.model,
        "golden.json": golden.write([{"inputs": sample, "outputs": outputs}]),
    }
    other = write_bundle(tmp_path / "other", replace(text.manifest, name="other"), files)
    (back,) = golden.inputs(other)
    assert all(
        np.array_equal(back[name], sample[name]) and back[name].dtype == sample[name].dtype for name in sample
    )
    assert np.allclose(golden.stored_outputs(other)[0]["logits"], outputs["logits"], atol=1e-5)


def test_float_weights_stand_in_for_run_time_quantization(named: Callable[[str], Bundle]) -> None:
    text = named("text")
    assert graph.quantizes_as_it_runs(text.model)
    kinds = {node.op_type for node in graph.read(text, "fp32").graph.node}
    assert not kinds & {"DynamicQuantizeLinear", "MatMulInteger", "DequantizeLinear"}
    sample = golden.inputs(text)[0]
    plain = parity.Reference(text, floating=False).run(sample)["embedding"]
    floating = parity.Reference(text).run(sample)["embedding"]
    # Rounding of the activations is all that differs.
    assert parity.similarity(floating, plain) > 0.99


@pytest.mark.parametrize("name", ["face", pytest.param("text", marks=pytest.mark.slow)])
def test_half_precision_graphs_stay_within_tolerance(named: Callable[[str], Bundle], name: str) -> None:
    import onnxruntime

    model = named(name)
    content = graph.read(model, "fp16").SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    reference = parity.Reference(model)
    for sample in golden.inputs(model):
        expected = reference.run(sample)
        for output, found in zip(session.get_outputs(), session.run(None, sample), strict=True):
            assert found.dtype == np.float32
            assert parity.relative_error(found, expected[output.name]) <= parity.TOLERANCE["fp16"]


def test_a_batch_is_proven_at_its_own_size(named: Callable[[str], Bundle]) -> None:
    samples = golden.inputs(named("face"), EngineSpec(sizes={"batch": (1, 4)}))
    assert {sample["face"].shape[0] for sample in samples} == {1, 4}


def test_attention_with_fixed_shapes_passes_in_openvino(named: Callable[[str], Bundle], fresh: Path) -> None:
    head = named("default")
    shapes = {p.name: tuple(1 if isinstance(d, str) else d for d in p.shape) for p in head.manifest.inputs}
    for _ in range(2):  # built, then loaded
        report = parity.check(open_engine(head, backend="openvino", shapes=shapes), head)
        assert report.passed, report.verdict


@pytest.mark.slow
def test_the_live_branches_find_what_was_built_ahead(
    named: Callable[[str], Bundle], weight: Callable[[str], Path], fresh: Path
) -> None:
    from ecmf.branches.face import FaceBranch
    from ecmf.branches.scene import SceneBranch
    from ecmf.branches.text import TextBranch
    from ecmf.branches.voice import VoiceBranch
    from ecmf.models_cli import main

    for needed in ("efficientnet-lite0", "whisper-base"):
        weight(needed)
    names = ["face", "face-detector", "face-landmarks", "face-blendshapes", "scene", "text", "voice"]
    chosen = [part for name in names if named(name) for part in ("--bundle", name)]
    assert main(["engines", "build", "--offline", *chosen]) == 0
    built = {folder.name for folder, _ in cache.records()}
    FaceBranch(offline=True)
    SceneBranch(offline=True)
    TextBranch()
    VoiceBranch()
    assert {folder.name for folder, _ in cache.records()} == built
    assert all(record.parity and record.parity["passed"] for _, record in cache.records())
