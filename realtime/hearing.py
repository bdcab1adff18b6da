"""The stage that listens: sound in; voice reports, words and utterance ends out. One encoder pass serves both."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecmf.branches.voice import MIN_SPEECH_S, WINDOW_S, VoiceBranch
from ecmf.cue import Cue
from ecmf.decoder import Decoder
from ecmf.enrich import Enrichment
from ecmf.heard import is_punctuation
from ecmf.speech import SpeechEncoder, SpeechStates
from ecmf.speech_window import Window
from ecmf.transcribe import Transcriber
from ecmf.transcript import Partial, Settled, Skipped, TranscriptEvent, UtteranceEnd, Word
from ecmf.vad import BLOCK, GAP_NS, SpeechDetector
from realtime.degrade import LEVELS
from realtime.estimator import Report
from realtime.message import EngineUse
from realtime.sources.base import SAMPLE_NS, SAMPLE_RATE, CaptureClock
from realtime.speaker import Activity
from realtime.stages import use_of
from realtime.voice_activity import RememberingDetector

log = logging.getLogger("ecmf.hearing")

HOP_S = 0.25
"""New sound between two voice reports; less where words are due sooner."""
FRESH_NS = 150_000_000
"""A transcription window that ends at most this long ago serves the voice, too."""
SHARED_S = 7.0
"""Longest window whose encoder pass is shared; for a longer one the voice gets its own, which is sooner done.
The encoder takes as long for any between 5 and 7 s (BUCKETS_S), and of the windows of words that are read every 2 s
(demo-speech, tiny.en) 72 % are within 6 s and 96 % within 7."""


@dataclass(frozen=True)
class Sound:
    """An unbroken piece of sound as it was captured."""

    samples: NDArray[np.float32]
    """float32[n], mono, 16 kHz"""
    start_ns: int
    clock: CaptureClock
    media_end_s: float | None

    @property
    def end_ns(self) -> int:
        return self.start_ns + len(self.samples) * SAMPLE_NS


@dataclass(frozen=True)
class Said:
    """The transcript of one utterance as it stands."""

    utterance: int
    text: str
    """All committed words; they never change."""
    partial: str
    new: tuple[Word, ...]
    """Words committed since the last one of these."""
    final: bool
    start_ns: int
    """Of the first committed word."""
    end_ns: int
    """Of the last committed word."""
    heard_ns: int
    """Capture time of the end of the sound it was read from."""
    clock: CaptureClock
    media_s: float | None
    stage_ms: dict[str, float]
    cues: str | None = None
    """What the language model reads in the whole utterance; None until it has."""
    enrichment: Enrichment | None = None
    """The same with its scores, for the text branch."""
    language: str = "en"
    """Whisper's code of the language that is spoken."""
    paused: bool = False
    """Speech has paused and all of its words are committed: it may end here, with ``partial``, if any."""


