"""The voice branch: emotion from how it is said, on the inner layers of the encoder that runs anyway."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ecmf.bundle import SHIPPED, Bundle, load_bundle
from ecmf.cue import Cue
from ecmf.engines.choose import open_engine
from ecmf.errors import BundleError
from ecmf.labels import EKMAN, fold
from ecmf.prosody import FEATURES, prosody
from ecmf.speech import SpeechEncoder, SpeechStates

SAMPLE_RATE = 16000

WINDOW_S = 3.2
"""How far back a live estimate listens."""

MIN_SPEECH_S = 0.4
"""Less speech than this in the window is no voice: no cue."""

SESSION_PRIOR_S = 6.0
"""Neutral speech after which a speaker's own mean counts as much as that of all speakers."""

SESSION_MEMORY_S = 60.0
"""Neutral speech that a session's mean reaches back."""

AVERAGE = "average.npy"
"""The bundle's file of the mean state, float32[layers, d]; sessions start from it."""

POOL = 4
"""Encoder states averaged into one frame: 80 ms, about half a syllable."""

_SAMPLES_PER_STATE = 320


@dataclass(frozen=True)
class VoiceInputs:
    """What the voice network sees of one stretch of audio; live and training make it by the same code."""

    states: NDArray[np.float32]
    """float32[layers, T, d]: encoder layers 2, 3, 4 at 12.5 frames a second."""
    mask: NDArray[np.float32]
    """float32[T]: speech probability of each frame."""
    prosody: NDArray[np.float32]
    """float32[len(ecmf.prosody.FEATURES)]."""


def voice_inputs(
    audio: NDArray[np.float32],
    states: SpeechStates,
    speech: NDArray[np.float32],
    window_s: float | None = None,
) -> VoiceInputs:
    """Inputs of the network for the last ``window_s`` seconds (None: all) of ``audio``.

    ``audio`` float32[n] is what ``states`` were encoded from; ``speech`` float32[k] is the speech probability of k
    equal parts of it. What is too short for one frame gives T = 0.
    """
    layers = [states.layers[k] for k in sorted(states.layers)]
    count = len(layers[0]) // POOL
    wanted = count if window_s is None else round(window_s * SAMPLE_RATE / _SAMPLES_PER_STATE / POOL)
    kept = min(count, wanted)
    first = len(layers[0]) - kept * POOL
    pooled = [layer[first:].reshape(kept, POOL, -1).mean(axis=1) for layer in layers]
    begin = first * _SAMPLES_PER_STATE
    centres = begin + (np.arange(kept) + 0.5) * POOL * _SAMPLES_PER_STATE
    parts = (np.arange(len(speech)) + 0.5) * len(audio) / max(len(speech), 1)
    mask = np.interp(centres, parts, speech) if len(speech) else np.zeros(kept)
    inside = parts >= begin
    spoken = speech[inside] > 0.5
    features = prosody(audio[begin:], spoken if len(spoken) else np.zeros(1, bool))
    return VoiceInputs(np.stack(pooled), mask.astype(np.float32), features)


class VoiceSession:
    """How this voice sounds at rest, learnt while it is heard; taken off the states, it leaves the emotion.

    The mean state of what was heard as neutral stands for the speaker (iterative feature normalisation, Busso et al.
    2011), trusted the more the longer it was heard: at first nothing is taken off. One session is one speaker.
    """

    def __init__(self, average: NDArray[np.float32]) -> None:
        """``average`` float32[layers, d]: mean state of all speakers in training."""
        self._average = average
        self._sum = np.zeros_like(average)
        self.seconds = 0.0
        """Speech behind the mean, each second counted by how surely it was neutral."""

    def shift(self) -> NDArray[np.float32]:
        """float32[layers, d]: to be taken off every state of this speaker."""
        # Of the same worth as (mean - average) * seconds / (seconds + prior), without a division by no seconds.
        ahead = self._sum - self._average * np.float32(self.seconds)
        return (ahead / np.float32(self.seconds + SESSION_PRIOR_S)).astype(np.float32)

    def learn(self, states: NDArray[np.float32], mask: NDArray[np.float32], neutral: float) -> None:
        """Add speech that was not added before: states float32[layers, T, d], its mask float32[T].

        ``neutral``: the probability that it is.
        """
        spoken = mask > 0.5
        weight = neutral * POOL * _SAMPLES_PER_STATE / SAMPLE_RATE
        self._sum += states[:, spoken].sum(axis=1) * np.float32(weight)
        self.seconds += weight * float(spoken.sum())
        if self.seconds > SESSION_MEMORY_S:
            self._sum *= np.float32(SESSION_MEMORY_S / self.seconds)
            self.seconds = SESSION_MEMORY_S


