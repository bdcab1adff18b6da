"""Recordings whose true words are known, and noises that hold none."""

from __future__ import annotations

import io
import wave
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.word_errors import normal
from ecmf.decoder import Decoder
from ecmf.errors import DataError, need
from ecmf.speech import SpeechEncoder
from ecmf.vad import BLOCK, SAMPLE_RATE, SpeechDetector

Audio = NDArray[np.float32]

CITIES = (
    (9.0, "It was the best of times, it was the worst of times, it was the age of wisdom, it was the age of "
          "foolishness,"),
    (13.3, "it was the epoch of belief, it was the epoch of incredulity,"),
    (17.3, "it was the season of Light, it was the season of Darkness,"),
    (21.1, "it was the spring of hope, it was the winter of despair,"),
    (24.6, "we had everything before us, we had nothing before us,"),
    (26.6, "we were all going direct to Heaven,"),
    (28.9, "we were all going direct the other way:"),
    (44.4, "in short, the period was so far like the present period, that some of its noisiest authorities "
           "insisted on its being received, for good or for evil, in the superlative degree of comparison only."),
)  # fmt: skip
"""End in seconds of each part of `demo-speech` and what is read in it: Dickens, A Tale of Two Cities."""

WORSTWARD = (
    (1.9, "Ever tried."),
    (3.45, "Ever failed."),
    (4.75, "No matter."),
    (6.2, "Try again."),
    (8.0, "Fail again."),
    (10.0, "Fail better."),
)
"""The same of `demo-speech-short`: Beckett, Worstward Ho."""

STATEMENTS = {1: "Kids are talking by the door.", 2: "Dogs are sitting by the door."}
"""RAVDESS's two sentences."""


@dataclass(frozen=True)
class Spoken:
    """A true word and when it is spoken, in seconds."""

    word: str
    start_s: float
    end_s: float


@dataclass(frozen=True)
class Recording:
    name: str
    audio: Audio
    """float32[n], 16 kHz mono."""
    parts: tuple[tuple[float, str], ...]
    """End of each part in seconds, and the words in it."""
    files: tuple[Audio, ...]
    """The same sound as the files that it came in: what a whole-file transcription is given."""

    @property
    def words(self) -> list[str]:
        return [word for _, text in self.parts for word in normal(text)]


def read_wave(path: Path) -> Audio:
    """A 16-bit mono WAV file at 16 kHz, float32."""
    soxr = need("soxr", "live")
    with wave.open(str(path)) as file:
        if file.getnchannels() != 1 or file.getsampwidth() != 2:
            raise DataError(f"{path} is not 16-bit mono; convert it first")
        samples = np.frombuffer(file.readframes(file.getnframes()), np.int16).astype(np.float32) / 32768
        return np.asarray(soxr.resample(samples, file.getframerate(), SAMPLE_RATE), np.float32)


def readings(offline: bool = False) -> list[Recording]:
    """The two readings that every installation can fetch."""
    from ecmf.weights import fetch

    found = []
    for weight, parts in (("demo-speech", CITIES), ("demo-speech-short", WORSTWARD)):
        audio = read_wave(fetch(weight, offline=offline))
        found.append(Recording(weight, audio, parts, (audio,)))
    return found


def ravdess(table: Path, clips: int, seed: int) -> Recording:
    """``clips`` clips drawn from a parquet table with the columns statement and flac, one after the other."""
    parquet, av = need("pyarrow.parquet", "train"), need("av", "live")
    try:
        rows = parquet.read_table(table, columns=["statement", "flac"]).to_pylist()
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{table} cannot be read as the RAVDESS table: {error}") from None
    picks = np.random.default_rng(seed).choice(len(rows), size=min(clips, len(rows)), replace=False)
    files, parts, end = [], [], 0.0
    for pick in picks:
        with av.open(io.BytesIO(rows[pick]["flac"])) as container:
            frames = [frame.to_ndarray().reshape(-1) for frame in container.decode(audio=0)]
        samples = np.concatenate(frames)
        scale = 1.0 if samples.dtype.kind == "f" else float(np.iinfo(samples.dtype).max + 1)
        files.append((samples / scale).astype(np.float32))
        end += len(files[-1]) / SAMPLE_RATE
        parts.append((end, STATEMENTS[int(rows[pick]["statement"])]))
    return Recording(f"ravdess ({len(files)})", np.concatenate(files), tuple(parts), tuple(files))


