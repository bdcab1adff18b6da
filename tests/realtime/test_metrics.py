"""Given published messages, what Prometheus reads from the loopback port."""

from __future__ import annotations

import http.client
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from importlib.metadata import version

import pytest
from wire import estimate, health, unlabelled

from ecmf.errors import UsageError
from realtime.cli import main
from realtime.health import CameraState, LoadState, MicrophoneState, WorkerState
from realtime.message import Message, encode, topic

prometheus = pytest.importorskip("prometheus_client")
from prometheus_client.parser import text_string_to_metric_families  # noqa: E402

from realtime.metrics import Metrics  # noqa: E402

Sample = tuple[str, frozenset[tuple[str, str]]]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Scraped:
    """A running endpoint, and what a scrape of it finds."""

    def __init__(self) -> None:
        self.port = free_port()
        self.metrics = Metrics(self.port)

    def take(self, *messages: Message) -> None:
        for message in messages:
            self.metrics.write(message, topic(message), encode(message))

    def text(self) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=30) as answer:
            assert answer.status == 200
            return str(answer.read().decode())

    def samples(self) -> dict[Sample, float]:
        return {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(self.text())
            for sample in family.samples
        }

    def value(self, name: str, **labels: str) -> float:
        return self.samples()[name, frozenset({"source": "demo", **labels}.items())]


@pytest.fixture
def scraped() -> Iterator[Scraped]:
    made = Scraped()
    yield made
    made.metrics.close()


def test_before_the_first_message_there_is_the_process(scraped: Scraped) -> None:
    names = {name for name, _ in scraped.samples()}
    assert {"process_resident_memory_bytes", "process_open_fds", "process_cpu_seconds_total"} <= names
    assert not any(name.startswith("ecmf_worker") for name in names)


def test_estimates_are_counted_by_trigger_and_label(scraped: Scraped) -> None:
    fast = estimate(latency_ms={"total": 12.0})
    scraped.take(
        fast, fast, estimate(trigger="voice", latency_ms={"total": 80.0}), unlabelled(latency_ms=None)
    )
    assert scraped.value("ecmf_estimates_total", trigger="face", label="happiness") == 2
    assert scraped.value("ecmf_estimates_total", trigger="voice", label="happiness") == 1
    assert scraped.value("ecmf_estimates_total", trigger="face", label="none") == 1
    assert scraped.value("ecmf_latency_seconds_count", trigger="face") == 2
    assert scraped.value("ecmf_latency_seconds_sum", trigger="face") == pytest.approx(0.024)
    assert scraped.value("ecmf_latency_seconds_bucket", trigger="voice", le="0.075") == 0
    assert scraped.value("ecmf_latency_seconds_bucket", trigger="voice", le="0.1") == 1


def test_what_runs_is_told(scraped: Scraped) -> None:
    scraped.take(estimate(latency_ms=None))
    assert scraped.value("ecmf_info", version=version("ecmf-live"), model="default-1+0123abcd") == 1


def test_ages_and_presence_are_those_of_the_last_estimate(scraped: Scraped) -> None:
    scraped.take(unlabelled(latency_ms=None), estimate(latency_ms=None))
    assert scraped.value("ecmf_modality_present", modality="face") == 1
    assert scraped.value("ecmf_modality_present", modality="text") == 0
    assert scraped.value("ecmf_modality_age_seconds", modality="scene") == pytest.approx(0.3)


