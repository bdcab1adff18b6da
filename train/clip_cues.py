"""A clip to what the live system would know of it at a few moments: cues of the live branches themselves."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ecmf.branches.face import FaceBranch
from ecmf.branches.scene import SceneBranch
from ecmf.branches.text import TextBranch
from ecmf.branches.voice import WINDOW_S, VoiceBranch
from ecmf.bundle import SHIPPED, load_bundle
from ecmf.cue import Cue, Modality
from ecmf.decoder import Decoder
from ecmf.registry import registry
from ecmf.speech import SpeechEncoder
from ecmf.transcribe import Transcriber
from ecmf.transcript import Settled, TranscriptEvent
from ecmf.vad import BLOCK, SpeechDetector
from train.clip_file import FACE, FRAMES_PER_S, RATE, TINY, Media, open_clip

VERSION = 2
"""Raise it when the reading of clips changes, so that old features are not mistaken for new ones."""
MOMENTS = 8
"""At most; one for every second of the clip."""
HOP = RATE // 4
LATEST_S = 0.5
"""A frame this much older than a moment is none of its own, as live."""

Moment = Mapping[Modality, Cue]


WEIGHTS = ("face-landmarker", "efficientnet-lite0", "silero-vad")
"""Fetched weights that every clip may meet, beside the speech encoder that the voice bundle names."""


def identity() -> tuple[str, ...]:
    """What the features of a clip depend on, apart from its content."""
    reading = (VERSION, MOMENTS, HOP, LATEST_S, WINDOW_S, FRAMES_PER_S, TINY, FACE)
    shipped = [load_bundle(SHIPPED / name, verify=False) for name in ("face", "voice", "text")]
    encoder = f"whisper-{shipped[1].manifest.extra['encoder']['name']}"
    weights = [file.sha256 for name in (*WEIGHTS, encoder) for file in registry().weight(name).files]
    return (str(reading), *(bundle.id for bundle in shipped), *weights)


class ClipReader:
    """Opens each branch when a clip first needs it. Not thread-safe."""

    def __init__(self, *, offline: bool = False) -> None:
        self._offline = offline
        self._origin_ns = 0

    def read(self, path: Path, content: bytes | str | None = None) -> list[Moment]:
        """Cues at the clip's moments, without those at which nothing was seen or heard.

        ``content``: the clip itself where ``path`` only names it. The largest face is the clip's person. Raises
        DataError for a clip that cannot be decoded.
        """
        media = open_clip(path, content)
        if media.text:
            cue = self._text.process(media.text)
            return [{"text": cue}] if cue.quality > 0 else []
        # The tracker starts afresh when time goes back: nobody is carried over from the clip before.
        self._origin_ns -= 10**13
        faces, scenes = self._looks(media)
        words = self._words(media.audio)
        count = min(MOMENTS, max(1, round(media.seconds)))
        found: list[Moment] = []
        for end_s in np.linspace(0, media.seconds, count + 1)[1:]:
            candidates = (
                _latest(faces, end_s), _latest(scenes, end_s), self._heard(media.audio, end_s), self._said(words, end_s)
            )  # fmt: skip
            cues = {cue.modality: cue for cue in candidates if cue is not None and cue.quality > 0}
            if cues:
                found.append(cues)
        return found

    def _looks(self, media: Media) -> tuple[list[tuple[float, Cue]], list[tuple[float, Cue]]]:
        faces, scenes = [], []
        for at_s, frame in media.frames:
            t_ns = self._origin_ns + round(at_s * 1e9)
            people = self._face.process(frame, t_ns, t_ns)
            faces += [(at_s, people[0])] if people else []
            scenes.append((at_s, self._scene.process(frame, t_ns, t_ns)))
        return faces, scenes

    def _heard(self, audio: NDArray[np.float32], end_s: float) -> Cue | None:
        heard = audio[max(0, round((end_s - WINDOW_S) * RATE)) : round(end_s * RATE)]
        heard = heard[: len(heard) // BLOCK * BLOCK]
        if not len(heard):
            return None
        self._detector.reset()
        speech = self._detector.process(heard)
        if not (speech > 0.5).any():
            return None
        end_ns = round(end_s * 1e9)
        start_ns = end_ns - round(len(heard) / RATE * 1e9)
        return self._voice.process(heard, self._encoder.encode(heard), speech, start_ns, end_ns)

    def _words(self, audio: NDArray[np.float32]) -> list[tuple[int, float, str]]:
        """(utterance, when its last word ended, text) of each settled piece."""
        if not len(audio):
            return []
        transcriber = Transcriber(self._decoder, SpeechDetector(offline=self._offline))
        events: list[TranscriptEvent] = []

        def work() -> None:
            while (window := transcriber.window()) is not None:
                events.extend(transcriber.step(window, self._encoder.encode(window.audio).last_padded))

        for start in range(0, len(audio), HOP):
            events += transcriber.push(audio[start : start + HOP], round(start * 1e9 / RATE))
            work()
        events += transcriber.flush()
        work()
        return [(e.utterance, e.end_ns * 1e-9, e.text) for e in events if isinstance(e, Settled)]

    def _said(self, words: list[tuple[int, float, str]], end_s: float) -> Cue | None:
        heard: dict[int, str] = {}
        for utterance, at_s, text in words:
            if at_s <= end_s + 1e-6:
                heard[utterance] = heard.get(utterance, "") + text
        lines = [text.strip() for text in heard.values() if text.strip()]
        return self._text.process(lines[-1], lines[:-1]) if lines else None

    @cached_property
    def _face(self) -> FaceBranch:
        return FaceBranch(offline=self._offline)

    @cached_property
    def _scene(self) -> SceneBranch:
        return SceneBranch(offline=self._offline)

    @cached_property
    def _voice(self) -> VoiceBranch:
        return VoiceBranch()

    @cached_property
    def _encoder(self) -> SpeechEncoder:
        return SpeechEncoder(self._voice.encoder_name, offline=self._offline)

    @cached_property
    def _decoder(self) -> Decoder:
        return Decoder(self._encoder.name, offline=self._offline)

    @cached_property
    def _detector(self) -> SpeechDetector:
        return SpeechDetector(offline=self._offline)

    @cached_property
    def _text(self) -> TextBranch:
        return TextBranch()


def _latest(cues: list[tuple[float, Cue]], end_s: float) -> Cue | None:
    recent = [cue for at_s, cue in cues if end_s - LATEST_S <= at_s <= end_s + 1e-6]
    return recent[-1] if recent else None
