"""Prosody against signals whose pitch, pace and level are known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ecmf.prosody import FEATURES, prosody

RATE = 16000


def voice(
    seconds: float = 2.0, hertz: float = 150.0, glide: float = 0.0, syllables: float = 4.0
) -> NDArray[np.float32]:
    """A harmonic tone, ``glide`` semitones a second, loudness swinging ``syllables`` times a second."""
    times = np.arange(int(seconds * RATE)) / RATE
    pitch = hertz * 2 ** (glide * times / 12)
    phase = 2 * np.pi * np.cumsum(pitch) / RATE
    tone = sum(np.sin(k * phase) / k for k in range(1, 16))
    return (0.1 * tone * (1.1 + np.cos(2 * np.pi * syllables * times))).astype(np.float32)


def measured(audio: NDArray[np.float32], speech: NDArray[np.bool_] | None = None) -> dict[str, float]:
    values = prosody(audio, np.ones(60, bool) if speech is None else speech)
    assert values.dtype == np.float32 and values.shape == (len(FEATURES),)
    return dict(zip(FEATURES, values.tolist(), strict=True))


@pytest.mark.parametrize("hertz", [80, 120, 220, 380])
def test_pitch_is_found_in_semitones_above_100_hz(hertz: float) -> None:
    found = measured(voice(hertz=hertz))
    assert found["pitch_median"] == pytest.approx(12 * np.log2(hertz / 100), abs=0.3)
    assert found["voiced_share"] > 0.95


@pytest.mark.parametrize("hertz", [85, 150, 260, 300, 450])
@pytest.mark.parametrize("noise", [0, 0.05])
def test_a_loud_formant_does_not_move_the_pitch_by_an_octave(hertz: float, noise: float) -> None:
    """At 260 Hz a period is 61.5 samples: two of them fit the sampling better than one."""
    times = np.arange(RATE) / RATE
    tones = [
        (0.05 + np.exp(-(((k * hertz - 1200) / 200) ** 2))) / k**0.5 * np.sin(2 * np.pi * hertz * k * times)
        for k in range(1, int(4000 // hertz) + 1)
    ]
    audio = np.sum(tones, axis=0)
    audio = 0.3 * audio / np.abs(audio).max() + np.random.default_rng(0).normal(0, noise, len(times))
    assert measured(audio.astype(np.float32))["pitch_median"] == pytest.approx(
        12 * np.log2(hertz / 100), abs=0.5
    )


def test_a_rising_voice_has_its_slope() -> None:
    assert measured(voice(glide=3, syllables=0))["pitch_slope"] == pytest.approx(3, abs=0.3)
    assert measured(voice(glide=-3, syllables=0))["pitch_slope"] == pytest.approx(-3, abs=0.3)


def test_syllables_are_counted() -> None:
    assert measured(voice(seconds=3, syllables=5))["peaks_per_second"] == pytest.approx(5, abs=0.8)


def test_noise_is_not_voiced() -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, 2 * RATE).astype(np.float32)
    assert measured(noise)["voiced_share"] < 0.1


@settings(max_examples=20, deadline=None)
@given(st.floats(-40, 10))
def test_level_changes_nothing(db: float) -> None:
    audio = voice()
    loud = prosody((audio * 10 ** (db / 20)).astype(np.float32), np.ones(60, bool))
    np.testing.assert_allclose(loud, prosody(audio, np.ones(60, bool)), rtol=1e-2, atol=1e-2)


def test_only_speech_counts() -> None:
    high, low = voice(1.5, hertz=300), voice(1.5, hertz=100)
    first_half = np.arange(60) < 30
    assert measured(np.concatenate([high, low]), first_half)["pitch_median"] == pytest.approx(19, abs=0.5)
    assert measured(np.concatenate([high, low]), ~first_half)["pitch_median"] == pytest.approx(0, abs=0.5)


@given(st.integers(0, 4000), st.integers(1, 20))
def test_what_is_too_short_or_silent_is_all_zeros(samples: int, parts: int) -> None:
    audio = np.zeros(samples, np.float32)
    assert not prosody(audio, np.zeros(parts, bool)).any()
    assert np.isfinite(prosody(audio, np.ones(parts, bool))).all()
