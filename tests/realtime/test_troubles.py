"""What a person is told of health: what is off, what changed, and each reason once."""

from __future__ import annotations

from wire import health

from realtime.message import EngineUse
from realtime.troubles import Changes, troubles

NO_GPU = "tensorrt, tensorrt-rtx, torch-tensorrt, aoti: no NVIDIA GPU (libcuda.so.1 is not installed)"
SLOWER = "openvino: slower here (0.14 ms; onnxruntime takes 0.07 ms)"
FLOAT = "openvino: it computes int8 weights in float here, at a fifth of onnxruntime's speed"


def use(*reasons: str) -> EngineUse:
    return EngineUse(backend="onnxruntime", precision="fp32", fallback="; ".join(reasons) or None)


def test_a_reason_that_most_share_is_said_once_and_a_faster_engine_is_no_trouble() -> None:
    engines = {
        "fusion": use(NO_GPU, SLOWER),
        "face": use(NO_GPU, SLOWER),
        "text": use(NO_GPU, FLOAT),
        "words": use(),
    }
    assert troubles(health(engine=engines)) == [
        "runs without tensorrt, tensorrt-rtx, torch-tensorrt, aoti: no NVIDIA GPU (libcuda.so.1 is not installed)"
    ]


def test_what_concerns_one_branch_names_it() -> None:
    engines = {name: use() for name in ("fusion", "scene", "face")} | {
        "voice": use("openvino: cannot build voice")
    }
    assert troubles(health(engine=engines)) == ["voice runs without openvino: cannot build voice"]


def test_notes_are_troubles() -> None:
    assert troubles(health(engine={}, notes=["camera: black, is its lens covered?"])) == [
        "camera: black, is its lens covered?"
    ]


def test_only_changes_are_told() -> None:
    changes = Changes()
    black, reduced = "camera: black, is its lens covered?", "reduced: scene once a second"
    assert changes.since(health(engine={})) == ["all well"]
    assert changes.since(health(engine={})) == []
    assert changes.since(health(engine={}, notes=[black])) == [black]
    assert changes.since(health(engine={}, notes=[black, reduced])) == [reduced]
    assert changes.since(health(engine={}, notes=[reduced])) == [f"no longer: {black}"]
    assert changes.since(health(engine={})) == [f"no longer: {reduced}", "all well"]
