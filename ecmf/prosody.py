"""Prosody of a stretch of speech: pitch, loudness contour, voice quality and pace, in plain numpy."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

SAMPLE_RATE = 16000
HOP = 320
"""Samples between frames: 50 a second, half a window apart."""

_WINDOW = 640  # 40 ms: nearly three periods of the lowest pitch
_FFT = 1024  # room for the window and its longest lag
_LOWEST_HZ, _HIGHEST_HZ = 70.0, 500.0
_VOICED = 0.45  # Boersma 1993's voicing threshold on the normalised autocorrelation
_OCTAVE_COST = 0.03  # prefers the shorter of nearly equal lags (Boersma 1993, section 4)
_REACH = (0.65, 2.2)  # of the lower and upper quartile of pitch: a lively voice spans more than an octave
_FLOOR = 1e-10

FEATURES = (
    "pitch_median",  # semitones above 100 Hz; 0 where nothing is voiced, as for the next four
    "pitch_deviation",  # semitones
    "pitch_range",  # 10th to 90th percentile, semitones
    "pitch_slope",  # semitones a second
    "pitch_change",  # mean absolute change between voiced neighbours, semitones a frame
    "voiced_share",  # of the speech frames
    "periodicity",  # mean normalised autocorrelation peak of voiced frames
    "periodicity_deviation",
    "loudness_deviation",  # dB; loudness itself is left out: it says how far the microphone is
    "loudness_range",  # 10th to 90th percentile, dB
    "loudness_slope",  # dB a second
    "loudness_change",  # mean absolute change between frames, dB
    "alpha_ratio",  # 1-5 kHz over 50-1000 Hz, dB: vocal effort
    "alpha_ratio_deviation",
    "hammarberg",  # highest peak below 2 kHz over highest in 2-5 kHz, dB
    "low_slope",  # dB per kHz, 100-500 Hz
    "middle_slope",  # dB per kHz, 500-1500 Hz
    "centroid",  # kHz
    "centroid_deviation",
    "flux",  # mean distance of neighbouring spectra, each of unit sum
    "peaks_per_second",  # loudness maxima: syllables, roughly
    "speech_share",  # of the whole stretch
    "pause_count",  # gaps inside the speech, a second
)
"""Names of the entries of `prosody`'s result (after eGeMAPS, Eyben et al. 2016)."""


