"""Clips to the voice network's inputs, by the live branch's own code, kept on disk shard by shard.

A cache folder holds one subfolder per (encoder, clips with their sounds, code that presents and reads them) and take. A
take is one way to present every clip: clean, one random distortion, a window, a stated noise. Finished shards are never
computed again.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ecmf import log_mel, prosody
from ecmf.branches.voice import POOL, WINDOW_S, VoiceInputs, voice_inputs
from ecmf.bundle import sha256_of
from ecmf.importers.whisper_encoder import LAYERS
from ecmf.speech import BUCKETS_S, PADDING_S, SpeechEncoder, bucket_samples
from ecmf.vad import SpeechDetector
from ecmf.weights import fetch
from train import augment_audio
from train.atomic import whole
from train.datasets.speech_clip import Clip
from train.voice_code import code_digest

log = logging.getLogger("train.voice_features")

SHARD = 100
RATE = 16000
LONGEST_S = 8.0
"""Longer clips are cut; no corpus here has one."""


@dataclass(frozen=True)
class Take:
    """One presentation of every clip."""

    name: str
    """clean, augmented-N, window-S-N (S seconds), or a condition: noise-DB, room-RT60, telephone, gain-DB, dropout."""

    def present(self, clip: Clip, other: Clip, rng: np.random.Generator) -> tuple[NDArray[np.float32], int]:
        """Sound float32[n] and the sample where the part that counts begins; what precedes is context."""
        audio = clip.audio()[: int(LONGEST_S * RATE)]
        kind, _, rest = self.name.partition("-")
        if kind == "augmented":
            return _augmented(audio, other, rng)
        if kind == "noise":
            audio = augment_audio.add_noise(audio, float(rest), rng)
        elif kind == "room":
            audio = augment_audio.room(audio, float(rest), 0.0, rng)
        elif kind == "telephone":
            audio = augment_audio.telephone(audio)
        elif kind == "gain":
            audio = augment_audio.gain(audio, float(rest))
        elif kind == "dropout":
            audio = augment_audio.dropout(audio, 0.5, rng)
        return audio, 0


def _augmented(
    audio: NDArray[np.float32], other: Clip, rng: np.random.Generator
) -> tuple[NDArray[np.float32], int]:
    """A distorted clip, three times in ten right after another of the same speaker, as in running speech."""
    before = other.audio()[-int(3 * RATE) :] if rng.random() < 0.3 else np.zeros(0, np.float32)
    joined = np.concatenate([before, audio])
    distorted = augment_audio.distort(joined, rng)
    return distorted, round(len(before) / len(joined) * len(distorted))


def _cut(
    name: str, speech: NDArray[np.float32], start: int, samples: int, rng: np.random.Generator
) -> tuple[int, int]:
    """Begin and end, in samples, of the window that counts: all, or a random one with enough speech in it."""
    kind, _, rest = name.partition("-")
    if kind == "window":
        length = int(float(rest.partition("-")[0]) * RATE)
    elif kind == "augmented" and rng.random() > 0.25:
        length = int(rng.uniform(0.8, 3.2) * RATE)
    else:
        return start, samples
    spoken = (np.flatnonzero(speech > 0.5) + 0.5) * samples / max(len(speech), 1)
    spoken = spoken[spoken >= start]
    latest = samples - length
    if latest <= start or not len(spoken):
        return start, samples
    best, most = start, -1.0
    for begin in rng.integers(start, latest + 1, 12):
        inside = float(((spoken >= begin) & (spoken < begin + length)).sum()) * samples / len(speech) / RATE
        if inside >= min(0.5 * length / RATE, 0.8 * len(spoken) * samples / len(speech) / RATE):
            return int(begin), int(begin) + length
        if inside > most:
            best, most = int(begin), inside
    return best, best + length


def inputs_of(
    clip: Clip,
    other: Clip,
    take: Take,
    encoder: SpeechEncoder,
    detector: SpeechDetector,
    rng: np.random.Generator,
) -> VoiceInputs:
    """The network's inputs for one clip in one take."""
    audio, start = take.present(clip, other, rng)
    detector.reset()
    speech = detector.process(np.pad(audio, (0, -len(audio) % 512)))
    begin, end = _cut(take.name, speech, start, len(audio), rng)
    context = 0
    if take.name.startswith("window") or (begin > 0 and rng.random() < 0.5):
        context = begin  # the encoder of a running system would not have heard what came before
    heard = audio[context:end]
    parts = (np.arange(len(speech)) + 0.5) * 512
    return voice_inputs(
        heard,
        encoder.encode(heard),
        speech[(parts >= context) & (parts < end)],
        window_s=(end - begin) / RATE,
    )


