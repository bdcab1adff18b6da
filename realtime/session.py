"""One run of `ecmf-live`: opens everything, runs the pipeline beside the main thread, and ends in order."""

from __future__ import annotations

import importlib.util
import logging
import sys
import threading
import time
from typing import TYPE_CHECKING

from ecmf.bundle import SHIPPED, load_bundle
from realtime.config import Config
from realtime.csvlog import CsvLog
from realtime.jsonlines import JsonLines, claim_stdout
from realtime.publish import Publisher, Sink, Sinks, new_run
from realtime.status_line import StatusLine
from realtime.stopping import Stop
from realtime.view import LiveView

if TYPE_CHECKING:
    from realtime.annotate import Annotation
    from realtime.pipeline import Pipeline
    from realtime.preview import Preview
    from realtime.summary import Summary

log = logging.getLogger("realtime.session")

PATIENCE_S = 1.4
"""How long an asked end may take; then the process ends without waiting any longer."""

POLL_S = 0.05
"""How often the main thread looks whether it is over."""


class Session:
    """Everything between a configuration and an exit code."""

    def __init__(self, config: Config, stop: Stop) -> None:
        self._config = config
        self._stop = stop
        self._title = config.source_name
        """With the address really bound, once it is."""
        self._over = threading.Event()
        self._runner: Annotation | Pipeline | None = None
        self._preview: Preview | None = None
        self._lines: JsonLines | None = None
        self._summary: Summary | None = None
        self._failure: BaseException | None = None

    def run(self) -> int:
        """Run to the end; returns 0. Raises EcmfError for whatever a person has to put right."""
        sinks = self._open_sinks()
        try:
            threading.Thread(target=self._work, args=(sinks,), name="pipeline", daemon=True).start()
            in_time = self._watch()
        finally:
            sinks.close()
        failure = self._failure or (None if self._lines is None else self._lines.failure)
        if failure is not None and not self._stop.asked():
            raise failure
        if self._summary is not None:
            say(describe(self._summary))
        else:
            say(
                "ecmf-live: stopped before the first estimate"
                if in_time
                else "ecmf-live: stopped without waiting"
            )
        if failure is not None:
            log.warning("while stopping: %s", failure)
        if self._lines is not None and self._lines.dropped:
            log.warning("%d lines were not written: stdout was not read fast enough", self._lines.dropped)
        return 0

    def _open_sinks(self) -> Sinks:
        """Everything that can be refused at once, before models are fetched and loaded."""
        config = self._config
        opened: list[Sink] = []
        local: list[Sink] = []
        try:
            publisher = Publisher(
                config.wire.bind, high_water_mark=config.wire.high_water_mark, replay=config.wire.replay
            )
            opened.append(publisher)
            if config.wire.metrics is not None:
                from realtime.metrics import Metrics

                opened.append(Metrics(config.wire.metrics))
            if config.output.csv is not None:
                head = load_bundle(config.models.model or SHIPPED / "default", verify=False)
                opened.append(CsvLog(config.output.csv, head.manifest.labels))
            if config.output.preview:
                from realtime.preview import Preview

                self._preview = Preview(f"ecmf-live: {config.source_name}", on_closed=self._stop.ask)
                local.append(self._preview)
        except BaseException:
            for sink in (*opened, *local):
                sink.close()
            raise
        self._title = f"{config.source_name} on {publisher.endpoint}"
        if config.output.json:
            self._lines = JsonLines(claim_stdout(), self._stop, lossless=config.input.fast)
            opened.append(self._lines)
        elif not config.output.quiet:
            local.append(LiveView(self._title) if sys.stdout.isatty() else StatusLine())
        return Sinks(opened, local=local, now_ns=time.monotonic_ns, transcript=config.wire.transcript)

    def _work(self, sinks: Sinks) -> None:
        """The pipeline's thread: native code that loads a model there cannot keep a signal from being heard."""
        try:
            self._summary = self._perform(sinks)
        except BaseException as error:  # handed to the main thread, which raises it
            self._failure = error
        finally:
            self._over.set()

    def _perform(self, sinks: Sinks) -> Summary | None:
        from realtime.annotate import Annotation
        from realtime.assemble import Job, Models, open_inputs
        from realtime.clock import SystemClock
        from realtime.pipeline import Pipeline

        config = self._config
        fetch_for(config)
        inputs = open_inputs(config, None if config.input.fast else SystemClock())
        say(f"ecmf-live: {self._title}; Ctrl-C ends it")
        on_frame = self._preview.offer if self._preview is not None else None
        job = Job(config, sinks.publish, new_run(), inputs, Models(config), on_frame)
        self._runner = Annotation(job) if config.input.fast else Pipeline(job)
        if self._stop.asked():
            inputs.close()
            return None
        return self._runner.run()

    def _watch(self) -> bool:
        """Wait for the end; False when it was asked for and did not come in time."""
        deadline: float | None = None
        while not self._over.wait(POLL_S):
            if self._preview is not None:
                self._preview.draw()
            if not self._stop.asked():
                continue
            if self._runner is not None:
                self._runner.stop()
            deadline = deadline or time.monotonic() + PATIENCE_S
            if time.monotonic() > deadline:
                return False
        return True


