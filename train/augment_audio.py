"""What happens to a voice on its way to a real microphone: distance, rooms, noise, telephones, dropouts."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ecmf.errors import need

SAMPLE_RATE = 16000
Audio = NDArray[np.float32]


def gain(audio: Audio, db: float) -> Audio:
    """Level change in dB, clipped to [-1, 1] as a converter does."""
    return np.clip(audio * np.float32(10 ** (db / 20)), -1, 1).astype(np.float32)


def coloured_noise(samples: int, exponent: float, rng: np.random.Generator) -> Audio:
    """Noise with power ~ f^-exponent (0 white, 1 pink, 2 brown), unit variance, float32[samples]."""
    spectrum = np.fft.rfft(rng.standard_normal(samples))
    frequency = np.maximum(np.fft.rfftfreq(samples, 1 / SAMPLE_RATE), 20)
    noise = np.fft.irfft(spectrum * frequency ** (-exponent / 2), samples)
    return (noise / max(float(noise.std()), 1e-9)).astype(np.float32)


def add_noise(audio: Audio, snr_db: float, rng: np.random.Generator, exponent: float = 1.0) -> Audio:
    """Add coloured noise at ``snr_db`` below the speech, whose level is that of the louder half of 32 ms frames."""
    frames = audio[: len(audio) // 512 * 512].reshape(-1, 512)
    energy = np.sort((frames**2).mean(axis=1)) if len(frames) else np.array([float((audio**2).mean())])
    level = float(np.sqrt(energy[len(energy) // 2 :].mean()))
    noise = coloured_noise(len(audio), exponent, rng) * np.float32(level * 10 ** (-snr_db / 20))
    return np.clip(audio + noise, -1, 1).astype(np.float32)


def room(audio: Audio, rt60_s: float, direct_db: float, rng: np.random.Generator) -> Audio:
    """Convolve with an exponentially decaying noise tail of ``rt60_s``, the direct sound ``direct_db`` above it."""
    signal = need("scipy.signal", "train")
    length = int(rt60_s * SAMPLE_RATE)
    tail = rng.standard_normal(length) * 10 ** (-3 * np.arange(length) / length)
    tail[: SAMPLE_RATE // 500] = 0  # 2 ms: the first wall
    tail *= 10 ** (-direct_db / 20) / np.sqrt((tail**2).sum())
    tail[0] = 1
    wet = signal.fftconvolve(audio, tail)[: len(audio)]
    return (wet / max(1.0, float(np.abs(wet).max()))).astype(np.float32)


def equalise(audio: Audio, knots_db: NDArray[np.floating]) -> Audio:
    """A microphone's response: gains in dB at equal steps of the mel scale from 0 to 8 kHz, joined by lines."""
    spectrum = np.fft.rfft(audio)
    mel = np.log1p(np.fft.rfftfreq(len(audio), 1 / SAMPLE_RATE) / 700)
    db = np.interp(mel, np.linspace(0, mel[-1], len(knots_db)), knots_db)
    shaped = np.fft.irfft(spectrum * 10 ** (db / 20), len(audio))
    return np.clip(shaped, -1, 1).astype(np.float32)


def telephone(audio: Audio) -> Audio:
    """300 to 3400 Hz, 24 dB an octave."""
    signal = need("scipy.signal", "train")
    sections = signal.butter(4, (300, 3400), "bandpass", fs=SAMPLE_RATE, output="sos")
    return np.clip(signal.sosfilt(sections, audio), -1, 1).astype(np.float32)


def resample(audio: Audio, factor: float) -> Audio:
    """Play ``factor`` times faster: pitch, formants and pace move together, as between speakers."""
    soxr = need("soxr", "live")
    return np.asarray(soxr.resample(audio, SAMPLE_RATE * factor, SAMPLE_RATE), np.float32)


def dropout(audio: Audio, seconds: float, rng: np.random.Generator) -> Audio:
    """Silence one stretch of ``seconds`` somewhere inside."""
    hole = min(int(seconds * SAMPLE_RATE), len(audio))
    start = int(rng.integers(0, len(audio) - hole + 1))
    out = audio.copy()
    out[start : start + hole] = 0
    return out


def distort(audio: Audio, rng: np.random.Generator) -> Audio:
    """A random, plausible chain of the above; about one clip in ten stays as it is."""
    if rng.random() < 0.1:
        return audio
    if rng.random() < 0.4:
        audio = resample(audio, float(rng.uniform(0.9, 1.1)))
    if rng.random() < 0.35:
        audio = room(audio, float(rng.uniform(0.15, 0.8)), float(rng.uniform(-3, 12)), rng)
    if rng.random() < 0.5:
        audio = equalise(audio, rng.normal(0, 4, 8))
    if rng.random() < 0.15:
        audio = telephone(audio)
    if rng.random() < 0.08:
        audio = dropout(audio, float(rng.uniform(0.1, 0.5)), rng)
    if rng.random() < 0.7:
        audio = gain(audio, float(rng.uniform(-24, 6)))
    if rng.random() < 0.5:
        audio = add_noise(audio, float(rng.uniform(3, 30)), rng, float(rng.uniform(0, 2)))
    return audio
