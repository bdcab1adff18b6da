"""What a run fetches beforehand and says afterwards."""

from __future__ import annotations

import pytest

from ecmf.registry import registry
from realtime.config import load
from realtime.session import Session, describe, weights_for
from realtime.status_line import StatusLine
from realtime.stopping import Stop
from realtime.summary import Percentiles, Summary


@pytest.mark.parametrize(
    ("said", "needs", "leaves_out"),
    [
        (
            {},
            {"face-landmarker", "efficientnet-lite0", "silero-vad", "whisper-tiny.en"},
            {"demo-face", "retinaface"},
        ),
        ({"demo": True}, {"demo-face", "demo-speech", "face-landmarker"}, {"demo-smile"}),
        ({"demo": True, "mic": "off"}, {"demo-face"}, {"demo-speech", "silero-vad", "smollm2-135m"}),
        ({"camera": "off"}, {"silero-vad"}, {"face-landmarker", "efficientnet-lite0"}),
        ({"face": "retinaface"}, {"retinaface", "face-landmarker"}, set()),
        ({"asr": "off"}, {"silero-vad"}, {"smollm2-135m"}),
        ({"asr": "base"}, {"whisper-base"}, set()),
        ({"llm": "off"}, {"whisper-tiny.en"}, {"smollm2-135m"}),
    ],
)
def test_only_what_is_needed_is_fetched(
    said: dict[str, str | bool], needs: set[str], leaves_out: set[str]
) -> None:
    names = set(weights_for(load(None, said)))
    assert needs <= names and not leaves_out & names
    assert names <= registry().weights.keys()


def test_the_summary_says_what_happened() -> None:
    text = describe(
        Summary(
            seconds=20.0,
            estimates=301,
            labels={"happiness": 200, "none": 101},
            present={"face": 1.0, "scene": 0.5, "voice": 0.25, "text": 0.0},
            latency_ms={"face": Percentiles(300, 12.0, 21.0, 33.0, 40.0)},
            drops={"camera: late": 3},
            cores=1.25,
            peak_rss_mb=612.0,
            cold_start_s=3.5,
            engines={"face": "openvino fp32"},
            notes=("voice off: lost",),
        )
    )
    for part in (
        "301 estimates in 20.0 s, 15.0 a second",
        "happiness 200, none 101",
        "face 100%, scene 50%, voice 25%, text 0%",
        "latency of face: p50 12.0 ms, p95 21.0 ms, p99 33.0 ms (300 estimates)",
        "dropped: camera: late 3",
        "cores used: 1.25, peak memory: 612 MB",
        "first label 3.5 s after the start",
        "voice off: lost",
    ):
        assert part in text
    assert all(line.startswith("ecmf-live: ") for line in text.splitlines())


@pytest.mark.parametrize(("said", "shown"), [({}, [StatusLine]), ({"quiet": True}, [])])
def test_a_service_shows_nothing_while_it_runs(said: dict[str, str | bool], shown: list[type]) -> None:
    config = load(None, {"demo": True, "bind": "tcp://127.0.0.1:*", **said})
    sinks = Session(config, Stop())._open_sinks()
    assert [type(sink) for sink in sinks._local] == shown
    sinks.close()
