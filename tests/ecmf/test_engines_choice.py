"""Which CPU engine runs: the one that was measured to be fastest on this machine."""

from pathlib import Path
from typing import Any

import pytest
from line_bundle import keep, line

from ecmf.bundle import Bundle
from ecmf.engines import cache, contest, tuned
from ecmf.engines.base import EngineSpec
from ecmf.engines.choose import BACKENDS, CPU, open_engine

onnx = pytest.importorskip("onnx")


pytestmark = pytest.mark.usefixtures("home")


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return line(tmp_path / "line")


def test_the_first_start_on_a_machine_measures_and_the_next_ones_know(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = open_engine(bundle)
    choice = tuned.choice(bundle, EngineSpec())
    assert choice is not None and choice.backend == first.backend and choice.ms > 0
    assert {record.backend for _, record in cache.records()} == set(CPU)

    def again(*arguments: object) -> None:
        raise AssertionError("measured a second time")

    monkeypatch.setattr(contest, "fastest_ms", again)
    second = open_engine(bundle)
    assert (second.backend, second.fallback) == (first.backend, first.fallback)


@pytest.mark.parametrize("fastest", CPU)
def test_the_fastest_that_was_measured_runs_and_says_what_it_beat(
    bundle: Bundle, fastest: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        contest, "fastest_ms", lambda engines, inputs: [1.0 if e.backend == fastest else 2.5 for e in engines]
    )
    engine = open_engine(bundle)
    assert engine.backend == fastest and engine.fallback
    slower = f"openvino: slower here (2.50 ms; {fastest} takes 1.00 ms)"
    assert (slower in engine.fallback) is (fastest == "onnxruntime")


@pytest.mark.parametrize(
    ("openvino_ms", "onnxruntime_ms", "chosen"),
    [
        (9.8, 10.0, "onnxruntime"),
        (9.0, 10.0, "openvino"),
        (0.45, 0.5, "onnxruntime"),
        (0.35, 0.5, "openvino"),
    ],
)
def test_a_tie_goes_to_onnx_runtime(
    bundle: Bundle,
    openvino_ms: float,
    onnxruntime_ms: float,
    chosen: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    times = {"openvino": openvino_ms, "onnxruntime": onnxruntime_ms}
    monkeypatch.setattr(contest, "fastest_ms", lambda engines, inputs: [times[e.backend] for e in engines])
    assert open_engine(bundle).backend == chosen


class Sleeper:
    """An engine that waits ``wall_ms``, or computes that long, in turn with another."""

    backend, precision, fallback = "test", "fp32", None

    def __init__(self, clock: dict[str, float], wall_s: float, here_s: float) -> None:
        self._clock, self._wall_s, self._here_s = clock, wall_s, here_s

    def run(self, inputs: object) -> dict[str, Any]:
        self._clock["wall"] += self._wall_s
        self._clock["here"] += self._here_s
        return {}


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ((4.0, 3.0), (9.0, 2.0), [4000.0, 9000.0]),  # the second computes elsewhere: wall time counts
        ((9.0, 3.0), (4.0, 2.0), [3000.0, 2000.0]),
    ],
)
def test_processor_time_counts_where_engines_compute_in_the_calling_thread(
    first: tuple[float, float],
    second: tuple[float, float],
    expected: list[float],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = {"wall": 0.0, "here": 0.0}
    monkeypatch.setattr(contest.time, "perf_counter", lambda: clock["wall"])
    monkeypatch.setattr(contest.time, "thread_time", lambda: clock["here"])
    engines: Any = [Sleeper(clock, *first), Sleeper(clock, *second)]
    assert contest.fastest_ms(engines, [{}]) == expected


def test_shapes_threads_and_precision_are_measured_apart(bundle: Bundle) -> None:
    open_engine(bundle)
    for spec in (EngineSpec(threads=2), EngineSpec(shapes={"x": (1, 3)})):
        assert tuned.choice(bundle, spec) is None
        open_engine(bundle, threads=spec.threads, shapes=spec.shapes)
        assert tuned.choice(bundle, spec) is not None
    assert tuned.choice(bundle, EngineSpec(), "fp32") is None


def test_a_choice_made_on_another_machine_is_not_used(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    for backend in CPU:
        keep(bundle, backend)
        assert open_engine(bundle).backend == backend
    monkeypatch.setattr(tuned, "fingerprint", lambda: {"processor": "another"})
    assert tuned.choice(bundle, EngineSpec()) is None


@pytest.mark.parametrize("content", ["", "{", "[]", '{"machine": 1}'])
def test_a_broken_choice_file_is_measured_again(bundle: Bundle, content: str) -> None:
    keep(bundle, "openvino")
    tuned.file().write_text(content)
    assert tuned.choice(bundle, EngineSpec()) is None
    engine = open_engine(bundle)
    choice = tuned.choice(bundle, EngineSpec())
    assert choice is not None and choice.backend == engine.backend


def test_an_asked_for_precision_is_not_overruled_by_tuning(bundle: Bundle) -> None:
    spec = EngineSpec()
    tuned.store({tuned.key(bundle, spec, None): tuned.Choice("openvino", "bf16", 0.1)})
    assert open_engine(bundle, precision="fp32").precision == "fp32"


def test_a_chosen_backend_that_fails_gives_way_to_the_other(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(bundle, "onnxruntime")
    monkeypatch.setattr(type(BACKENDS["onnxruntime"]), "probe", lambda self: (False, "it is gone"))
    assert open_engine(bundle).backend == "openvino"
