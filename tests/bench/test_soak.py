"""Given what was seen of a long run, which verdicts come out; and the real thing for half a minute."""

from __future__ import annotations

import io
import itertools
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench import live as watched
from bench import report_sections
from bench.growth import Sample, Soak, judge
from bench.live import Usage
from ecmf.errors import SourceError

HALF_HOUR_S = 1800.0


def soaked(
    rss_mb: Callable[[float], float] = lambda t: 700.0,
    files: Callable[[float], int] = lambda t: 18,
    threads: Callable[[float], int] = lambda t: 30,
    latency_ms: Callable[[float], float] = lambda t: 15.0,
    seconds: float = HALF_HOUR_S,
) -> Soak:
    """Half an hour of which everything is known."""
    soak = Soak(runs={"0123abcd"}, restarts={"face": 0}, gaps={"estimate": 0})
    step = seconds / 450
    for number in range(451):
        at_s = number * step
        soak.samples.append(Sample(at_s, rss_mb(at_s), rss_mb(at_s) - 200, files(at_s), threads(at_s)))
        soak.usage.append(Usage(round(at_s * 1e9), at_s, 700.0, 1.2 * at_s))
        for trigger in ("face", "voice"):
            soak.latency[trigger].append((at_s, latency_ms(at_s)))
        soak.messages["estimate"] += 1
    return soak


def missed(figures: dict[str, Any]) -> set[str]:
    return {row["what"] for row in figures["verdicts"] if not row["met"]}


def test_a_steady_run_meets_everything() -> None:
    figures = judge(soaked())
    assert missed(figures) == set()
    assert (figures["settling_s"], figures["edge_s"], figures["ends_s"]) == (180.0, 60.0, 300.0)
    assert figures["cores"] == 1.0


def test_what_fills_in_the_first_three_minutes_is_no_growth() -> None:
    assert missed(judge(soaked(rss_mb=lambda t: 500 + min(t, 170.0)))) == set()


def test_a_leak_of_a_megabyte_a_minute_is_found() -> None:
    figures = judge(soaked(rss_mb=lambda t: 700 + t / 60))
    assert missed(figures) == {"resident memory, growth in %"}
    assert figures["growth"]["rss_mb"]["share"] == pytest.approx(26 / 703.5, rel=0.02)


def test_one_more_descriptor_or_thread_is_growth() -> None:
    figures = judge(soaked(files=lambda t: 18 + (t > 900), threads=lambda t: 30 + (t > 900)))
    assert missed(figures) == {"file descriptors, growth", "threads, growth"}


def test_a_spike_in_between_is_no_growth() -> None:
    assert missed(judge(soaked(files=lambda t: 30 if 900 < t < 910 else 18))) == set()


def test_lost_messages_restarts_and_a_second_run_are_told() -> None:
    soak = soaked()
    soak.gaps["estimate"], soak.restarts["face"] = 2, 1
    soak.runs.add("89abcdef")
    soak.ended = "it ended with code 1"
    assert missed(judge(soak)) == {
        "messages lost (gaps in seq)",
        "restarts of workers",
        "runs of the process beyond the first",
        "ran to its end",
    }


def test_latency_that_rises_by_more_than_a_fifth_is_told_and_what_was_not_measured_is_not_met() -> None:
    assert missed(judge(soaked(latency_ms=lambda t: 15 + t / 1000))) == set()
    soak = soaked(latency_ms=lambda t: 15 + t / 300)
    del soak.latency["voice"]
    assert missed(judge(soak)) == {"p99 latency of face, growth in %", "p99 latency of voice, growth in %"}


def test_the_page_shows_what_was_missed() -> None:
    page = "\n".join(report_sections.soak(judge(soaked(files=lambda t: 18 + (t > 900)))))
    assert "| file descriptors, growth | 0 | 1 | **missed** |" in page
    assert "30.0 minutes, the first 3 left out of growth" in page
    assert "| rss_mb | 700 | 700 | 700 |" in page and len(page) < 3000, "no series of samples"


def test_a_publisher_that_stays_silent_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watched, "START_S", 0.2)
    with (
        watched.endpoint() as address,
        watched.started("http.server", ["0"]) as process,
        pytest.raises(SourceError, match="nothing is published any more"),
    ):
        next(watched.messages(process, address))


def test_time_in_which_the_watcher_was_stopped_is_nobodys_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watched, "START_S", 3.0)
    hours = itertools.count(step=3600)
    monkeypatch.setattr(watched.time, "monotonic", lambda: float(next(hours)))
    with watched.endpoint() as address:
        process = watched.Started(Ended(3), io.BytesIO(b"it said goodbye"), 0.0)  # type: ignore[arg-type]
        with pytest.raises(SourceError, match="it said goodbye"):
            next(watched.messages(process, address))


class Ended:
    """A process that ends at the ``looks``-th look at it."""

    def __init__(self, looks: int) -> None:
        self._left = looks

    def poll(self) -> int | None:
        self._left -= 1
        return None if self._left else 1


@settings(max_examples=30, deadline=None)
@given(st.floats(30, 7200), st.floats(-0.5, 0.5))
def test_linear_growth_is_judged_alike_at_any_length(seconds: float, growth: float) -> None:
    figures = judge(soaked(rss_mb=lambda t: 700 * (1 + growth * t / seconds), seconds=seconds))
    share = figures["growth"]["rss_mb"]["share"]
    assert share == pytest.approx(growth, abs=0.25 * abs(growth) + 1e-3)
    assert ("resident memory, growth in %" in missed(figures)) == (share > 0.01)


@pytest.mark.slow
def test_half_a_minute_of_the_real_thing(weight: Callable[[str], Path], tmp_path: Path) -> None:
    for name in (
        "face-landmarker",
        "efficientnet-lite0",
        "silero-vad",
        "whisper-tiny.en",
        "demo-face",
        "demo-speech",
    ):
        weight(name)
    found, plot = tmp_path / "soak.json", tmp_path / "soak.png"
    command = [
        sys.executable,
        "-m",
        "bench.soak",
        "--minutes",
        "0.4",
        "--json",
        str(found),
        "--plot",
        str(plot),
    ]
    done = subprocess.run(
        [*command, "--", "--offline", "--llm", "off"],
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert found.exists(), done.stderr
    record = json.loads(found.read_text("utf-8"))
    assert record["benchmark"] == "soak" and record["ended"] is None
    assert not any(record["gaps"].values()) and record["runs"] == 1 and not any(record["restarts"].values())
    assert len(record["samples"]) > 5 and record["messages"]["estimate"] > 20
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert "of 0.4 min" in done.stderr and "resident memory" in done.stdout
