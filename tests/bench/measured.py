"""Runs as a subscriber might have seen them, for tests to reckon with."""

from __future__ import annotations

from typing import Any

from bench import results
from bench.figures import Run, figures_of, targets
from bench.live import Usage
from bench.throughput import Watched
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


def ten_seconds() -> Run:
    """A hundred faces, 5, 6, 7, 8 and 9 ms late in turn, and two cores of work for half a core."""
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
