"""Importers: what a foreign file becomes is the same model, and nothing in it is run."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ecmf.bundle import Bundle
from ecmf.engines.choose import open_engine
from ecmf.errors import WeightError
from ecmf.importers import efficientnet, retinaface, task
from ecmf.importers.torch_pickle import read_tensors

MadeOf = Callable[..., Bundle]

BUNDLES = {
    "face-detector": ("face-landmarker",),
    "face-landmarks": ("face-landmarker",),
    "face-blendshapes": ("face-landmarker",),
    "retinaface": ("retinaface",),
    "scene": ("efficientnet-lite0",),
    "minilm": ("minilm-int8", "minilm-tokenizer"),
}
SIZES = {
    "batch": 2,
    "batch_size": 1,
    "height": 96,
    "width": 128,
    "sequence": 7,
    "anchors": 2 * (12 * 16 + 6 * 8 + 3 * 4),
}


@pytest.mark.parametrize("name", BUNDLES)
def test_manifest_tells_the_graphs_ports(name: str, bundle: MadeOf) -> None:
    made = bundle(name, *BUNDLES[name])
    engine = open_engine(made)
    random = np.random.default_rng(0)

    def shape(port: Any) -> tuple[int, ...]:
        return tuple(SIZES[size] if isinstance(size, str) else size for size in port.shape)

    inputs = {
        port.name: np.ones(shape(port), np.int64)
        if port.dtype == "int64"
        else random.normal(size=shape(port)).astype(np.float32)
        for port in made.manifest.inputs
    }
    outputs = engine.run(inputs)
    assert list(outputs) == [port.name for port in made.manifest.outputs]
    for port in made.manifest.outputs:
        assert outputs[port.name].shape == shape(port), port
        assert outputs[port.name].dtype == port.dtype
        assert np.isfinite(outputs[port.name]).all()


def picture(path: Path) -> NDArray[np.float32]:
    """The scene bundle's input, made of a picture file."""
    cv2 = pytest.importorskip("cv2")
    small = cv2.resize(cv2.imread(str(path)), (224, 224), interpolation=cv2.INTER_AREA)[:, :, ::-1]
    return np.ascontiguousarray(((small / 255 - 0.498) / 0.502).transpose(2, 0, 1)[None], np.float32)


def test_scene_encoder_equals_the_published_network(
    bundle: MadeOf, weight: Any, demo_multi_face: Path
) -> None:
    torch = pytest.importorskip("torch", reason="the train extra is not installed")
    torch.set_num_threads(1)
    made = bundle("scene", "efficientnet-lite0")
    image = picture(demo_multi_face)
    expected = _efficientnet_in_torch(torch, read_tensors(weight("efficientnet-lite0")), image)
    for backend in ("openvino", "onnxruntime"):
        found = open_engine(made, backend=backend).run({"image": image})["embedding"]
        np.testing.assert_allclose(found, expected, atol=1e-4)
    assert expected.std() > 0.1


