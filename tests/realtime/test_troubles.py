"""What a person is told of health: what is off, what changed, and each reason once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from wire import health

from ecmf.bundle import SHIPPED, Bundle, load_bundle
from ecmf.engines import choose, contest, graph, tuned
from ecmf.engines.base import Backend, Engine, EngineSpec, Precision, Refusal
from ecmf.errors import EngineError
from realtime.message import EngineUse, Health, decode, encode
from realtime.stages import use_of
from realtime.troubles import Changes, troubles

NO_GPU = "no NVIDIA GPU (libcuda.so.1 is not installed)"
WITHOUT_GPU = f"runs without tensorrt, tensorrt-rtx, torch-tensorrt, aoti: {NO_GPU}"


class Loaded:
    """An engine of which only what it says of itself matters."""

    precision: Precision = "fp32"
    fallback: str | None = None
    refusals: tuple[Refusal, ...] = ()

    def __init__(self, backend: str) -> None:
        self.backend = backend

    def run(self, inputs: object) -> dict[str, Any]:
        return {}


class Choosing:
    """The choice of engines on a machine without a GPU, where each takes the time that it is told to."""

    def __init__(self, patch: pytest.MonkeyPatch, cache: Path) -> None:
        self.ms = {"openvino": 2.5, "onnxruntime": 1.0}
        self.broken: dict[str, str] = {}
        """Backends that cannot build -> what they say."""
        self.in_int8 = False
        self._bundle = load_bundle(SHIPPED / "default")
        patch.setenv("ECMF_CACHE", str(cache))
        for name, backend in choose.BACKENDS.items():
            told = (True, "") if name in choose.CPU else (False, NO_GPU)
            patch.setattr(type(backend), "probe", lambda self, told=told: told)
        patch.setattr(choose, "build_or_load", self._load)
        patch.setattr(contest, "samples", lambda bundle, spec: [{}])
        patch.setattr(contest, "fastest_ms", lambda engines, inputs: [self.ms[e.backend] for e in engines])
        patch.setattr(graph, "quantizes_as_it_runs", lambda path: self.in_int8)

    def _load(self, backend: Backend, bundle: Bundle, spec: EngineSpec) -> Engine:
        if backend.name in self.broken:
            raise EngineError(self.broken[backend.name])
        return Loaded(backend.name)

    def __call__(self, *, anew: bool = True) -> EngineUse:
        """What a branch runs; ``anew``: measured, as on a machine's first start."""
        if anew:
            tuned.file().unlink(missing_ok=True)
        return use_of(choose.open_engine(self._bundle))


@pytest.fixture
def chosen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Choosing:
    return Choosing(monkeypatch, tmp_path)


def plain(*branches: str) -> dict[str, EngineUse]:
    return {name: EngineUse(backend="onnxruntime", precision="fp32") for name in branches}


def told(engines: dict[str, EngineUse]) -> list[str]:
    """As whoever subscribes reads it."""
    received = decode(encode(health(engine=engines)))
    assert isinstance(received, Health)
    return troubles(received)


def test_a_reason_that_most_share_is_said_once_and_a_faster_engine_is_no_trouble(chosen: Choosing) -> None:
    engines = {"fusion": chosen(), "face": chosen(anew=False)}
    chosen.ms["openvino"] = 1.01
    engines["voice"] = chosen()
    chosen.in_int8 = True
    engines |= {"text": chosen(), "words": EngineUse(backend="ctranslate2", precision="int8")}
    assert all("openvino" in (use.fallback or "") for name, use in engines.items() if name != "words")
    assert told(engines) == [WITHOUT_GPU]


def test_what_a_choice_is_called_does_not_make_it_a_trouble(chosen: Choosing) -> None:
    use = chosen()
    assert [each.engines for each in use.left_out or () if each.slower] == [("openvino",)]
    reworded = [replace(each, reason="another won") if each.slower else each for each in use.left_out or ()]
    assert told({"face": replace(use, left_out=tuple(reworded))}) == [WITHOUT_GPU]


@pytest.mark.parametrize("anew", [True, False])
def test_a_fault_is_one_whatever_it_says(chosen: Choosing, anew: bool) -> None:
    says = "cannot build voice; pass 1: it gave up here (9 ms), at a fifth of the way"
    chosen.broken["openvino"] = says
    voice = chosen()
    if not anew:
        del chosen.broken["openvino"]
        voice = chosen(anew=False)
    assert told(plain("fusion", "scene", "face") | {"voice": voice}) == [
        f"voice {WITHOUT_GPU}",
        f"voice runs without openvino: {says}",
    ]


def test_a_choice_kept_before_the_kinds_were_is_no_trouble(chosen: Choosing) -> None:
    chosen()
    kept = json.loads(tuned.file().read_text("utf-8"))
    for choice in kept["choices"].values():
        del choice["slower"]
    tuned.file().write_text(json.dumps(kept), "utf-8")
    use = chosen(anew=False)
    assert "slower here" in (use.fallback or "") and told({"face": use}) == [WITHOUT_GPU]


def test_what_is_no_order_of_engines_is_said_as_it_is() -> None:
    words = EngineUse(backend="ctranslate2", precision="int8", fallback="two encoders run")
    assert told(plain("face", "scene") | {"words": words}) == ["words two encoders run"]


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


def test_what_is_sent_many_times_a_second_leaves_the_reasons_out(chosen: Choosing) -> None:
    use = chosen()
    assert use.left_out and use.fallback and use.brief() == replace(use, left_out=None, fallback=None)
