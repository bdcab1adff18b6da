"""Given any bundle and no GPU at all, TensorRT for RTX parses it and builds an engine for the GPU that is named."""

import importlib.util
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ecmf.bundle import SHIPPED, Bundle, Manifest, Port, load_bundle, write_bundle
from ecmf.engines import cache, cuda, graph
from ecmf.engines.base import EngineSpec, Unsuitable
from ecmf.engines.choose import BACKENDS, open_engine
from ecmf.engines.profiles import fitting, is_static, profiles, speech_frames
from ecmf.errors import EngineError, MissingExtra

onnx = pytest.importorskip("onnx")
RTX = BACKENDS["tensorrt-rtx"]
TARGETS = ("sm_86", "sm_89")
IMPORTED = {
    "scene": "efficientnet-lite0",
    "retinaface": "retinaface",
    "minilm": "minilm-int8",
    "speech-tiny.en": "whisper-tiny.en",
    "speech-base": "whisper-base",
}
SHIPPED_NAMES = sorted(path.parent.name for path in SHIPPED.glob("*/manifest.json"))
needs_rtx = pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx") is None, reason="tensorrt-rtx is not installed (extra gpu-rtx)"
)


@pytest.fixture
def named(bundle: Callable[..., Bundle]) -> Callable[[str], Bundle]:
    def made(name: str) -> Bundle:
        return load_bundle(SHIPPED / name) if name in SHIPPED_NAMES else bundle(name, IMPORTED[name])

    return made


def tiny(folder: Path, *nodes: Any, size: int | str = "batch") -> Bundle:
    """A bundle of the given nodes, from x to y, float32[size, 4]."""
    from onnx import TensorProto, helper

    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, [size, 4]) for n in "xy")
    domains = [helper.make_opsetid("", 18), helper.make_opsetid("somewhere.else", 1)]
    model = helper.make_model(helper.make_graph(nodes, "tiny", [x], [y]), opset_imports=domains, ir_version=9)
    ports = (Port("x", "float32", (size, 4)),), (Port("y", "float32", (size, 4)),)
    return write_bundle(
        folder, Manifest("tiny", "1", *ports, "test"), {"model.onnx": model.SerializeToString()}
    )


