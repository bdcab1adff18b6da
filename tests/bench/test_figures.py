"""Figures of runs, compared and written up; every expected number is worked out by hand."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import compare, report, results
from bench.accuracy import cell, faster, majority
from bench.face_pictures import framed
from bench.figures import LAST_STEPS, RECEIVE, RECEIVED, REST, Run, drops, figures_of, targets
from bench.live import Usage
from bench.throughput import Watched, row_of, unseen, verdict
from ecmf.errors import DataError, UsageError
from realtime.message import EngineUse, Estimate, Health, Modalities, ModalityState, WorkerState

MS = 1_000_000
ABSENT = ModalityState(present=False, reason="off")


def estimate(
    number: int, late_ms: float, *, source: str = "demo", trigger: str = "face"
) -> tuple[int, Estimate]:
    """Captured at ``number`` x 100 ms, published ``late_ms`` - 1 ms after that, received ``late_ms`` after it."""
    capture_ns = number * 100 * MS
    stages = {
        "total": late_ms - 1,
        "wait": 1.0,
        "face": 2.0,
        "fusion": 0.25,
        "smoothing": 0.05,
        "publish": 0.5,
    }
    message = Estimate(
        run="1234abcd",
        source=source,
        seq=number,
        t_publish_ns=capture_ns + round((late_ms - 1) * MS),
        person=1,
        bbox=None,
        t_capture_ns=capture_ns,
        clock="file",
        t_media_s=number / 10,
        trigger=trigger,  # type: ignore[arg-type]
        label="happiness",
        confidence=0.75,
        reason=None,
        raw={"neutral": 0.25, "happiness": 0.75},
        smoothed={"neutral": 0.25, "happiness": 0.75},
        modalities=Modalities(
            face=ModalityState(present=True, weight=1.0, age_ms=late_ms - 1, quality=0.9),
            scene=ABSENT,
            voice=ABSENT,
            text=ABSENT,
        ),
        latency_ms=stages,
        model="default-1",
        engine={"face": EngineUse(backend="openvino", precision="fp32")},
    )
    return capture_ns + round(late_ms * MS), message


def health(late: int, rate: float = 24.0, source: str = "demo") -> Health:
    camera = WorkerState(alive=True, rate_hz=rate, drops={"late": late} if late else {})
    face = WorkerState(alive=True, rate_hz=rate, drops={})
    return Health(
        run="1234abcd",
        source=source,
        uptime_s=1.0,
        workers={"camera": camera, "face": face},
        engine={},
        clocks={"picture": "file"},
    )


@pytest.fixture
def run() -> Run:
    """10 s: a hundred faces, 5, 6, 7, 8 and 9 ms late in turn, and two cores of work for half a core."""
    return Run(
        received=[estimate(number, 5 + number % 5) for number in range(100)],
        usage=[
            Usage(second * 1_000_000_000, second * 0.5, 300.0 + second, second * 1.25) for second in range(11)
        ],
        health=[health(3), health(7, 22.0)],
        cold_start_s=2.5,
    )


def record_of(run: Run) -> dict[str, Any]:
    figures = figures_of(run)
    figures |= {"cold_starts_s": [figures["cold_start_s"]], "warm_up_s": 3.0, "targets": targets(figures)}
    return results.record("latency", {"seconds": 10.0, "source": "demo", "live": []}, figures)


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


def test_a_record_survives_its_file(run: Run, tmp_path: Path) -> None:
    record = record_of(run)
    results.save(tmp_path / "new" / "latency.json", record)
    again = results.load(tmp_path / "new" / "latency.json")
    assert again == json.loads(json.dumps(record))
    assert again["benchmark"] == "latency"
    assert again["machine"]["cores"] >= 1


def test_what_is_no_record_is_refused(tmp_path: Path) -> None:
    (tmp_path / "half.json").write_text('{"a": ', "utf-8")
    with pytest.raises(DataError, match="is not JSON"):
        results.load(tmp_path / "half.json")
    with pytest.raises(DataError, match="cannot be read"):
        results.load(tmp_path / "none.json")
    with pytest.raises(DataError, match="no JSON file"):
        report.gather(tmp_path / "none")


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


def test_frames_that_nobody_took() -> None:
    frames = [round(number * 1e9 / 25) for number in range(250)]
    assert unseen(frames, 25.0, 0, 10**10) == 0.0
    assert unseen(frames[::2], 25.0, 0, 10**10) == pytest.approx(0.496)
    assert unseen(frames, 25.0, 2 * 10**10, 3 * 10**10) == pytest.approx(1.0, abs=0.01)


def watched(late_ms: float) -> Watched:
    """Two cameras for 10 s at 10 frames a second, the second one 1 ms later than the first."""
    cameras = {
        f"cam{camera}": [estimate(number, late_ms + camera, source=f"cam{camera}") for number in range(100)]
        for camera in (0, 1)
    }
    return Watched(
        begin_ns=0,
        end_ns=10**10,
        received=cameras,
        usage=[Usage(0, 1.0, 400.0), Usage(10**10, 13.0, 500.0)],
        health={name: [health(0, source=name), health(1, source=name)] for name in cameras},
        taken={
            name: {"fps": 10.0, "taken": [e.t_capture_ns for _, e in rows]} for name, rows in cameras.items()
        },
    )


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


def test_a_face_that_is_not_found_is_wrong() -> None:
    truth = np.array([1, 1, 0, 0])
    figures = cell([1, None, 0, 1], [1.0, 2.0, 3.0, 4.0], 2.25, truth)
    assert figures["accuracy"] == 0.5
    assert figures["found"] == 0.75
    assert figures["accuracy_where_found"] == pytest.approx(2 / 3, abs=1e-4)
    assert figures["uar"] == 0.5
    assert figures["p50_ms"] == 2.5
    assert majority(np.array([0, 0, 1])) == {"n": 3, "accuracy": 0.6667, "uar": 0.5}


def test_how_many_times_as_fast() -> None:
    rows: list[dict[str, Any]] = [
        {"name": "ecmf face", "frame": {"p50_ms": 10.0, "core_ms": 8.0}},
        {"name": "ecmf face, network alone", "frame": None},
        {"name": "ecmf face, following", "frame": {"p50_ms": 5.0, "core_ms": 4.0}},
        {"name": "other 1.0", "frame": {"p50_ms": 65.0, "core_ms": 60.0}},
        {"name": "blank", "frame": None, "reason": "not installed"},
    ]
    assert faster(rows) == {
        "other 1.0": {
            "searched anew": 6.5,
            "searched anew, processor time": 7.5,
            "followed": 13.0,
            "followed, processor time": 15.0,
        }
    }


def test_faces_are_framed_as_a_webcam_does() -> None:
    picture = np.full((48, 48), 200, np.uint8)
    picture[:24] = 100
    frame = framed(picture, 192)
    assert frame.shape == (360, 640)
    assert frame[0, 0] == 150
    assert frame[100, 320] == 100
    assert frame[260, 320] == 200


def test_the_report_shows_every_file(run: Run, tmp_path: Path) -> None:
    blank = {
        "name": "fer",
        "reason": "not installed",
        **dict.fromkeys(("network", "found", "photographs", "frame")),
    }
    own = {
        "name": "ecmf face",
        "frame": {"n": 1, "found": 1.0, "p50_ms": 9.5, "p95_ms": 12.0, "core_ms": 9.0},
    }
    own |= {
        task: cell([1, 0], [1.0, 2.0], 1.5, np.array([1, 1])) for task in ("network", "found", "photographs")
    }
    folder = tmp_path / "results"
    curve = verdict([row_of(watched(20.0)), {**row_of(watched(150.0)), "streams": 4}], 2)
    counts = {"network": 2, "found": 2, "photographs": 2, "frame": 1}
    for record in (
        results.record("throughput", {}, curve),
        results.record("accuracy", {}, {"n": counts, "rows": [own, blank], "times_faster": {}}),
        results.record("later", {}, {"rows": [{"what": "a|b", "ms": 1.25}], "verdict": True}),
        record_of(run),
    ):
        results.save(folder / f"{record['benchmark']}.json", record)
    done = subprocess.run(
        [sys.executable, "-m", "bench.report", str(folder), "--out", str(tmp_path / "REPORT.md")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "REPORT.md").read_text("utf-8")
    titles = re.findall(r"^## (.*)$", page, re.MULTILINE)
    assert titles[0] == "Latency of the live pipeline"
    assert titles[-1] == "later"
    assert "| face | 100 | 10 | 7 | 9 | 9 | 9 |" in page
    assert "Other work on the machine took 0.75 cores meanwhile" in page
    assert "| fer | not installed |" in page
    assert "| a\\|b | 1.25 |" in page
    for rows in re.findall(r"(?:^\|.*\n)+", page, re.MULTILINE):
        assert len({len(re.findall(r"(?<!\\)\|", row)) for row in rows.splitlines()}) == 1, rows
    for plot in re.findall(r"\]\((plots/.*?)\)", page):
        assert (tmp_path / plot).read_bytes().startswith(b"\x89PNG")
    assert len(list((tmp_path / "plots").iterdir())) == 3