def test_health_is_there_with_units(scraped: Scraped) -> None:
    face = WorkerState(alive=True, rate_hz=24.0, drops={"late": 2}, queue_age_ms=40.0, restarts=1)
    scraped.take(
        health(
            workers={"face": face, "text": WorkerState(alive=False, rate_hz=0, drops={}, reason="off: gone")},
            camera=CameraState(
                state="frozen",
                fps=24.5,
                drops=7,
                width=640,
                height=480,
                clock="exposure",
                faults={"frozen": 2},
            ),
            skew_ms=-20.0,
            notes=["text is off: gone"],
            microphone=MicrophoneState(state="ok", rate_hz=48000, overflows=3, drift_ppm=-20.0),
            load=LoadState(cores=1.25, level=2, reduced=["scene every 2 s"]),
        )
    )
    assert scraped.value("ecmf_uptime_seconds") == 3.5
    assert scraped.value("ecmf_worker_alive", worker="text") == 0
    assert scraped.value("ecmf_worker_rate_hertz", worker="face") == 24
    assert scraped.value("ecmf_worker_restarts_total", worker="face") == 1
    assert scraped.value("ecmf_worker_dropped_total", worker="face", cause="late") == 2
    assert scraped.value("ecmf_worker_queue_age_seconds", worker="face") == pytest.approx(0.04)
    assert (
        scraped.value("ecmf_engine_info", branch="face", backend="openvino", precision="fp32", fallback="")
        == 1
    )
    assert scraped.value("ecmf_camera_state", state="frozen") == 1
    assert scraped.value("ecmf_camera_state", state="ok") == 0
    assert scraped.value("ecmf_camera_rate_hertz") == 24.5
    assert scraped.value("ecmf_camera_dropped_total") == 7
    assert scraped.value("ecmf_camera_faults_total", fault="frozen") == 2
    assert scraped.value("ecmf_skew_seconds") == pytest.approx(-0.02)
    assert scraped.value("ecmf_troubles") == 1
    assert scraped.value("ecmf_microphone_overflows_total") == 3
    assert scraped.value("ecmf_microphone_drift_ratio") == pytest.approx(-2e-5)
    assert scraped.value("ecmf_load_cores") == 1.25
    assert scraped.value("ecmf_load_level") == 2


def test_every_metric_of_ours_says_what_it_is(scraped: Scraped) -> None:
    scraped.take(estimate(latency_ms={"total": 12.0}), health())
    ours = [f for f in text_string_to_metric_families(scraped.text()) if f.name.startswith("ecmf_")]
    assert len(ours) > 8
    for family in ours:
        assert family.documentation.endswith("."), family.name


def test_no_word_and_no_face_box_is_served(scraped: Scraped) -> None:
    from wire import transcript

    scraped.take(transcript(), estimate(latency_ms=None))
    assert "best" not in scraped.text() and "bbox" not in scraped.text()


def test_only_this_machine_is_answered(scraped: Scraped) -> None:
    with socket.socket() as probe:
        probe.connect(("127.0.0.1", scraped.port))
    assert scraped.metrics._server.address == ("127.0.0.1", scraped.port)


def answer(port: int, host: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", "/metrics", headers={"Host": host})
    answered = connection.getresponse()
    code, text = answered.status, answered.read().decode()
    connection.close()
    return code, text


def status(port: int, host: str) -> int:
    return answer(port, host)[0]


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:{}", "127.0.0.1:{}", "127.1.2.3", "[::1]:{}", "LOCALHOST."]
)
def test_by_a_loopback_name_it_is_answered(scraped: Scraped, host: str) -> None:
    assert status(scraped.port, host.format(scraped.port)) == 200


@pytest.mark.parametrize(
    "host", ["evil.example:{}", "192.168.1.7", "localhost.evil.example", "127.0.0.1.evil.example"]
)
def test_a_page_that_made_its_name_mean_this_machine_reads_nothing(scraped: Scraped, host: str) -> None:
    assert status(scraped.port, host.format(scraped.port)) == 403


def test_a_proxy_that_keeps_its_public_name_is_told_what_to_send(scraped: Scraped) -> None:
    code, told = answer(scraped.port, "metrics.example.org")
    assert code == 403 and "Host: localhost" in told
    assert status(scraped.port, "localhost") == 200


def test_a_scraper_without_a_host_header_is_answered(scraped: Scraped) -> None:
    with socket.create_connection(("127.0.0.1", scraped.port), 30) as old:
        old.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        assert b" 200 " in old.makefile("rb").readline()


def test_after_closing_nobody_answers() -> None:
    made = Scraped()
    made.metrics.close()
    with pytest.raises(urllib.error.URLError):
        made.text()


def test_a_port_that_is_taken_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        with pytest.raises(UsageError, match=f"--metrics {port} is already in use"):
            Metrics(port)
        code = main(["--demo", "--metrics", str(port), "--bind", "tcp://127.0.0.1:*"])
    said = capsys.readouterr().err.strip().splitlines()
    assert code == 2 and len(said) == 1 and str(port) in said[0]


@pytest.mark.parametrize("value", ["0", "65536", "-1", "http", "9100.5"])
def test_what_is_no_port_is_one_line(value: str, capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["--demo", f"--metrics={value}"])
    said = capsys.readouterr().err.strip().splitlines()
    assert code == 2 and len(said) == 1 and "from 1 to 65535" in said[0]
