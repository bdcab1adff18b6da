"""Figures of runs; every expected number is worked out by hand."""

from __future__ import annotations

import pytest
from measured import estimate, health, ten_seconds, watched

from bench.figures import LAST_STEPS, RECEIVE, RECEIVED, REST, Run, drops, figures_of, targets
from bench.throughput import row_of, unseen, verdict


@pytest.fixture
def run() -> Run:
    return ten_seconds()


def test_percentiles_rates_and_rest(run: Run) -> None:
    figures = figures_of(run)
    face = figures["capture_to_subscriber_ms"]["face"]
    assert face == {"n": 100, "p50": 7.0, "p95": 9.0, "p99": 9.0, "max": 9.0, "hz": 10.0}
    assert figures["stage_ms"][RECEIVE]["p50"] == pytest.approx(1.0)
    # published 6 ms after capture at the median, 3.3 ms of them told by the stages
    assert figures["stage_ms"][f"face: {REST}"]["p50"] == pytest.approx(2.7)
    assert figures["stage_ms"][RECEIVED]["p50"] == pytest.approx(1.3)
    assert figures["stage_ms"][LAST_STEPS]["p50"] == pytest.approx(0.8)  # publication takes its own half
    assert "publish" not in dict(figures["waterfall"])  # of another estimate
    assert figures["age_at_publish_ms"]["face"]["max"] == pytest.approx(8.0)
    assert figures["present"] == {"face": 1.0}
    assert figures["engine"] == {"face": "openvino fp32"}


def test_cost_and_drops_leave_the_warm_up_out(run: Run) -> None:
    figures = figures_of(run)
    assert figures["cores"] == pytest.approx(0.5)
    assert figures["other_cores"] == pytest.approx(0.75)
    assert figures["rss_mb"] == 310.0
    assert figures["drops"] == {"camera: late": 4}
    assert figures["worker_hz"] == {"camera": 23.0, "face": 23.0}
    assert drops([]) == {}
    assert drops([health(0), health(2)]) == {"camera: late": 2}


def test_the_waterfall_ends_when_the_median_estimate_is_received(run: Run) -> None:
    steps = figures_of(run)["waterfall"]
    assert [name for name, _ in steps] == ["wait", "face", REST, "fusion", "smoothing", RECEIVE]
    assert sum(spent for _, spent in steps) == pytest.approx(7.0, abs=0.01)


def test_targets_say_what_was_missed_and_what_was_not_measured(run: Run) -> None:
    run.received = [estimate(number, 40.0) for number in range(100)]
    told = {target["what"]: target["met"] for target in targets(figures_of(run))}
    assert told["face, capture to subscriber, p50 ms"] is False
    assert told["newest sound when a voice estimate is published, p95 ms"] is None
    assert told["cold start, s"] is True
    assert told["resident memory without the language model, MB"] is True


def test_frames_that_nobody_took() -> None:
    frames = [round(number * 1e9 / 25) for number in range(250)]
    assert unseen(frames, 25.0, 0, 10**10) == 0.0
    assert unseen(frames[::2], 25.0, 0, 10**10) == pytest.approx(0.496)
    assert unseen(frames, 25.0, 2 * 10**10, 3 * 10**10) == pytest.approx(1.0, abs=0.01)


def test_streams_are_carried_while_faces_come_in_time() -> None:
    rows = [row_of(watched(20.0)), {**row_of(watched(150.0)), "streams": 4}]
    assert rows[0]["streams"] == 2
    assert rows[0]["face_ms"]["p50"] == pytest.approx(20.5)
    assert rows[0]["face_p95_ms_worst_stream"] == pytest.approx(21.0)
    assert rows[0]["cores_per_stream"] == pytest.approx(0.6)
    assert rows[0]["drops"] == {"camera: late": 2}
    assert [row["carried"] for row in rows] == [True, False]
    told = verdict(rows, 4)
    assert told["streams_carried"] == 2
    assert told["streams_per_core"] == 0.5