def _efficientnet_in_torch(
    torch: Any, raw: dict[str, NDArray[Any]], image: NDArray[np.float32]
) -> NDArray[np.float32]:
    """EfficientNet-lite0 as published: batch norm left alone, TensorFlow's padding written out."""
    functional = torch.nn.functional
    state = {name: torch.from_numpy(value) for name, value in raw.items()}

    def layer(x: Any, conv: str, norm: str, stride: int = 1, depthwise: bool = False) -> Any:
        weight = state[f"{conv}.weight"]
        spare = max((-(-x.shape[-1] // stride) - 1) * stride + weight.shape[-1] - x.shape[-1], 0)
        x = functional.pad(x, (spare // 2, spare - spare // 2) * 2)
        x = functional.conv2d(x, weight, None, stride, groups=x.shape[1] if depthwise else 1)
        statistics = [state[f"{norm}.{key}"] for key in ("running_mean", "running_var", "weight", "bias")]
        return functional.batch_norm(x, *statistics, False, 0.0, 1e-3)

    x = functional.relu6(layer(torch.from_numpy(image), "_conv_stem", "_bn0", 2))
    strides = [1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1, 1, 1, 1]
    for index, stride in enumerate(strides):
        name, y = f"_blocks.{index}", x
        if index:
            y = functional.relu6(layer(y, f"{name}._expand_conv", f"{name}._bn0"))
        y = functional.relu6(layer(y, f"{name}._depthwise_conv", f"{name}._bn1", stride, depthwise=True))
        y = layer(y, f"{name}._project_conv", f"{name}._bn2")
        x = x + y if stride == 1 and x.shape == y.shape else y
    return functional.relu6(layer(x, "_conv_head", "_bn1")).mean((2, 3)).numpy()


def test_scene_encoder_knows_what_it_sees(bundle: MadeOf, weight: Any, demo_multi_face: Path) -> None:
    """With the classifier that was left out put back, the five swimmers' clothes come first of 1000 classes."""
    tensors = read_tensors(weight("efficientnet-lite0"))
    embedding = open_engine(bundle("scene", "efficientnet-lite0")).run({"image": picture(demo_multi_face)})[
        "embedding"
    ]
    scores = tensors["_fc.weight"] @ embedding[0] + tensors["_fc.bias"]
    bikini, maillot, swimsuit = 445, 638, 639
    assert set(np.argsort(scores)[-3:].tolist()) == {bikini, maillot, swimsuit}


def test_minilm_puts_like_meanings_together(bundle: MadeOf) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    made = bundle("minilm", "minilm-int8", "minilm-tokenizer")
    tokenizer = tokenizers.Tokenizer.from_file(str(made.folder / "tokenizer.json"))
    engine = open_engine(made)

    def embed(text: str) -> NDArray[np.float32]:
        code = tokenizer.encode(text)
        mask = np.array([code.attention_mask], np.int64)
        ids, types = np.array([code.ids], np.int64), np.array([code.type_ids], np.int64)
        states = engine.run({"input_ids": ids, "attention_mask": mask, "token_type_ids": types})[
            "last_hidden_state"
        ]
        mean = (states * mask[..., None]).sum(1)[0] / mask.sum()
        return mean / np.linalg.norm(mean)

    joy, glad, train = (
        embed("I am so happy today"),
        embed("what a joyful day"),
        embed("the train leaves at five"),
    )
    assert joy @ glad > joy @ train + 0.3


def write_checkpoint(torch: Any, path: Path, state: dict[str, Any]) -> None:
    torch.save(state, path, _use_new_zipfile_serialization=False)


@settings(max_examples=25, deadline=None)
@given(
    shape=st.lists(st.integers(1, 4), min_size=0, max_size=4),
    order=st.randoms(use_true_random=False),
    skip=st.integers(0, 3),
)
def test_legacy_checkpoint_reads_as_torch_reads_it(
    tmp_path_factory: pytest.TempPathFactory, shape: list[int], order: Any, skip: int
) -> None:
    torch = pytest.importorskip("torch", reason="the train extra is not installed")
    count = int(np.prod(shape)) + skip
    axes = list(range(len(shape)))
    order.shuffle(axes)
    view = torch.arange(count, dtype=torch.float32)[skip:].reshape(shape).permute(axes)
    state = {"view": view, "twin": view.flatten()[:1], "steps": torch.tensor(7)}
    path = tmp_path_factory.mktemp("checkpoint") / "state.pth"
    write_checkpoint(torch, path, state)
    tensors = read_tensors(path)
    assert list(tensors) == list(state)
    for name, tensor in state.items():
        assert tensors[name].shape == tuple(tensor.shape) and tensors[name].flags.c_contiguous
        np.testing.assert_array_equal(tensors[name], tensor.numpy())


class _Attack:
    def __reduce__(self) -> Any:
        return (exec, ("raise SystemExit('the pickle ran')",))


def header() -> bytes:
    return b"".join(pickle.dumps(part, 2) for part in (0x1950A86A20F9469CFC6C, 1001, {}))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (pickle.dumps(_Attack(), 2), "exec, which is not data"),
        (header() + pickle.dumps(_Attack(), 2), "exec, which is not data"),
        (header() + pickle.dumps({"a": 1}, 2), "more than named tensors"),
        (pickle.dumps(1, 2), "no torch magic number"),
        (b"PK\x03\x04 a zip", "not a checkpoint"),
        (b"", "not a checkpoint"),
    ],
)
def test_what_is_no_checkpoint_is_refused_unrun(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "state.pth"
    path.write_bytes(content)
    with pytest.raises(WeightError, match=reason):
        read_tensors(path)


def test_cut_or_forged_checkpoint_is_refused(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="the train extra is not installed")
    buffer = io.BytesIO()
    torch.save({"a": torch.arange(64.0)}, buffer, _use_new_zipfile_serialization=False)
    whole, path = buffer.getvalue(), tmp_path / "state.pth"
    for cut in (1, 100, 300, len(whole) - 200):
        path.write_bytes(whole[:-cut])
        with pytest.raises(WeightError, match="not a checkpoint"):
            read_tensors(path)
    # The element count 64 becomes 63 in front of the data: the tensor would read past its storage.
    path.write_bytes(whole.replace((64).to_bytes(8, "little"), (63).to_bytes(8, "little"))[:-4])
    with pytest.raises(WeightError, match="outside its storage"):
        read_tensors(path)


def test_other_networks_are_refused(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="the train extra is not installed")
    path = tmp_path / "state.pth"
    write_checkpoint(torch, path, {"a": torch.zeros(3)})
    with pytest.raises(WeightError, match=r"has no tensor '_conv_stem\.weight'"):
        efficientnet.build(path, tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


def test_retinaface_literal_is_read_not_run(tmp_path: Path) -> None:
    path = tmp_path / "weights.py"
    path.write_text("raise SystemExit('the file ran')\n")
    with pytest.raises(WeightError, match="no graph literal"):
        retinaface.build(path, tmp_path / "bundle")
    path.write_text("WEIGHTS = b'other bytes'\nraise SystemExit('the file ran')\n")
    with pytest.raises(WeightError, match="has sha256"):
        retinaface.build(path, tmp_path / "bundle")
    path.write_bytes(b"\x00 not python")
    with pytest.raises(WeightError, match="no graph literal"):
        retinaface.build(path, tmp_path / "bundle")


def test_task_file_must_be_one(tmp_path: Path) -> None:
    path = tmp_path / "face_landmarker.task"
    path.write_bytes(b"no zip")
    with pytest.raises(WeightError, match="not a face landmarker file"):
        task.build_detector(path, tmp_path / "bundle")
