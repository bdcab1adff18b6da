"""The shipped head on real cues: noise in one of them lowers its weight and leaves the label; age brings no jump."""

from __future__ import annotations

import wave
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ecmf.branches.face import FaceBranch
from ecmf.branches.scene import SceneBranch
from ecmf.branches.text import TextBranch
from ecmf.branches.voice import VoiceBranch
from ecmf.bundle import SHIPPED, load_bundle
from ecmf.cue import Cue, Modality
from ecmf.head import MAX_AGE_S, FusionHead
from ecmf.labels import EKMAN
from ecmf.speech import SpeechEncoder
from ecmf.vad import SpeechDetector

cv2: Any = pytest.importorskip("cv2")
RATE = 16_000
Cues = Mapping[Modality, Cue]
NEUTRAL_S, SMILE_S = 0.3, 1.5
"""Media time of the smile clip."""


@pytest.fixture(scope="module")
def head() -> FusionHead:
    return FusionHead(load_bundle(SHIPPED / "default"))


@pytest.fixture(scope="module")
def frames(demo_smile: Path) -> list[NDArray[np.uint8]]:
    capture, found = cv2.VideoCapture(str(demo_smile)), []
    while (read := capture.read())[0]:
        found.append(read[1])
    return found


@pytest.fixture(scope="module")
def look(
    weight: Callable[[str], Path], frames: list[NDArray[np.uint8]]
) -> Callable[..., dict[Modality, Cue]]:
    """Media time, and what to do to the picture -> cues of face (none where none is found) and scene."""
    weight("face-landmarker"), weight("efficientnet-lite0")
    branch, scene = FaceBranch(), SceneBranch()
    turn = iter(range(1, 100))

    def cues(
        at_s: float, spoil: Callable[[NDArray[np.uint8]], NDArray[np.uint8]] = lambda frame: frame
    ) -> dict[Modality, Cue]:
        frame = spoil(frames[round(at_s / 2.4 * len(frames))].copy())
        t_ns = next(turn) * 10**11
        people = branch.process(frame, t_ns, t_ns)
        found: dict[Modality, Cue] = {"scene": replace(scene.process(frame, 0, 0), start_ns=0, end_ns=0)}
        if people:
            found["face"] = replace(people[0], start_ns=0, end_ns=0)
        return found

    return cues


@pytest.fixture(scope="module")
def listen(weight: Callable[[str], Path]) -> Callable[[NDArray[np.float32]], dict[Modality, Cue]]:
    """Sound -> the voice cue, if there is a voice in it."""
    bundle = load_bundle(SHIPPED / "voice")
    name = str(bundle.manifest.extra["encoder"]["name"])
    weight(f"whisper-{name}")
    encoder = SpeechEncoder(name)
    branch, detector = VoiceBranch(bundle, encoder=encoder), SpeechDetector(weight("silero-vad"))

    def cues(audio: NDArray[np.float32]) -> dict[Modality, Cue]:
        detector.reset()
        cue = branch.process(audio, encoder.encode(audio), detector.process(audio), 0, 0)
        return {} if cue is None or cue.quality == 0 else {"voice": replace(cue, start_ns=0, end_ns=0)}

    return cues


@pytest.fixture(scope="module")
def reading(weight: Callable[[str], Path]) -> NDArray[np.float32]:
    """3 s from the middle of the Beckett reading."""
    soxr = pytest.importorskip("soxr")
    with wave.open(str(weight("demo-speech-short"))) as file:
        samples = np.frombuffer(file.readframes(file.getnframes()), np.int16).astype(np.float32) / 32768
        audio = np.asarray(soxr.resample(samples, file.getframerate(), RATE), np.float32)
    return audio[4 * RATE : 7 * RATE]


@pytest.fixture(scope="module")
def words() -> Callable[[str], dict[Modality, Cue]]:
    branch = TextBranch()
    return lambda line: {"text": branch.process(line)}


def fused(head: FusionHead, cues: Cues) -> tuple[str, dict[Modality, float]]:
    found = head.fuse(cues, 0)
    assert found is not None
    return EKMAN[int(found.probs.argmax())], dict(found.weights)


