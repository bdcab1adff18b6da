"""The voice branch on real speech and on what is no voice."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from ecmf.branches.voice import (
    MIN_SPEECH_S,
    SESSION_MEMORY_S,
    WINDOW_S,
    VoiceBranch,
    VoiceSession,
    quality,
    voice_inputs,
)
from ecmf.bundle import SHIPPED, load_bundle
from ecmf.cue import Cue
from ecmf.errors import BundleError
from ecmf.labels import EKMAN
from ecmf.speech import SpeechEncoder
from ecmf.vad import SpeechDetector

RATE = 16000
Audio = NDArray[np.float32]
Listen = Callable[..., Cue | None]


@pytest.fixture(scope="module")
def reading(weight: Callable[[str], Path]) -> Audio:
    """10 s of Beckett at 16 kHz."""
    import wave

    soxr = pytest.importorskip("soxr")
    with wave.open(str(weight("demo-speech-short"))) as file:
        samples = np.frombuffer(file.readframes(file.getnframes()), np.int16).astype(np.float32) / 32768
        return np.asarray(soxr.resample(samples, file.getframerate(), RATE), np.float32)


@pytest.fixture(scope="module")
def encoder(weight: Callable[[str], Path]) -> SpeechEncoder:
    name = str(load_bundle(SHIPPED / "voice").manifest.extra["encoder"]["name"])
    weight(f"whisper-{name}")
    return SpeechEncoder(name)


@pytest.fixture(scope="module")
def branch(encoder: SpeechEncoder) -> VoiceBranch:
    return VoiceBranch(encoder=encoder)


@pytest.fixture(scope="module")
def listen(weight: Callable[[str], Path], encoder: SpeechEncoder, branch: VoiceBranch) -> Listen:
    """Audio -> cue, as the live system goes about it."""
    detector = SpeechDetector(weight("silero-vad"))

    def cue(audio: Audio, **more: Any) -> Cue | None:
        detector.reset()
        speech = detector.process(audio)
        end_ns = 1_000_000_000_000
        start_ns = end_ns - round(len(audio) / RATE * 1e9)
        return branch.process(audio, encoder.encode(audio), speech, start_ns, end_ns, **more)

    return cue


def test_speech_gives_a_whole_cue(listen: Listen, reading: Audio) -> None:
    cue = listen(reading[RATE : 6 * RATE], person=3)
    assert cue is not None
    assert cue.modality == "voice" and cue.person == 3
    assert cue.probs is not None and cue.probs.shape == (len(EKMAN),)
    assert cue.probs.sum() == pytest.approx(1, abs=1e-5)
    assert cue.end_ns - cue.start_ns == round(WINDOW_S * 1e9)
    assert 0.5 < cue.quality <= 1
    assert cue.stage_ms["voice"] > 0


def test_a_short_beginning_is_stamped_as_long_as_it_is(listen: Listen, reading: Audio) -> None:
    cue = listen(reading[RATE : RATE + 24000])
    assert cue is not None
    assert cue.end_ns - cue.start_ns == 1_500_000_000


def breathing(times: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """Air through the nose and the mouth: noise between 400 and 2500 Hz that swells every three seconds."""
    spectrum = np.fft.rfft(rng.normal(0, 1, len(times)))
    hertz = np.fft.rfftfreq(len(times), 1 / RATE)
    air = np.fft.irfft(spectrum * ((hertz > 400) & (hertz < 2500)), len(times))
    return 0.1 * air * np.maximum(np.sin(2 * np.pi * times / 3), 0) ** 2


def keyboard(times: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """Six keys a second: a burst of noise and the ring of the case, gone after 20 ms."""
    sound = rng.normal(0, 0.001, len(times))
    for start in np.cumsum(rng.exponential(1 / 6, 40)):
        since = times - start
        decay = np.where(since >= 0, np.exp(-np.maximum(since, 0) / 0.006), 0)
        ring = np.sin(2 * np.pi * rng.uniform(300, 2500) * since)
        sound += 0.2 * decay * (0.5 * ring + 0.5 * rng.normal(0, 1, len(times)))
    return sound


def music(times: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """A plucked melody over a bass and a drum, two beats a second."""
    sound = np.zeros(len(times))
    for beat in range(int(times[-1] * 2) + 1):
        since = times - beat / 2
        on = since >= 0
        note = 220 * 2 ** (rng.choice([0, 3, 5, 7, 10, 12]) / 12)
        pluck = np.sum([np.sin(2 * np.pi * note * k * since) / k for k in range(1, 8)], axis=0)
        bass = np.sin(2 * np.pi * 55 * since)
        drum = rng.normal(0, 1, len(times)) * np.exp(-np.maximum(since, 0) / 0.03)
        sound += np.where(
            on, np.exp(-np.maximum(since, 0) / 0.25) * (0.1 * pluck + 0.1 * bass) + 0.05 * drum, 0
        )
    return sound


@pytest.mark.parametrize("level", [1.0, 0.1])
@pytest.mark.parametrize(
    "kind", ["silence", "white noise", "clicks", "chord", "breathing", "keyboard", "music"]
)
def test_what_is_no_voice_gives_no_cue(listen: Listen, kind: str, level: float) -> None:
    rng = np.random.default_rng(0)
    times = np.arange(4 * RATE) / RATE
    sounds = {
        "silence": lambda: np.zeros(len(times)),
        "white noise": lambda: rng.normal(0, 0.05, len(times)),
        "clicks": lambda: np.where(rng.random(len(times)) < 4 / RATE, 0.8, 0.0),
        "chord": lambda: 0.1 * np.sum([np.sin(2 * np.pi * f * times) for f in (261.6, 329.6, 392.0)], axis=0),
        "breathing": lambda: breathing(times, rng),
        "keyboard": lambda: keyboard(times, rng),
        "music": lambda: music(times, rng),
    }
    assert listen((level * sounds[kind]()).astype(np.float32)) is None


def test_speech_that_left_the_window_gives_no_cue(listen: Listen, reading: Audio) -> None:
    gone = np.concatenate([reading[RATE : 3 * RATE], np.zeros(int((WINDOW_S + 0.5) * RATE), np.float32)])
    assert listen(gone) is None


def test_only_the_window_counts(listen: Listen, reading: Audio) -> None:
    """What came before changes the estimate only through the encoder's context."""
    short = listen(reading[5 * RATE : 9 * RATE])
    long = listen(reading[1 * RATE : 9 * RATE])
    assert short is not None and long is not None and short.probs is not None and long.probs is not None
    assert np.abs(short.probs - long.probs).max() < 0.35