@needs_rtx
@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("name", [*IMPORTED, *SHIPPED_NAMES])
def test_every_bundle_becomes_a_tensorrt_engine(
    named: Callable[[str], Bundle],
    tmp_path: Path,
    name: str,
    precision: Any,
    target: str,
    record_property: Callable[[str, object], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    began = time.perf_counter()
    RTX.build(named(name), EngineSpec(precision=precision, target=target), tmp_path / "engine")
    seconds, size = time.perf_counter() - began, (tmp_path / "engine").stat().st_size
    record_property("build_s", round(seconds, 2))
    record_property("bytes", size)
    with capsys.disabled():
        print(f"\n{name:15} {precision} {target}: {seconds:5.1f} s, {size / 1e6:6.1f} MB")
    assert size > 10_000


@needs_rtx
@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", ["face", "scene"])
def test_calibrated_int8_becomes_a_tensorrt_engine(
    named: Callable[[str], Bundle],
    weight: Callable[[str], Path],
    tmp_path: Path,
    name: str,
    target: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from ecmf import golden
    from train.quantize import to_int8

    for media in ("demo-smile", "demo-face", "face-landmarker"):
        weight(media)
    plain = named(name)
    twin = tmp_path / graph.INT8
    to_int8(plain.model, twin, golden.inputs(plain))
    files: dict[str, Path | bytes] = {"model.onnx": plain.model, graph.INT8: twin}
    quantized = write_bundle(tmp_path / "quantized", plain.manifest, files)
    began = time.perf_counter()
    RTX.build(quantized, EngineSpec(precision="int8", target=target), tmp_path / "engine")
    size = (tmp_path / "engine").stat().st_size
    with capsys.disabled():
        print(f"\n{name:15} int8 {target}: {time.perf_counter() - began:5.1f} s, {size / 1e6:6.1f} MB")
    assert size > 10_000
    nodes = graph.read(quantized, "int8").graph.node
    wide = [
        n
        for n in nodes
        if n.op_type == "Conv" and not any(a.name == "group" and a.i > 1 for a in n.attribute)
    ]
    scaled = {n.output[0] for n in nodes if n.op_type == "DequantizeLinear"}
    assert len(wide) >= 10 and all(set(node.input[:2]) <= scaled for node in wide[1:])


@needs_rtx
def test_the_parser_says_which_node_it_cannot_take(tmp_path: Path) -> None:
    node = onnx.helper.make_node("Frobnicate", ["x"], ["y"], name="odd one", domain="somewhere.else")
    with pytest.raises(EngineError, match=r"tensorrt-rtx cannot parse tiny-1.*Frobnicate"):
        RTX.build(tiny(tmp_path / "tiny", node), EngineSpec(target="sm_86"), tmp_path / "engine")


@needs_rtx
def test_an_engine_for_elsewhere_is_kept_with_its_target_and_without_proof(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ECMF_CACHE", str(tmp_path / "cache"))
    bundle = tiny(tmp_path / "tiny", onnx.helper.make_node("Relu", ["x"], ["y"]))
    folders = {cache.build(RTX, bundle, EngineSpec(target=target))[0] for target in TARGETS}
    assert len(folders) == 2
    found = [record for _, record in cache.records()]
    assert {record.target for record in found} == set(TARGETS)
    assert all(
        record.parity is None and "not for the device here" in str(record.unproven) for record in found
    )


@needs_rtx
@pytest.mark.parametrize("target", ["sm_90", "sm_10"])
def test_a_gpu_outside_the_matrix_is_named_with_those_inside(tmp_path: Path, target: str) -> None:
    bundle = tiny(tmp_path / "tiny", onnx.helper.make_node("Relu", ["x"], ["y"]))
    with pytest.raises(Unsuitable, match=f"sm_86.*not {target}"):
        RTX.build(bundle, EngineSpec(target=target), tmp_path / "engine")


@needs_rtx
@pytest.mark.skipif(cuda.find()[0] is not None, reason="there is a GPU")
def test_without_a_gpu_a_target_is_asked_for(tmp_path: Path) -> None:
    bundle = tiny(tmp_path / "tiny", onnx.helper.make_node("Relu", ["x"], ["y"]))
    with pytest.raises(EngineError, match="--target"):
        RTX.build(bundle, EngineSpec(), tmp_path / "engine")


@pytest.mark.skipif(cuda.find()[0] is not None, reason="there is a GPU")
@pytest.mark.parametrize("name", ["tensorrt", "tensorrt-rtx", "torch-tensorrt", "aoti"])
def test_without_a_gpu_no_gpu_backend_probes_well_and_each_says_why(name: str) -> None:
    usable, reason = BACKENDS[name].probe()
    assert not usable and "GPU" in reason


@pytest.mark.skipif(cuda.find()[0] is not None, reason="there is a GPU")
def test_the_fallback_names_what_comes_first_and_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("ECMF_CACHE", str(tmp_path / "cache"))
    bundle = tiny(tmp_path / "tiny", onnx.helper.make_node("Relu", ["x"], ["y"]))
    engine = open_engine(bundle)
    assert engine.backend == "onnxruntime"
    assert engine.fallback is not None and engine.fallback.startswith(
        "tensorrt, tensorrt-rtx, torch-tensorrt, aoti:"
    )
    assert engine.fallback.count("no NVIDIA GPU") == 1
    assert [r.message for r in caplog.records if r.levelname == "WARNING" and "GPU" in r.message] == []
    assert open_engine(bundle, backend="openvino").fallback is None


def test_a_missing_package_names_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ecmf.engines.tensorrt import TensorRtBackend

    bundle = tiny(tmp_path / "tiny", onnx.helper.make_node("Relu", ["x"], ["y"]))
    absent = TensorRtBackend("tensorrt", "tensorrt_that_is_not_there", "gpu")
    with pytest.raises(MissingExtra, match=r"ecmf-live\[gpu\]"):
        absent.build(bundle, EngineSpec(target="sm_86"), tmp_path / "engine")


def test_tflite_is_left_to_openvino(bundle: Callable[..., Bundle], tmp_path: Path) -> None:
    landmarks = bundle("face-landmarks", "face-landmarker")
    with pytest.raises(Unsuitable, match="OpenVINO"):
        graph.read(landmarks, "fp32")


def test_the_speech_encoder_gets_a_static_profile_per_bucket(bundle: Callable[..., Bundle]) -> None:
    found = profiles(bundle("speech-tiny.en", "whisper-tiny.en"), EngineSpec())
    assert [profile["mel"][1] for profile in found] == [(1, 80, frames) for frames in speech_frames()]
    assert all(is_static(profile) for profile in found)
    assert fitting({"mel": (1, 80, 500)}, found) == speech_frames().index(500)
    assert fitting({"mel": (1, 80, 501)}, found) is None


def test_batches_become_static_profiles_and_words_a_range() -> None:
    face, text = (load_bundle(SHIPPED / name) for name in ("face", "text"))
    found = profiles(face, EngineSpec(sizes={"batch": (1, 4, 8)}))
    assert [profile["blendshapes"][0] for profile in found] == [(1, 52), (4, 52), (8, 52)]
    (words,) = profiles(text, EngineSpec())
    low, usual, high = words["ids"]
    assert low == (1, 1) and high == (1, 96) and low < usual < high
    assert (
        fitting({p.name: (1, 17) if p.name != "scores" else (1, 7) for p in text.manifest.inputs}, [words])
        == 0
    )


def test_half_precision_leaves_float32_at_the_ends(tmp_path: Path) -> None:
    bundle = tiny(tmp_path / "tiny", onnx.helper.make_node("Relu", ["x"], ["y"]))
    for precision, kind in (("fp16", onnx.TensorProto.FLOAT16), ("bf16", onnx.TensorProto.BFLOAT16)):
        model = graph.read(bundle, precision)  # type: ignore[arg-type]
        assert {v.type.tensor_type.elem_type for v in (*model.graph.input, *model.graph.output)} == {1}
        casts = [n.attribute[0].i for n in model.graph.node if n.op_type == "Cast"]
        assert casts == [kind, onnx.TensorProto.FLOAT]


def test_weights_beyond_float16_are_clipped_not_infinite(tmp_path: Path) -> None:
    from onnx import TensorProto, helper, numpy_helper

    nodes = [helper.make_node("Add", ["x", "mask"], ["y"])]
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 4]) for n in "xy")
    mask = numpy_helper.from_array(np.array([0, -1e9, 1e9, 1], np.float32), "mask")
    model = helper.make_model(
        helper.make_graph(nodes, "m", [x], [y], [mask]),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=9,
    )
    narrow = graph.narrowed(model, "fp16").graph.initializer[0]
    assert np.isfinite(numpy_helper.to_array(narrow)).all()
    assert narrow.data_type == TensorProto.FLOAT16


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["tensorrt", "tensorrt-rtx", "torch-tensorrt", "aoti"])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("model", ["face", "scene", "voice", "text", "speech-tiny.en", "default"])
def test_on_a_gpu_every_backend_that_probes_well_passes_parity(
    named: Callable[[str], Bundle], weight: Callable[[str], Path], name: str, model: str, precision: Any
) -> None:
    from ecmf.engines import parity
    from ecmf.engines.known import live_shapes

    usable, reason = BACKENDS[name].probe()
    if not usable:
        pytest.skip(reason)
    for media in ("demo-smile", "demo-face", "demo-speech-short", "face-landmarker"):
        weight(media)
    bundle = named(model)
    spec = EngineSpec(precision=precision, shapes=live_shapes(bundle))
    try:
        engine = cache.build_or_load(BACKENDS[name], bundle, spec)
    except Unsuitable as error:
        pytest.skip(str(error))
    for _ in range(3):  # plain, plain, then from the CUDA graph
        report = parity.check(engine, bundle, spec)
        assert report.passed, report.verdict
