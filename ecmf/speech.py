"""The one speech encoder: Whisper's, run on the audio that is there, for words and voice alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ecmf.bundle import Bundle, load_bundle, sha256_of
from ecmf.engines.base import Engine, Returning
from ecmf.engines.choose import cache_dir, open_engine
from ecmf.errors import BundleError, UsageError
from ecmf.importers.whisper_encoder import LAYERS, build
from ecmf.log_mel import SAMPLE_RATE, log_mel
from ecmf.memory import give_back

BUCKETS_S = (1, 2, 3, 4, 5, 6, 8, 10, 15, 20, 30)
"""Lengths, in seconds, that audio with its padding is rounded up to: few shapes, so engines can be static."""

RARE_S = 15
"""Longer buckets come only where somebody sings or the machine is far behind: their memory is given back."""

PADDING_S = 1.0
"""Zeros after the audio; without them the decoder repeats itself."""

STATES_PER_SECOND = 50


@dataclass(frozen=True)
class SpeechStates:
    """The encoder's view of one stretch of audio."""

    last_padded: NDArray[np.float32]
    """float32[1, 50 * bucket, d], after the final norm, with padding: what CTranslate2's decoder takes."""
    layers: Mapping[int, NDArray[np.float32]]
    """Layer number (2, 3, 4) -> float32[T, d], T = ceil(50 * seconds)."""
    seconds: float
    """Length of the audio without padding."""

    @property
    def last(self) -> NDArray[np.float32]:
        """float32[T, d], padding cut off."""
        return self.last_padded[0, : frames_of(self.seconds)]


def frames_of(seconds: float) -> int:
    """States that cover ``seconds`` of audio, the last perhaps in part."""
    return int(np.ceil(round(seconds * STATES_PER_SECOND, 6)))


def open_bundle(name: str, *, offline: bool = False) -> Bundle:
    """The encoder's bundle: of a registered model ("base", "tiny.en") or of a faster-whisper folder.

    Raises UsageError for a name that is neither.
    """
    if Path(name).is_dir():
        model = Path(name) / "model.bin"
        if not model.is_file():
            raise UsageError(f"{name} has no model.bin; name a folder in faster-whisper (CTranslate2) layout")
        folder = cache_dir() / "bundles" / f"speech-{sha256_of(model)[:16]}"
        try:
            return load_bundle(folder)
        except BundleError:
            return build(Path(name), folder)
    from ecmf.weights import imported

    return imported(f"speech-{name}", offline=offline)


class SpeechEncoder:
    """Runs the encoder; ``sha256`` names it to the voice bundle and to the transcriber."""

    def __init__(
        self,
        name: str = "base",
        *,
        backend: str = "auto",
        threads: int = 1,
        offline: bool = False,
        bundle: Bundle | None = None,
    ) -> None:
        self.bundle = bundle or open_bundle(name, offline=offline)
        self.name = name
        self.sha256 = str(self.bundle.manifest.extra["source_sha256"])
        """Of the weights file the encoder was made from."""
        self.width = int(self.bundle.manifest.extra["width"])
        self._mels = int(self.bundle.manifest.preprocessing["mels"])
        # One engine takes every bucket; a backend that needs static shapes gets one engine per bucket.
        self.engine: Engine = open_engine(self.bundle, backend=backend, threads=threads)

    def encode(self, audio: NDArray[np.float32]) -> SpeechStates:
        """Encode ``audio`` float32[n], 16 kHz mono in [-1, 1], 1 sample to 30 s.

        Padded with zeros for at least a second (less only where that would pass 30 s) up to the next bucket.
        Raises UsageError for audio that is empty, longer, or not one-dimensional.
        """
        if audio.ndim != 1 or not 0 < len(audio) <= BUCKETS_S[-1] * SAMPLE_RATE:
            raise UsageError(
                f"audio of shape {audio.shape} cannot be encoded; expected one channel of 1 sample to "
                f"{BUCKETS_S[-1]} s at {SAMPLE_RATE} Hz"
            )
        padded = np.zeros(bucket_samples(len(audio)), np.float32)
        padded[: len(audio)] = audio
        inputs = {"mel": log_mel(padded, self._mels)[None]}
        rare = len(padded) > RARE_S * SAMPLE_RATE
        if rare and isinstance(self.engine, Returning):
            outputs = self.engine.run_once(inputs)
        else:
            outputs = self.engine.run(inputs)
        seconds = len(audio) / SAMPLE_RATE
        real = frames_of(seconds)
        layers = {k: outputs[f"layer_{k}"][0, :real] for k in LAYERS}
        if rare:
            give_back()
        return SpeechStates(outputs["last"], layers, seconds)

    def prepare(self, longest_s: float) -> None:
        """Encode silence of every length up to ``longest_s``, downwards and upwards again.

        An engine takes memory when it first meets a length, and some more when a longer one follows a shorter: so it
        is all taken now instead of bit by bit over the hours. For 10 s about half a second of one core.
        """
        last = bucket_samples(round(min(longest_s, BUCKETS_S[-1]) * SAMPLE_RATE)) // SAMPLE_RATE
        lengths = [bucket - PADDING_S for bucket in BUCKETS_S if PADDING_S < bucket <= last]
        for seconds in (*reversed(lengths), *lengths):
            self.encode(np.zeros(round(seconds * SAMPLE_RATE), np.float32))


def bucket_samples(samples: int) -> int:
    """Length of the padded audio, in samples, for ``samples`` of real audio (at most 30 s)."""
    wanted = min(samples / SAMPLE_RATE + PADDING_S, BUCKETS_S[-1])
    return SAMPLE_RATE * next(bucket for bucket in BUCKETS_S if bucket >= wanted)
