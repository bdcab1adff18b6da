"""Messages to send around: complete and sound, with whatever a test wants to differ."""

from __future__ import annotations

from typing import Any

from realtime.message import (
    EngineUse,
    Estimate,
    Health,
    Modalities,
    ModalityState,
    Transcript,
    Word,
    WorkerState,
)

PROBS = {
    "neutral": 0.1,
    "happiness": 0.7,
    "sadness": 0.05,
    "anger": 0.05,
    "fear": 0.04,
    "disgust": 0.03,
    "surprise": 0.03,
}
ENGINE = {"face": EngineUse(backend="openvino", precision="fp32")}


def modalities() -> Modalities:
    return Modalities(
        face=ModalityState(present=True, weight=0.6, age_ms=12.5, quality=0.9, probs=PROBS),
        scene=ModalityState(present=True, weight=0.1, age_ms=300.0, quality=0.5),
        voice=ModalityState(present=True, weight=0.3, age_ms=120.0, quality=0.7, probs=PROBS),
        text=ModalityState(present=False, reason="no_words"),
    )


def nothing() -> Modalities:
    absent = ModalityState(present=False, reason="starting")
    return Modalities(face=absent, scene=absent, voice=absent, text=absent)


def estimate(**changes: Any) -> Estimate:
    fields: dict[str, Any] = {
        "run": "0123abcd",
        "source": "demo",
        "person": 1,
        "bbox": (10.0, 20.0, 100.0, 120.0),
        "t_capture_ns": 1_000_000_000,
        "clock": "file",
        "t_media_s": 1.25,
        "trigger": "face",
        "label": "happiness",
        "confidence": 0.7,
        "reason": None,
        "raw": PROBS,
        "smoothed": PROBS,
        "modalities": modalities(),
        "latency_ms": {"detect": 1.5, "fusion": 0.2},
        "model": "default-1+0123abcd",
        "engine": ENGINE,
    }
    return Estimate(**(fields | changes))


def unlabelled(reason: str = "no_person", **changes: Any) -> Estimate:
    none = {"label": None, "confidence": None, "raw": None, "smoothed": None, "reason": reason}
    return estimate(**({"person": None, "bbox": None, "modalities": nothing()} | none | changes))


def transcript(**changes: Any) -> Transcript:
    fields: dict[str, Any] = {
        "run": "0123abcd",
        "source": "demo",
        "person": None,
        "utterance": 3,
        "text": "It was the best",
        "partial": " of",
        "words": [Word(text="best", t_start_ns=1, t_end_ns=2)],
        "final": False,
        "t_capture_ns": 2,
        "clock": "adc",
        "t_media_s": None,
    }
    return Transcript(**(fields | changes))


def health(**changes: Any) -> Health:
    fields: dict[str, Any] = {
        "run": "0123abcd",
        "source": "demo",
        "uptime_s": 3.5,
        "workers": {"face": WorkerState(alive=True, rate_hz=24.0, drops={"late": 2})},
        "engine": ENGINE,
        "clocks": {"picture": "exposure", "sound": "adc"},
    }
    return Health(**(fields | changes))