class Hearing:
    """Drives voice activity, encoder, voice branch and transcriber over one stream. Not thread-safe."""

    def __init__(
        self,
        encoder: SpeechEncoder,
        voice: VoiceBranch,
        detector: SpeechDetector,
        decoder: Decoder | None,
        words_encoder: SpeechEncoder | None = None,
    ) -> None:
        """``decoder`` None: no transcription. ``words_encoder``: where the words need another than the voice."""
        self._encoder = encoder
        self._words_encoder = words_encoder or encoder
        self._voice = voice
        self._session = voice.session()
        self._detector = RememberingDetector(detector, WINDOW_S)
        self._transcriber = Transcriber(decoder, self._detector) if decoder is not None else None
        self._audio = np.zeros(0, np.float32)
        self._end_ns = 0
        self._since_hop = 0
        self._said: dict[int, Said] = {}
        self.skipped_s = 0.0
        self.engines = {"speech": use_of(encoder.engine), "voice": use_of(voice.engine)}
        if decoder is not None:
            fallback = (
                None if words_encoder is None else "words and voice need different encoders, so two run"
            )
            self.engines["words"] = EngineUse(backend="ctranslate2", precision="int8", fallback=fallback)

    def prepare(self) -> None:
        """Meet every usual length of sound before the first real one, so that memory does not grow while it runs."""
        if self._transcriber is not None:
            settings = replace(self._transcriber.settings, hop_s=max(each.words_hop_s for each in LEVELS))
            self._words_encoder.prepare(settings.usual_s)
        if self._transcriber is None or self._words_encoder is not self._encoder:
            self._encoder.prepare(WINDOW_S)

    @property
    def words_hop_s(self) -> float:
        """New sound before the words are read again, while somebody speaks; 0 without words."""
        return self._transcriber.settings.hop_s if self._transcriber is not None else 0.0

    @words_hop_s.setter
    def words_hop_s(self, seconds: float) -> None:
        if self._transcriber is not None and seconds != self.words_hop_s:
            self._transcriber.settings = replace(self._transcriber.settings, hop_s=seconds)

    def hear(self, sound: Sound) -> Iterator[Report | Said]:
        """Go on with ``sound``; yields the voice report of a hop before its words, which take longer."""
        if self._audio.size and abs(sound.start_ns - self._end_ns) > GAP_NS:
            self._audio = np.zeros(0, np.float32)
            if self._transcriber is None:  # which begins the detector anew itself
                self._detector.reset()
        kept = round((WINDOW_S + 1.0) * SAMPLE_RATE)
        self._audio = np.concatenate([self._audio, sound.samples])[-kept:]
        self._end_ns = sound.end_ns
        events: list[TranscriptEvent] = []
        if self._transcriber is not None:
            events = self._transcriber.push(sound.samples, sound.start_ns)
        else:
            self._detector.process(sound.samples)
        yield from self._tell(events, sound, {})
        self._since_hop += len(sound.samples)
        window = self._transcriber.window() if self._transcriber is not None else None
        if window is None and self._since_hop < HOP_S * SAMPLE_RATE:
            return
        new_s, self._since_hop = self._since_hop / SAMPLE_RATE, 0
        shared: tuple[Window, SpeechStates, float] | None = None
        if window is not None and self._serves_voice(window):
            began = time.perf_counter()
            states = self._encoder.encode(window.audio)
            shared = window, states, (time.perf_counter() - began) * 1e3
        yield self._voice_report(sound, shared, new_s)
        while window is not None and self._transcriber is not None:
            if shared is None:
                began = time.perf_counter()
                states = self._words_encoder.encode(window.audio)
                shared = window, states, (time.perf_counter() - began) * 1e3
            began = time.perf_counter()
            events = self._transcriber.step(window, shared[1].last_padded)
            stages = {"encoder": shared[2], "decoder": (time.perf_counter() - began) * 1e3}
            yield from self._tell(events, sound, stages, paused=window.paused)
            shared = None
            window = self._transcriber.window()

    def finish(self, sound: Sound) -> Iterator[Report | Said]:
        """The stream is over; ``sound`` is its last piece. What is still to be settled comes out."""
        if self._transcriber is None:
            return
        yield from self._tell(self._transcriber.flush(), sound, {})
        while (window := self._transcriber.window()) is not None:
            states = self._words_encoder.encode(window.audio)
            yield from self._tell(self._transcriber.step(window, states.last_padded), sound, {})

    def _serves_voice(self, window: Window) -> bool:
        return (
            self._words_encoder is self._encoder
            and self._end_ns - window.end_ns <= FRESH_NS
            and len(window.audio) <= SHARED_S * SAMPLE_RATE
        )

    def _voice_report(
        self, sound: Sound, shared: tuple[Window, SpeechStates, float] | None, new_s: float
    ) -> Report:
        """The voice of the last WINDOW_S, of which ``new_s`` are new; no cue where nobody speaks."""
        began = time.perf_counter()
        cue: Cue | None = None
        stages: dict[str, float] = {}
        judged = len(self._audio) - self._detector.waiting
        if shared is not None:
            window, states, encoder_ms = shared
            stages["encoder"] = encoder_ms
            audio, speech, end_ns = window.audio, window.speech, window.end_ns
        else:
            blocks = min(len(self._detector.recent), round(WINDOW_S * SAMPLE_RATE) // BLOCK, judged // BLOCK)
            audio = self._audio[judged - blocks * BLOCK : judged]
            speech = np.array(self._detector.recent, np.float32)[len(self._detector.recent) - blocks :]
            end_ns = self._end_ns - (len(self._audio) - judged) * SAMPLE_NS
            if np.count_nonzero(speech > 0.5) * BLOCK < MIN_SPEECH_S * SAMPLE_RATE:
                return self._report((), end_ns - len(audio) * SAMPLE_NS, end_ns, sound, stages)
            states = self._encoder.encode(audio)
            stages["encoder"] = (time.perf_counter() - began) * 1e3
        start_ns = end_ns - min(len(audio), round(WINDOW_S * SAMPLE_RATE)) * SAMPLE_NS
        cue = self._voice.process(audio, states, speech, start_ns, end_ns, session=self._session, new_s=new_s)
        if cue is not None:
            stages |= cue.stage_ms
        return self._report((cue,) if cue is not None else (), start_ns, end_ns, sound, stages)

    def _report(
        self, cues: tuple[Cue, ...], start_ns: int, end_ns: int, sound: Sound, stages: dict[str, float]
    ) -> Report:
        speech = self._detector.news()
        judged_ns = self._end_ns - self._detector.waiting * SAMPLE_NS
        activity = Activity(judged_ns - len(speech) * BLOCK * SAMPLE_NS, BLOCK * SAMPLE_NS, speech)
        return Report("voice", cues, start_ns, end_ns, sound.clock, sound.media_end_s, stages, activity)

    def _tell(
        self, events: list[TranscriptEvent], sound: Sound, stages: dict[str, float], paused: bool = False
    ) -> Iterator[Said]:
        """The transcript of each utterance that these events change, as it stands after them."""
        changed: dict[int, Said] = {}
        for event in events:
            if isinstance(event, Skipped):
                seconds = (event.end_ns - event.start_ns) * 1e-9
                self.skipped_s += seconds
                log.warning("%.1f s of sound were not transcribed (%s)", seconds, event.reason)
                continue
            number = event.utterance
            said = changed.get(number) or self._as_it_stood(number, event.start_ns, sound, stages)
            match event:
                case Settled():
                    start_ns = said.start_ns if said.text else event.start_ns
                    text, new = said.text + event.text, said.new + event.words
                    said = replace(
                        said,
                        text=text,
                        partial="",
                        new=new,
                        start_ns=start_ns,
                        end_ns=event.end_ns,
                        language=event.language,
                    )
                case Partial():
                    said = replace(said, partial=event.text)
                case UtteranceEnd():
                    said = replace(said, partial="", final=True)
            changed[number] = said
        self._said |= changed
        # An utterance of which no word was settled has no end, but the next one to be heard of comes after it.
        latest = max(changed, default=0)
        self._said = {n: said for n, said in self._said.items() if n >= latest and not said.final}
        yield from (replace(said, paused=paused and not _open(said.partial)) for said in changed.values())

    def _as_it_stood(self, number: int, start_ns: int, sound: Sound, stages: dict[str, float]) -> Said:
        now: dict[str, Any] = {
            "heard_ns": sound.end_ns,
            "clock": sound.clock,
            "media_s": sound.media_end_s,
            "stage_ms": stages,
        }
        before = self._said.get(number)
        if before is not None:
            return replace(before, new=(), **now)
        return Said(number, "", "", (), False, start_ns, start_ns, **now)


def _open(partial: str) -> bool:
    """Whether words are still open; a doubtful full stop alone is not worth waiting for."""
    return not all(is_punctuation(piece) for piece in partial.split())