def timed(recording: Recording, encoder: SpeechEncoder, decoder: Decoder) -> list[Spoken]:
    """When each true word is spoken: by forced alignment, its end not after the speech that it lies in."""
    probabilities = SpeechDetector().process(recording.audio)
    spoken: list[Spoken] = []
    begin_s = 0.0
    for end_s, text in recording.parts:
        piece = recording.audio[round(begin_s * SAMPLE_RATE) : round(end_s * SAMPLE_RATE)]
        for unit in decoder.align(encoder.encode(piece).last_padded, " " + text):
            words = [] if unit.punctuation else normal(unit.text)
            start, stop = begin_s + unit.start_s, begin_s + unit.end_s
            speech = (
                probabilities[int(start * SAMPLE_RATE / BLOCK) : int(stop * SAMPLE_RATE / BLOCK) + 1] >= 0.35
            )
            if speech.any():
                stop = min(
                    stop,
                    (int(start * SAMPLE_RATE / BLOCK) + int(np.flatnonzero(speech)[-1]) + 1)
                    * BLOCK
                    / SAMPLE_RATE,
                )
            spoken += [Spoken(word, start, stop) for word in words]
        begin_s = end_s
    if [s.word for s in spoken] != recording.words:
        raise DataError(f"the words of {recording.name} cannot be aligned one by one")
    return spoken


def pink(samples: int, rng: np.random.Generator) -> Audio:
    """Noise with equal power per octave, RMS 1."""
    spectrum = np.fft.rfft(rng.standard_normal(samples))
    spectrum[1:] /= np.sqrt(np.arange(1, len(spectrum)))
    spectrum[0] = 0
    noise = np.fft.irfft(spectrum, samples)
    return (noise / np.sqrt(np.mean(noise**2))).astype(np.float32)


def mixed(recording: Recording, snr_db: float, seed: int) -> Recording:
    """With pink noise ``snr_db`` under the RMS of the sound that is speech."""
    speech = np.repeat(SpeechDetector().process(recording.audio) >= 0.5, BLOCK)
    level = np.sqrt(np.mean(recording.audio[: len(speech)][speech] ** 2))
    noise = pink(len(recording.audio), np.random.default_rng(seed)) * level * 10 ** (-snr_db / 20)
    audio = (recording.audio + noise).astype(np.float32)
    cuts = np.cumsum([len(file) for file in recording.files])[:-1]
    files = tuple(np.split(audio, cuts))
    return Recording(f"{recording.name} {snr_db:g} dB", audio, recording.parts, files)


def wordless(seconds: float, seed: int) -> Mapping[str, Audio]:
    """Sounds without a word: silence, pink noise, a room, keys, breathing, music of synthetic tones."""
    rng = np.random.default_rng(seed)
    samples = int(seconds * SAMPLE_RATE)
    time = np.arange(samples) / SAMPLE_RATE
    room = (
        0.01 * pink(samples, rng)
        + 0.01 * np.sin(2 * np.pi * 50 * time)
        + 0.004 * np.sin(2 * np.pi * 150 * time)
    )
    keys = 0.002 * rng.standard_normal(samples)
    for press in rng.integers(0, samples - 800, size=int(seconds * 6)):
        burst = rng.standard_normal(800) * np.exp(-np.arange(800) / rng.uniform(40, 160))
        keys[press : press + 800] += rng.uniform(0.05, 0.3) * burst
    breath = 0.05 * pink(samples, rng) * np.clip(np.sin(2 * np.pi * time / 3.5), 0, None) ** 2
    return {
        "silence": np.zeros(samples, np.float32),
        "pink noise": 0.05 * pink(samples, rng),
        "room noise": room.astype(np.float32),
        "keyboard": keys.astype(np.float32),
        "breathing": breath.astype(np.float32),
        "music": _music(samples, rng),
    }


def _music(samples: int, rng: np.random.Generator) -> Audio:
    """Chords of tones with overtones, each struck and dying away."""
    music = np.zeros(samples)
    beat = SAMPLE_RATE // 2
    for start in range(0, samples - beat, beat):
        time = np.arange(min(2 * beat, samples - start)) / SAMPLE_RATE
        for note in rng.choice([0, 3, 5, 7, 10, 12, 15, 17, 19], size=3, replace=False):
            pitch = 220 * 2 ** (note / 12)
            for overtone in range(1, 6):
                tone = np.sin(2 * np.pi * pitch * overtone * time) * np.exp(-3 * time) / overtone
                music[start : start + len(time)] += 0.05 * tone
    return music.astype(np.float32)