class VoiceBranch:
    """One cue per call from the last WINDOW_S seconds. Not thread-safe."""

    def __init__(
        self,
        bundle: Bundle | None = None,
        *,
        encoder: SpeechEncoder | None = None,
        backend: str = "auto",
        threads: int = 1,
    ) -> None:
        """``bundle``: the shipped one when None. Raises BundleError when it was trained on another ``encoder``."""
        self.bundle = bundle or load_bundle(SHIPPED / "voice")
        manifest = self.bundle.manifest
        self.encoder_name = str(manifest.extra["encoder"]["name"])
        """The speech encoder whose states it reads, for `ecmf.speech.SpeechEncoder`."""
        if encoder is not None and encoder.sha256 != manifest.extra["encoder"]["sha256"]:
            raise BundleError(
                f"{self.bundle.id} reads the states of {self.encoder_name!r}, not of {encoder.name!r}; "
                f"give it a SpeechEncoder({self.encoder_name!r})"
            )
        if tuple(manifest.preprocessing["prosody"]) != FEATURES:
            raise BundleError(f"{self.bundle.id} was trained on other prosody features; train it again")
        self._average = (
            np.load(self.bundle.folder / AVERAGE, allow_pickle=False) if AVERAGE in manifest.files else None
        )
        self._temperature = float(manifest.extra["temperature"])
        self._frames = round(WINDOW_S * SAMPLE_RATE / _SAMPLES_PER_STATE / POOL)
        ports = {port.name: port.shape for port in manifest.inputs}
        layers, width = (int(n) for n in (ports["states"][1], ports["states"][3]))
        self._shape = (layers, self._frames, width)
        shapes = {
            "states": (1, *self._shape),
            "mask": (1, self._frames),
            "prosody": (1, len(FEATURES)),
        }
        self.engine = open_engine(self.bundle, backend=backend, threads=threads, shapes=shapes)

    def session(self) -> VoiceSession | None:
        """A new speaker's session for `process`; None where the bundle was not trained with sessions."""
        return None if self._average is None else VoiceSession(self._average)

    def process(
        self,
        audio: NDArray[np.float32],
        states: SpeechStates,
        speech: NDArray[np.float32],
        start_ns: int,
        end_ns: int,
        person: int | None = None,
        session: VoiceSession | None = None,
        new_s: float = WINDOW_S,
    ) -> Cue | None:
        """Read the voice in ``audio`` float32[n], captured from ``start_ns`` to ``end_ns``.

        ``states`` were encoded from that audio, ``speech`` float32[k] is its speech probability in k equal parts.
        Returns None when the last WINDOW_S seconds hold less than MIN_SPEECH_S of speech: silence, breath, keyboard
        and music say nothing about a voice. The cue's interval is that of the window.

        With a ``session`` the voice is judged against how it usually sounds, and the last ``new_s`` seconds, which it
        has not heard yet, are added to it. Without one every call stands alone.
        """
        began = time.perf_counter()
        inputs = voice_inputs(audio, states, speech, WINDOW_S)
        frame_s = POOL * _SAMPLES_PER_STATE / SAMPLE_RATE
        if float((inputs.mask > 0.5).sum()) * frame_s < MIN_SPEECH_S:
            return None
        count = len(inputs.mask)
        padded = np.zeros(self._shape, np.float32)
        padded[:, self._frames - count :] = inputs.states
        if session is not None:
            padded[:, self._frames - count :] -= session.shift()[:, None]
        mask = np.zeros(self._frames, np.float32)
        mask[self._frames - count :] = inputs.mask
        outputs = self.engine.run(
            {"states": padded[None], "mask": mask[None], "prosody": inputs.prosody[None]}
        )
        logits = outputs["logits"][0].astype(np.float64) / self._temperature
        probs = np.exp(logits - logits.max())
        probs /= probs.sum()
        if session is not None:
            new = max(1, min(count, round(new_s / frame_s)))
            neutral = float(probs[self.bundle.manifest.labels.index("neutral")])
            session.learn(inputs.states[:, count - new :], inputs.mask[count - new :], neutral)
        heard = audio[-round(WINDOW_S * SAMPLE_RATE) :]
        return Cue(
            modality="voice",
            person=person,
            embedding=outputs["embedding"][0],
            probs=fold(probs, self.bundle.manifest.labels, EKMAN),
            start_ns=max(start_ns, end_ns - round(WINDOW_S * 1e9)),
            end_ns=end_ns,
            quality=quality(heard, inputs.mask),
            stage_ms={"voice": (time.perf_counter() - began) * 1e3},
        )


def quality(audio: NDArray[np.float32], mask: NDArray[np.float32]) -> float:
    """How far a window can be trusted, in [0, 1].

    The product of four ramps: enough speech (0.2 at MIN_SPEECH_S, 1 from 1.6 s), its level (0 at -66 dB of full
    scale, 1 from -48), its distance from the background (0.2 at 3 dB, 1 from 15), and how long ago it ended (1 up to
    0.5 s, 0.2 at 2 s).
    """
    frame_s = POOL * _SAMPLES_PER_STATE / SAMPLE_RATE
    spoken = mask > 0.5
    if not spoken.any():
        return 0.0
    size = len(audio) // len(mask)
    power = (audio[-size * len(mask) :].reshape(len(mask), size) ** 2).mean(axis=1)
    level = 10 * np.log10(max(float(power[spoken].mean()), 1e-12))
    # Where nobody pauses, the softest tenth of the speech stands for the background.
    background = power[~spoken] if (~spoken).sum() >= 3 else power
    distance = level - 10 * np.log10(max(float(np.percentile(background, 10)), 1e-12))
    silent_s = (len(mask) - 1 - np.flatnonzero(spoken)[-1]) * frame_s
    return float(
        np.interp(spoken.sum() * frame_s, (MIN_SPEECH_S, 1.6), (0.2, 1))
        * np.interp(level, (-66, -48), (0, 1))
        * np.interp(distance, (3, 15), (0.2, 1))
        * np.interp(silent_s, (0.5, 2), (1, 0.2))
    )