def fetch_for(config: Config) -> None:
    """Fetch what is missing, with progress bars; the branches find it in the cache then. Raises WeightError."""
    from ecmf.progress import bars
    from ecmf.weights import pull

    with bars() as progress:
        pull(weights_for(config), offline=config.models.offline, progress=progress)


def weights_for(config: Config) -> list[str]:
    """Names of the registered weights that a run with ``config`` reads."""
    from ecmf.registry import registry

    asked, chosen = config.input, config.models
    names: list[str] = []
    if asked.demo or asked.source is not None or asked.camera != "off":
        names += ["face-landmarker", "efficientnet-lite0"]
        if chosen.face == "retinaface":
            names.append("retinaface")
    if asked.mic != "off":
        voice = load_bundle(SHIPPED / "voice", verify=False).manifest
        encoders = {voice.extra["encoder"]["name"], chosen.asr}
        names += [f"whisper-{name}" for name in sorted(encoders) if f"whisper-{name}" in registry().weights]
        names.append("silero-vad")
        installed = importlib.util.find_spec("llama_cpp") is not None
        if chosen.asr != "off" and chosen.llm == "auto" and installed:
            names.append("smollm2-135m")
    if asked.demo:
        names += ["demo-face", "demo-speech"] if asked.mic != "off" else ["demo-face"]
    return names


def say(text: str) -> None:
    """To the person, on stderr."""
    print(text, file=sys.stderr, flush=True)


def describe(summary: Summary) -> str:
    """What a run amounted to, in a few lines."""
    present = ", ".join(f"{name} {share:.0%}" for name, share in summary.present.items())
    labels = ", ".join(f"{name} {count}" for name, count in summary.labels.items())
    estimates = "1 estimate" if summary.estimates == 1 else f"{summary.estimates} estimates"
    told = [
        f"{estimates} in {summary.seconds:.1f} s, {summary.rate_hz:.1f} a second",
        f"labels: {labels or 'none'}",
        f"present: {present}",
    ]
    for trigger, each in summary.latency_ms.items():
        told.append(
            f"latency of {trigger}: p50 {each.p50:.1f} ms, p95 {each.p95:.1f} ms, p99 {each.p99:.1f} ms"
            f" ({each.count} estimates)"
        )
    drops = ", ".join(f"{cause} {count}" for cause, count in summary.drops.items())
    told += [
        f"dropped: {drops or 'nothing'}",
        f"cores used: {summary.cores:.2f}, peak memory: {summary.peak_rss_mb:.0f} MB",
        "engines: " + (", ".join(f"{name} {use}" for name, use in summary.engines.items()) or "none"),
    ]
    if summary.cold_start_s is not None:
        told.append(f"first label {summary.cold_start_s:.1f} s after the start")
    return "\n".join(f"ecmf-live: {line}" for line in (*told, *summary.notes))