def prosody(audio: NDArray[np.float32], speech: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Features of ``audio`` float32[n] (16 kHz mono, [-1, 1]), as float32[len(FEATURES)].

    ``speech`` bool[m] says which of m equal parts of the audio hold speech; the statistics run over those. All zeros
    where fewer than five frames do. Independent of level: gain changes no entry.
    """
    count = (len(audio) - _WINDOW) // HOP + 1
    if count < 5:
        return np.zeros(len(FEATURES), np.float32)
    frames = np.lib.stride_tricks.sliding_window_view(audio, _WINDOW)[::HOP]
    centres = np.arange(count) * HOP + _WINDOW // 2
    active = speech[np.minimum(centres * len(speech) // len(audio), len(speech) - 1)]
    if active.sum() < 5:
        return np.zeros(len(FEATURES), np.float32)
    frames = frames - frames.mean(axis=1, keepdims=True)
    power = _power(frames)
    energy = power.sum(axis=1)
    loudness = _decibel(energy)
    # A detector's edges reach past the speech; frames 40 dB below its loudest say nothing about it.
    active = active & (loudness > loudness[active].max() - 40)
    times = np.arange(count) * (HOP / SAMPLE_RATE)
    pitch, periodicity = _pitch(power, active)
    values = [
        *_pitch_statistics(pitch, periodicity, active, times),
        *_loudness_statistics(loudness, active, times),
        *_spectrum_statistics(power, active),
        *_pace(loudness, active, times),
    ]
    return np.array(values, np.float32)


@cache
def _hann() -> NDArray[np.float32]:
    return np.hanning(_WINDOW).astype(np.float32)


@cache
def _lags() -> tuple[int, int]:
    """Shortest and longest period, in half samples."""
    return int(2 * SAMPLE_RATE / _HIGHEST_HZ), int(np.ceil(2 * SAMPLE_RATE / _LOWEST_HZ))


@cache
def _window_correlation() -> NDArray[np.float32]:
    correlation = np.fft.irfft(np.abs(np.fft.rfft(_hann(), _FFT)) ** 2, 2 * _FFT)
    shape: NDArray[np.float32] = (correlation / correlation[0]).astype(np.float32)
    return shape


@cache
def _hertz() -> NDArray[np.float32]:
    return np.fft.rfftfreq(_FFT, 1 / SAMPLE_RATE).astype(np.float32)


def _decibel(power: NDArray[np.float32]) -> NDArray[np.float32]:
    out: NDArray[np.float32] = 10 * np.log10(np.maximum(power, _FLOOR))
    return out


def _power(frames: NDArray[np.float32]) -> NDArray[np.float32]:
    spectrum = np.fft.rfft(frames * _hann(), _FFT, axis=1)
    power: NDArray[np.float32] = (spectrum.real**2 + spectrum.imag**2).astype(np.float32)
    return power


def _pitch(
    power: NDArray[np.float32], active: NDArray[np.bool_]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Pitch in semitones above 100 Hz and its strength, float32[frames] each (Boersma 1993).

    Chosen twice: the second time within reach of the quartiles of the first (after De Looze & Hirst 2008), which
    brings back the frames that fell an octave off.
    """
    shortest, longest = _lags()
    # Twice the sampling rate: a period of 61.5 samples would show half as well as its double, 123.
    fine = np.fft.irfft(power, 2 * _FFT, axis=1)[:, : longest + 2]
    strength = fine / np.maximum(fine[:, :1], _FLOOR) / _window_correlation()[: longest + 2]
    at = strength[:, shortest : longest + 1]
    before, after = strength[:, shortest - 1 : longest], strength[:, shortest + 1 :]
    bend = np.where((at >= before) & (at > after), before - 2 * at + after, -np.inf)
    shift = 0.5 * (before - after) / bend
    height = np.where(np.isfinite(bend), at - 0.25 * (before - after) * shift, -1)
    lags = np.arange(shortest, longest + 1)
    preferred = height - _OCTAVE_COST * np.log2(lags / shortest).astype(np.float32)
    rows = np.arange(len(power))
    best = preferred.argmax(axis=1)
    sure = active & (height[rows, best] > _VOICED)
    if sure.any():
        low, high = np.percentile(lags[best[sure]], (25, 75))
        reach = (lags >= low / _REACH[1]) & (lags <= high / _REACH[0])
        best = np.where(reach, preferred, -np.inf).argmax(axis=1)
    hertz = 2 * SAMPLE_RATE / (lags[best] + shift[rows, best])
    peaks = np.clip(height[rows, best], 0, 1)
    return (12 * np.log2(hertz / 100)).astype(np.float32), peaks.astype(np.float32)


def _slope(times: NDArray[np.floating], values: NDArray[np.floating]) -> float:
    """Least-squares slope of ``values`` over ``times``, per second."""
    centred = times - times.mean()
    spread = float((centred**2).sum())
    return float((centred * values).sum()) / spread if spread > 0 else 0.0


def _range(values: NDArray[np.floating]) -> float:
    low, high = np.percentile(values, (10, 90))
    return float(high - low)


def _pitch_statistics(
    pitch: NDArray[np.float32],
    periodicity: NDArray[np.float32],
    active: NDArray[np.bool_],
    times: NDArray[np.floating],
) -> list[float]:
    voiced = active & (periodicity > _VOICED)
    share = float(voiced.sum() / active.sum())
    if voiced.sum() < 3:
        return [0.0] * 5 + [share, 0.0, 0.0]
    # Octave jumps are tracking errors: keep what lies within an octave of the median.
    median = float(np.median(pitch[voiced]))
    voiced &= np.abs(pitch - median) < 12
    track = pitch[voiced]
    neighbours = voiced[1:] & voiced[:-1]
    change = float(np.abs(np.diff(pitch))[neighbours].mean()) if neighbours.any() else 0.0
    strengths = periodicity[voiced]
    return [
        median,
        float(track.std()),
        _range(track),
        _slope(times[voiced], track),
        change,
        share,
        float(strengths.mean()),
        float(strengths.std()),
    ]


def _loudness_statistics(
    loudness: NDArray[np.float32], active: NDArray[np.bool_], times: NDArray[np.floating]
) -> list[float]:
    spoken = loudness[active]
    neighbours = active[1:] & active[:-1]
    change = float(np.abs(np.diff(loudness))[neighbours].mean()) if neighbours.any() else 0.0
    return [float(spoken.std()), _range(spoken), _slope(times[active], spoken), change]


def _spectrum_statistics(power: NDArray[np.float32], active: NDArray[np.bool_]) -> list[float]:
    hertz = _hertz()
    spoken = power[active]

    def band(low: float, high: float) -> NDArray[np.float32]:
        return spoken[:, (hertz >= low) & (hertz < high)]

    alpha = _decibel(band(1000, 5000).sum(axis=1)) - _decibel(band(50, 1000).sum(axis=1))
    hammarberg = _decibel(band(50, 2000).max(axis=1)) - _decibel(band(2000, 5000).max(axis=1))
    average = _decibel(spoken.mean(axis=0))
    slopes = []
    for low, high in ((100, 500), (500, 1500)):
        inside = (hertz >= low) & (hertz < high)
        slopes.append(_slope(hertz[inside] / 1000, average[inside]))
    total = np.maximum(spoken.sum(axis=1, keepdims=True), _FLOOR)
    shares = spoken / total
    centroid = shares @ (hertz / 1000)
    flux = float(np.abs(np.diff(shares, axis=0)).sum(axis=1).mean()) if len(shares) > 1 else 0.0
    return [
        float(alpha.mean()),
        float(alpha.std()),
        float(hammarberg.mean()),
        *slopes,
        float(centroid.mean()),
        float(centroid.std()),
        flux,
    ]


def _pace(
    loudness: NDArray[np.float32], active: NDArray[np.bool_], times: NDArray[np.floating]
) -> list[float]:
    kernel = np.hanning(7)[1:-1]  # 100 ms: half a syllable
    smooth = np.convolve(loudness - loudness.min(), kernel / kernel.sum(), mode="same")
    inner = (smooth[1:-1] > smooth[:-2]) & (smooth[1:-1] >= smooth[2:]) & active[1:-1]
    spoken_seconds = active.sum() * (HOP / SAMPLE_RATE)
    inside = np.flatnonzero(active)
    stretch = active[inside[0] : inside[-1] + 1]
    pauses = int((stretch[:-1] & ~stretch[1:]).sum())
    whole = len(times) * (HOP / SAMPLE_RATE)
    return [
        float(inner.sum() / spoken_seconds),
        float(spoken_seconds / whole),
        float(pauses / spoken_seconds),
    ]