def blurred(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.asarray(cv2.GaussianBlur(frame, (0, 0), frame.shape[0] / 30), np.uint8)


def covered(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    noise = np.random.default_rng(0).integers(0, 256, frame.shape, np.uint8)
    frame[frame.shape[0] // 4 :] = noise[frame.shape[0] // 4 :]
    return frame


@pytest.mark.parametrize("spoil", [blurred, covered])
def test_a_face_that_becomes_noise_weighs_less_and_leaves_the_label(
    head: FusionHead,
    look: Callable[..., dict[Modality, Cue]],
    listen: Callable[[NDArray[np.float32]], dict[Modality, Cue]],
    reading: NDArray[np.float32],
    words: Callable[[str], dict[Modality, Cue]],
    spoil: Callable[[NDArray[np.uint8]], NDArray[np.uint8]],
) -> None:
    rest = listen(reading) | words("The meeting is on the second floor at ten.")
    label, weights = fused(head, look(NEUTRAL_S) | rest)
    spoiled, less = fused(head, look(NEUTRAL_S, spoil) | rest)
    assert label == spoiled == "neutral"
    assert less.get("face", 0.0) < 0.7 * weights["face"]


@pytest.mark.parametrize("decibels", [0, -10])
def test_a_voice_that_becomes_noise_weighs_less_and_leaves_the_label(
    head: FusionHead,
    look: Callable[..., dict[Modality, Cue]],
    listen: Callable[[NDArray[np.float32]], dict[Modality, Cue]],
    reading: NDArray[np.float32],
    words: Callable[[str], dict[Modality, Cue]],
    decibels: float,
) -> None:
    rest = look(NEUTRAL_S) | words("The meeting is on the second floor at ten.")
    noise = np.random.default_rng(0).standard_normal(len(reading)).astype(np.float32)
    noise *= float(reading.std()) * 10 ** (-decibels / 20)
    label, weights = fused(head, rest | listen(reading))
    spoiled, less = fused(head, rest | listen(reading + noise))
    assert label == spoiled == "neutral"
    assert less.get("voice", 0.0) < 0.7 * weights["voice"]


@pytest.mark.parametrize(
    "gibberish", ["Blor fenk wuzzle trimp zagged oolp.", "qx zzt kpr vvl mnn", "Uh. Um, uh."]
)
def test_words_that_become_gibberish_weigh_less_and_leave_the_label(
    head: FusionHead,
    look: Callable[..., dict[Modality, Cue]],
    words: Callable[[str], dict[Modality, Cue]],
    gibberish: str,
) -> None:
    rest = look(SMILE_S)
    label, weights = fused(head, rest | words("I am so happy, this is wonderful!"))
    said = words(gibberish)
    spoiled, less = fused(head, rest | (said if said["text"].quality > 0 else {}))
    assert label == spoiled == "happiness"
    assert less.get("text", 0.0) < 0.7 * weights["text"]


def test_a_clear_smile_stands_against_a_plain_reading(
    head: FusionHead,
    look: Callable[..., dict[Modality, Cue]],
    listen: Callable[[NDArray[np.float32]], dict[Modality, Cue]],
    reading: NDArray[np.float32],
) -> None:
    label, weights = fused(head, look(SMILE_S) | listen(reading))
    assert label == "happiness" and weights["face"] > weights["voice"]


@pytest.mark.parametrize("modality", ["face", "voice", "text"])
def test_a_cue_that_ages_fades_and_is_gone_without_a_jump(
    head: FusionHead,
    look: Callable[..., dict[Modality, Cue]],
    listen: Callable[[NDArray[np.float32]], dict[Modality, Cue]],
    reading: NDArray[np.float32],
    words: Callable[[str], dict[Modality, Cue]],
    modality: Modality,
) -> None:
    cues = look(NEUTRAL_S) | listen(reading) | words("The meeting is on the second floor at ten.")
    weights, estimates = [], []
    for life in np.linspace(0, 1.1, 300):
        end_ns = -round(life * MAX_AGE_S[modality] * 1e9)
        aged = {**cues, modality: replace(cues[modality], start_ns=end_ns, end_ns=end_ns)}
        found = head.fuse(aged, 0)
        assert found is not None
        weights.append(found.weights.get(modality, 0.0))
        estimates.append(found.probs)
    assert weights[0] > 0.01 and weights[-1] == 0.0
    assert (np.diff(weights) <= 1e-4).all()
    assert np.abs(np.diff(weights)).max() < 0.03
    assert np.abs(np.diff(estimates, axis=0)).max() < 0.03
