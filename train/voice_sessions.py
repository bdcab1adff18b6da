"""The voice in running sessions: clips of one speaker in a row, and the demo readings through the live branch."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ecmf.branches.voice import WINDOW_S, VoiceBranch, VoiceSession
from ecmf.bundle import Bundle
from ecmf.labels import EKMAN
from ecmf.speech import SpeechEncoder
from ecmf.vad import BLOCK, SpeechDetector
from ecmf.weights import fetch
from train.datasets.speech_clip import Clip
from train.voice_features import Features

Answer = Callable[[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]], NDArray[np.float32]]
"""States float32[layers, T, d], mask float32[T], prosody float32[k] -> logits float32[labels]."""


def in_sessions(
    answer: Answer,
    average: NDArray[np.float32],
    features: Features,
    speakers: NDArray[np.str_],
    temperature: float,
    seed: int = 0,
) -> NDArray[np.float32]:
    """Logits float32[clips, labels] when each speaker's clips are heard one after the other, in random order.

    Each clip is judged with what the session has
    learnt from those before it, by the network's own opinion of how neutral they were; no label is looked at.
    """
    out = np.zeros((len(features), len(EKMAN)), np.float32)
    rng = np.random.default_rng(seed)
    for speaker in sorted(set(speakers.tolist())):
        session = VoiceSession(average)
        for row in rng.permutation(np.flatnonzero(speakers == speaker)):
            states, mask = features.states[row].astype(np.float32), features.masks[row]
            if not len(mask):
                continue
            out[row] = answer(states - session.shift()[:, None], mask, features.prosody[row])
            powers = np.exp((out[row] - out[row].max()) / temperature)
            session.learn(states, mask, float(powers[EKMAN.index("neutral")] / powers.sum()))
    return out


def demo_reading(bundle: Bundle, encoder: SpeechEncoder, sessions: bool = False) -> NDArray[np.float32]:
    """The live branch over the two demo readings, twice a second: float32[n, 7]. Nothing was trained on them.

    ``sessions``: each reading is a session, as it is live.
    """
    detector, branch = SpeechDetector(), VoiceBranch(bundle, encoder=encoder)
    rows = []
    for name in ("demo-speech", "demo-speech-short"):
        audio = Clip(name, "neutral", name, "", "", fetch(name)).audio()
        detector.reset()
        session = branch.session() if sessions else None
        speech = detector.process(audio[: len(audio) // BLOCK * BLOCK])
        for end in range(2 * BLOCK * 16, len(audio), BLOCK * 16):
            begin = max(0, end - round(WINDOW_S * 16000)) // BLOCK * BLOCK
            heard = audio[begin:end]
            judged = speech[begin // BLOCK : end // BLOCK]
            cue = branch.process(
                heard, encoder.encode(heard), judged, 0, end, session=session, new_s=BLOCK * 16 / 16000
            )
            if cue is not None and cue.probs is not None:
                rows.append(cue.probs)
    return np.array(rows)