def test_quality_falls_with_noise_level_and_time(listen: Listen, reading: Audio) -> None:
    audio = reading[RATE : 5 * RATE]
    rng = np.random.default_rng(1)
    clear = listen(audio)
    noisy = listen((audio + rng.normal(0, audio.std() / 2, len(audio))).astype(np.float32))
    faint = listen((audio * 0.003).astype(np.float32))
    ended = listen(np.concatenate([audio, np.zeros(int(1.6 * RATE), np.float32)]))
    assert clear is not None
    for worse in (noisy, faint, ended):
        assert worse is None or worse.quality < 0.8 * clear.quality


def test_quality_of_no_speech_is_zero() -> None:
    assert quality(np.zeros(RATE, np.float32), np.zeros(12, np.float32)) == 0


def test_a_session_takes_off_what_was_heard_as_neutral() -> None:
    average = np.ones((3, 4), np.float32)
    session = VoiceSession(average)
    assert not session.shift().any()
    states, mask = np.full((3, 100, 4), 5, np.float32), np.repeat([1, 0], 50).astype(np.float32)
    states[:, 50:] = 100  # silence
    session.learn(states, mask, 0.0)
    assert not session.shift().any()  # nothing of it was neutral
    session.learn(states, mask, 1.0)
    assert session.seconds == pytest.approx(4)
    np.testing.assert_allclose(session.shift(), 4 * session.seconds / (session.seconds + 6), rtol=1e-5)


@given(st.lists(st.tuples(st.integers(0, 60), st.floats(0, 1), st.floats(-5, 5)), max_size=40))
def test_a_session_never_goes_past_what_it_heard(heard: list[tuple[int, float, float]]) -> None:
    session = VoiceSession(np.zeros((3, 2), np.float32))
    for frames, neutral, value in heard:
        session.learn(np.full((3, frames, 2), value, np.float32), np.ones(frames, np.float32), neutral)
    assert 0 <= session.seconds <= SESSION_MEMORY_S
    assert np.abs(session.shift()).max() <= max((abs(value) for *_, value in heard), default=0) + 1e-4


def test_a_session_is_judged_against_its_speaker(listen: Listen, reading: Audio, branch: VoiceBranch) -> None:
    """The first cue is the same with and without; later ones differ."""
    session = branch.session()
    assert session is not None
    pieces = [reading[k * RATE : (k + 3) * RATE] for k in (1, 2, 3, 4, 5, 6)]
    alone = [listen(piece) for piece in pieces]
    turned = [listen(piece, session=session, new_s=1.0) for piece in pieces]
    first, last = (
        [cue.probs for cue in cues if cue is not None and cue.probs is not None] for cues in (alone, turned)
    )
    np.testing.assert_array_equal(first[0], last[0])
    assert session.seconds > 0 and np.abs(first[-1] - last[-1]).max() > 1e-4


def test_inputs_end_with_the_audio(encoder: SpeechEncoder, reading: Audio) -> None:
    audio = reading[: 5 * RATE]
    speech = np.zeros(156, np.float32)
    speech[-31:] = 1  # the last second
    inputs = voice_inputs(audio, encoder.encode(audio), speech, WINDOW_S)
    assert inputs.states.shape[:2] == (3, 40) and inputs.mask.shape == (40,)
    assert inputs.mask[-12:].min() > 0.9 and inputs.mask[:26].max() < 0.1


def test_another_encoder_is_refused(weight: Callable[[str], Path], encoder: SpeechEncoder) -> None:
    other = "base" if encoder.name != "base" else "tiny.en"
    weight(f"whisper-{other}")
    with pytest.raises(BundleError, match="reads the states of"):
        VoiceBranch(encoder=SpeechEncoder(other))


def test_the_shipped_bundle_answers_as_when_it_was_made(encoder: SpeechEncoder, reading: Audio) -> None:
    import json

    branch = VoiceBranch(encoder=encoder)
    golden = json.loads((SHIPPED / "voice" / "golden.json").read_text())
    audio = reading[int(golden["from_s"] * RATE) : int(golden["to_s"] * RATE)]
    detector = SpeechDetector()
    speech = detector.process(audio)
    inputs = voice_inputs(audio, encoder.encode(audio), speech, WINDOW_S)
    outputs = branch.engine.run(
        {"states": inputs.states[None], "mask": inputs.mask[None], "prosody": inputs.prosody[None]}
    )
    np.testing.assert_allclose(outputs["logits"][0], golden["logits"], atol=0.05)


def test_the_manifest_separates_the_speakers() -> None:
    extra = load_bundle(SHIPPED / "voice").manifest.extra
    assert extra["held_out_speakers"] and not set(extra["held_out_speakers"]) & set(extra["trained_speakers"])
    assert MIN_SPEECH_S > 0