@dataclass(frozen=True)
class Features:
    """Inputs of many clips, in the order of the clips."""

    states: list[NDArray[np.float16]]
    """float16[layers, T, d] each."""
    masks: list[NDArray[np.float32]]
    prosody: NDArray[np.float32]
    """float32[clips, features]."""

    def __len__(self) -> int:
        return len(self.states)

    def of(self, rows: NDArray[np.intp]) -> Features:
        """Those of the given clips."""
        return Features(
            [self.states[row] for row in rows], [self.masks[row] for row in rows], self.prosody[rows]
        )


def extract(
    clips: Sequence[Clip], take: Take, encoder: SpeechEncoder, cache: Path, *, seed: int = 0
) -> Features:
    """Features of ``clips``, from the cache where they are already there; the same seed gives the same features."""
    folder = cache / f"{encoder.name.replace('/', '_')}-{_key(clips, encoder, seed)}" / take.name
    folder.mkdir(parents=True, exist_ok=True)
    same_speaker = {
        speaker: [c for c in clips if c.speaker == speaker] for speaker in {c.speaker for c in clips}
    }
    detector: SpeechDetector | None = None
    began = time.monotonic()
    shards = []
    for first in range(0, len(clips), SHARD):
        file = folder / f"{first:06d}.npz"
        if not file.is_file():
            detector = detector or SpeechDetector()
            items = []
            for clip in clips[first : first + SHARD]:
                rng = _dice(seed, take, clip)
                others = same_speaker[clip.speaker]
                other = others[int(rng.integers(len(others)))]
                items.append(inputs_of(clip, other, take, encoder, detector, rng))
            _write(file, items)
            done = min(first + SHARD, len(clips))
            log.info("%s: %d of %d clips, %.0f s", take.name, done, len(clips), time.monotonic() - began)
        shards.append(file)
    return _read(shards)


def _dice(seed: int, take: Take, clip: Clip) -> np.random.Generator:
    """Of one clip in one take, whatever else is extracted."""
    return np.random.default_rng([seed, *hashlib.sha256(f"{take.name}/{clip.name}".encode()).digest()[:8]])


def _key(clips: Sequence[Clip], encoder: SpeechEncoder, seed: int) -> str:
    """Of all that the features follow from but the take: sounds, models, seed, and the code between them."""
    code = code_digest(
        *(augment_audio, log_mel, prosody, voice_inputs, SpeechDetector),
        *(SpeechEncoder.encode, bucket_samples, Clip.audio, Take, _augmented, _cut, inputs_of, _dice),
    )
    knobs = (POOL, LONGEST_S, RATE, WINDOW_S, BUCKETS_S, PADDING_S)
    models = (encoder.sha256, LAYERS, sha256_of(fetch("silero-vad")))
    content = hashlib.sha256(repr((*models, seed, *knobs, code)).encode())
    for clip in clips:
        sound = clip.sound if isinstance(clip.sound, bytes) else clip.sound.read_bytes()
        content.update(f"{clip.speaker}/{clip.name}/{hashlib.sha256(sound).hexdigest()}\n".encode())
    return content.hexdigest()[:16]


def _write(file: Path, items: Sequence[VoiceInputs]) -> None:
    with whole(file) as target:
        np.savez(
            target,
            states=np.concatenate([item.states for item in items], axis=1).astype(np.float16),
            lengths=np.array([len(item.mask) for item in items]),
            masks=np.concatenate([item.mask for item in items]),
            prosody=np.stack([item.prosody for item in items]),
        )


def _read(files: Sequence[Path]) -> Features:
    states: list[NDArray[np.float16]] = []
    masks: list[NDArray[np.float32]] = []
    rows = []
    for file in files:
        with np.load(file) as shard:
            ends = np.cumsum(shard["lengths"])[:-1]
            states += np.split(shard["states"], ends, axis=1)
            masks += np.split(shard["masks"], ends)
            rows.append(shard["prosody"])
    return Features(states, masks, np.concatenate(rows))
