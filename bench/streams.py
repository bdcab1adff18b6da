"""N cameras with sound in one process, on one ZeroMQ socket: what bench/throughput.py measures from outside.

Every stream has a pipeline of its own, as `ecmf-live` builds it. At the end, asked to by SIGTERM, it tells on stdout
which frames each face worker took: one JSON object, stream -> capture times in nanoseconds, and the nominal rate.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
import time
from dataclasses import replace

from ecmf.errors import EcmfError
from realtime import cli, config
from realtime.assemble import Job, Models, open_inputs
from realtime.clock import SystemClock
from realtime.pipeline import Pipeline
from realtime.publish import Publisher, Sinks, new_run
from realtime.session import fetch_for
from realtime.sources.base import Frame
from realtime.stopping import Stop, leave

STOP_S = 5.0
"""How long the pipelines may take to end."""


class Stream:
    """One pipeline on a thread of its own."""

    def __init__(self, asked: config.Config, name: str, sinks: Sinks, stop: Stop) -> None:
        own = replace(asked, input=replace(asked.input, name=name))
        self.name = name
        self.taken: list[int] = []
        inputs = open_inputs(own, SystemClock())
        self.fps = inputs.video.fps if inputs.video is not None else 0.0
        self.failure: EcmfError | None = None
        self._stop = stop
        self._pipeline = Pipeline(Job(own, sinks.publish, new_run(), inputs, Models(own), self._take))
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def end(self) -> None:
        self._pipeline.stop()

    def join(self, timeout_s: float) -> None:
        self._thread.join(timeout_s)

    def _take(self, frame: Frame) -> None:
        self.taken.append(frame.end_ns)

    def _run(self) -> None:
        try:
            self._pipeline.run()
        except EcmfError as error:
            self.failure = error
            self._stop.ask()


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--streams", type=int, required=True)
    parser.add_argument("live", nargs="*", help="options of ecmf-live, after --")
    options = parser.parse_args()
    stop = Stop()
    with stop.on_signals():
        try:
            said = vars(cli.parser().parse_args(options.live))
            known = {key.replace("_", "-"): value for key, value in said.items()}
            for other in ("config", "list-devices", "verbose", "version"):
                known.pop(other)
            code = run(config.load(None, known), options.streams, stop)
        except EcmfError as error:
            print(f"streams: {error}", file=sys.stderr)
            code = error.exit_code
    return leave(code)


def run(asked: config.Config, count: int, stop: Stop) -> int:
    """Run ``count`` streams until asked to stop. Raises EcmfError when one of them fails."""
    fetch_for(asked)
    publisher = Publisher(asked.wire.bind, high_water_mark=100_000)
    sinks = Sinks([publisher], now_ns=time.monotonic_ns)
    streams = [Stream(asked, f"cam{number}", sinks, stop) for number in range(count)]
    for stream in streams:
        stream.start()
    while not stop.asked():
        time.sleep(0.05)
    for stream in streams:
        stream.end()
    for stream in streams:
        stream.join(STOP_S)
    sinks.close()
    for stream in streams:
        if stream.failure is not None:
            raise stream.failure
    told = {stream.name: {"fps": stream.fps, "taken": stream.taken} for stream in streams}
    sys.stdout.write(json.dumps(told) + "\n")
    sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
