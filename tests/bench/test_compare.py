"""Two runs beside each other: what differs, and what is noise."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from measured import estimate, record_of, ten_seconds

from bench import compare
from bench.figures import RECEIVE, Run
from ecmf.errors import UsageError


@pytest.fixture
def run() -> Run:
    return ten_seconds()


def test_a_run_against_itself_differs_in_nothing(run: Run) -> None:
    record = record_of(run)
    changes = compare.compare(compare.samples(record), compare.samples(record))
    assert {change.verdict for change in changes} == {"no difference", "unknown"}
    assert any(change.name == "capture to subscriber, face, p50 ms" for change in changes)


def test_what_got_slower_is_said(run: Run) -> None:
    before = record_of(run)
    run.received = [estimate(number, 8 + number % 5) for number in range(100)]
    after = record_of(run)
    changes = {c.name: c for c in compare.compare(compare.samples(before), compare.samples(after))}
    face = changes["capture to subscriber, face, p50 ms"]
    assert face.after - face.before == pytest.approx(3.0, abs=0.01)
    assert face.verdict == "worse"
    assert changes[f"{RECEIVE}, p50 ms"].verdict == "no difference"
    with pytest.raises(UsageError, match="two benchmarks"):
        compare.cautions(before, {**after, "benchmark": "throughput"})


def test_noise_is_the_half_width_of_the_interval() -> None:
    # means of two values with variance 2 each: 1 + 1, two degrees of freedom, t = 4.30
    assert compare.noise([0, 2], [10, 12]) == pytest.approx(4.30 * np.sqrt(2))
    assert compare.noise([1.0], [2.0, 3.0]) is None


@given(
    st.lists(st.floats(0, 1000), min_size=2, max_size=30),
    st.lists(st.floats(0, 1000), min_size=2, max_size=30),
)
def test_noise_is_the_same_both_ways(first: list[float], second: list[float]) -> None:
    assert compare.noise(first, second) == pytest.approx(compare.noise(second, first))


def test_what_differs_is_shown_first_and_the_rest_is_counted(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    before = compare.samples(record_of(run))
    run.received = [estimate(number, 8 + number % 5) for number in range(100)]
    changes = compare.compare(before, compare.samples(record_of(run)))
    compare.show(changes, ("A", "B"), everything=False)
    short = capsys.readouterr().out
    rows = [
        line for line in short.splitlines() if line.rstrip().endswith(("worse", "no difference", "unknown"))
    ]
    assert rows[0].rstrip().endswith("worse") and "cores" in short
    assert RECEIVE not in short and "--all prints them" in short
    compare.show(changes, ("A", "B"), everything=True)
    assert RECEIVE in capsys.readouterr().out


def test_what_makes_two_runs_hard_to_compare_is_named_by_part(run: Run) -> None:
    first = record_of(run)
    second = {
        **first,
        "engine": {"face": "onnxruntime fp32"},
        "options": {**first["options"], "seconds": 5.0},
    }
    told = compare.cautions(first, second)
    assert "options seconds differs: 10.0 and 5.0" in told
    assert "engine face differs: openvino fp32 and onnxruntime fp32" in told
    assert any("other work on the machine took 0.75 cores" in line for line in told)
