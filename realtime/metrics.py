"""Metrics for Prometheus on http://127.0.0.1:PORT/metrics, made of the messages that are published anyway."""

from __future__ import annotations

import errno
import threading
from collections.abc import Iterator
from importlib.metadata import version as version_of
from typing import Any, get_args, get_type_hints

from ecmf.errors import UsageError, need
from realtime.message import CameraState, Estimate, Health, Message, MicrophoneState
from realtime.metrics_server import HOST, MetricsServer

BUCKETS_S = (0.005, 0.01, 0.02, 0.035, 0.05, 0.075, 0.1, 0.15, 0.25, 0.35, 0.5, 0.75, 1.0, 2.0, 5.0)


class Metrics:
    """A sink that counts estimates, keeps the last health of each source, and serves both when asked."""

    def __init__(self, port: int) -> None:
        """Raises UsageError when the port cannot be had, MissingExtra without prometheus-client."""
        self._client = need("prometheus_client", "metrics")
        registry = self._client.CollectorRegistry()
        self._client.ProcessCollector(registry=registry)
        self._estimates = self._client.Counter(
            "ecmf_estimates",
            "Estimates published, by the cue that caused them and by label (none: without one).",
            ("source", "trigger", "label"),
            registry=registry,
        )
        self._latency = self._client.Histogram(
            "ecmf_latency_seconds",
            "From the end of the capture of the sample that caused an estimate to its publication.",
            ("source", "trigger"),
            buckets=BUCKETS_S,
            registry=registry,
        )
        self._lock = threading.Lock()
        self._health: dict[str, Health] = {}
        self._last: dict[str, Estimate] = {}
        registry.register(self)
        try:
            self._server = MetricsServer(self._client.make_wsgi_app(registry), port)
        except OSError as error:
            raise UsageError(_refusal(port, error)) from None

    def write(self, message: Message, topic: str, payload: bytes) -> None:
        if isinstance(message, Estimate):
            self._estimates.labels(message.source, message.trigger, message.label or "none").inc()
            if message.latency_ms is not None:
                self._latency.labels(message.source, message.trigger).observe(
                    message.latency_ms["total"] / 1e3
                )
            with self._lock:
                self._last[message.source] = message
        elif isinstance(message, Health):
            with self._lock:
                self._health[message.source] = message

    def close(self) -> None:
        self._server.close()

    def collect(self) -> Iterator[Any]:
        """What the last messages say, as Prometheus' metric families; called for every scrape."""
        with self._lock:
            health, last = dict(self._health), dict(self._last)
        families = Families(need("prometheus_client.core", "metrics"))
        for source, estimate in last.items():
            families.gauge(
                "info", "1 for what runs: the version of this program and the fusion head.", 1,
                source=source, version=version_of("ecmf-live"), model=estimate.model,
            )  # fmt: skip
            for name, state in estimate.modalities.items():
                families.gauge("modality_present", "Whether the last estimate used it.", state.present,
                               source=source, modality=name)  # fmt: skip
                if state.age_ms is not None:
                    families.gauge(
                        "modality_age_seconds", "Age of its cue at the last publication.", state.age_ms / 1e3,
                        source=source, modality=name,
                    )  # fmt: skip
        for source, told in health.items():
            _of_health(families, source, told)
        yield from families.made.values()

    def describe(self) -> list[Any]:
        """Nothing before the first message; asked when this is registered."""
        return []


class Families:
    """Metric families as they are filled."""

    def __init__(self, core: Any) -> None:
        self.made: dict[str, Any] = {}
        self._core = core

    def gauge(self, name: str, text: str, value: float, **labels: str) -> None:
        """A value that goes up and down."""
        self._add(self._core.GaugeMetricFamily, name, text, value, labels)

    def counter(self, name: str, text: str, value: float, **labels: str) -> None:
        """A count since the start; Prometheus puts _total behind its name."""
        self._add(self._core.CounterMetricFamily, name, text, value, labels)

    def _add(self, kind: Any, name: str, text: str, value: float, labels: dict[str, str]) -> None:
        name = f"ecmf_{name}"
        if name not in self.made:
            self.made[name] = kind(name, text, labels=tuple(labels))
        self.made[name].add_metric(tuple(labels.values()), float(value))


def _of_health(families: Families, source: str, health: Health) -> None:
    families.gauge("uptime_seconds", "Since the pipeline started.", health.uptime_s, source=source)
    families.gauge(
        "troubles", "How many things are off or degraded; the notes of health tell which.", len(health.notes),
        source=source,
    )  # fmt: skip
    if health.skew_ms is not None:
        families.gauge(
            "skew_seconds", "How far the newest sound lies after the newest picture.", health.skew_ms / 1e3,
            source=source,
        )  # fmt: skip
    for name, worker in health.workers.items():
        of = {"source": source, "worker": name}
        families.gauge("worker_alive", "Whether it runs.", worker.alive, **of)
        families.gauge("worker_rate_hertz", "Turns a second, over the last seconds.", worker.rate_hz, **of)
        families.counter("worker_restarts", "Times it died or hung and was replaced.", worker.restarts, **of)
        if worker.queue_age_ms is not None:
            families.gauge(
                "worker_queue_age_seconds", "Longest that a sample waited for it in the last second.",
                worker.queue_age_ms / 1e3, **of,
            )  # fmt: skip
        for cause, count in worker.drops.items():
            families.counter("worker_dropped", "Samples dropped, by cause.", count, cause=cause, **of)
    for branch, use in health.engine.items():
        families.gauge(
            "engine_info", "1 for the engine that computes a branch; fallback tells why it is not the first choice.",
            1, source=source, branch=branch, backend=use.backend, precision=use.precision,
            fallback=use.fallback or "",
        )  # fmt: skip
    if health.camera is not None:
        camera = health.camera
        _state(families, "camera", source, camera)
        families.gauge("camera_rate_hertz", "Frames a second that come.", camera.fps, source=source)
        families.counter("camera_dropped", "Frames that camera or driver lost.", camera.drops, source=source)
    if health.microphone is not None:
        microphone = health.microphone
        _state(families, "microphone", source, microphone)
        families.gauge(
            "microphone_rate_hertz", "Samples a second of the device.", microphone.rate_hz, source=source
        )
        families.counter(
            "microphone_overflows", "Times that sound was lost because nobody took it.",
            microphone.overflows, source=source,
        )  # fmt: skip
        if microphone.drift_ppm is not None:
            families.gauge(
                "microphone_drift_ratio", "How much faster than the machine's clock the device counts.",
                microphone.drift_ppm * 1e-6, source=source,
            )  # fmt: skip
    if health.load is not None:
        families.gauge("load_cores", "Processor cores used.", health.load.cores, source=source)
        families.gauge(
            "load_level", "Steps by which work is reduced; 0: none.", health.load.level, source=source
        )


def _state(families: Families, device: str, source: str, found: CameraState | MicrophoneState) -> None:
    """One series a state, 1 for the one that holds: what Prometheus calls a state set."""
    for state in get_args(get_type_hints(type(found))["state"]):
        families.gauge(
            f"{device}_state", f"1 for the state the {device} is in.", found.state == state,
            source=source, state=state,
        )  # fmt: skip
    for fault, count in found.faults.items():
        families.counter(
            f"{device}_faults", f"How often the {device} was at fault, by fault.", count,
            source=source, fault=fault,
        )  # fmt: skip


def _refusal(port: int, error: OSError) -> str:
    match error.errno:
        case errno.EADDRINUSE:
            remedy = f"is already in use; stop who holds it (ss -ltnp 'sport = :{port}') or take another port"
        case errno.EACCES | errno.EPERM:
            remedy = "is not allowed to this user; take a port above 1023"
        case _:
            remedy = f"cannot be opened on {HOST}: {error.strerror}"
    return f"--metrics {port} {remedy}"
