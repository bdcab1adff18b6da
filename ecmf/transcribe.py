"""Words while they are spoken: utterances from voice activity, settled word by word, on the capture clock.

One stream of audio goes in by `push`; `window` says what to encode next; `step` takes the encoder's states of that
window, so that the one encoder pass of a hop serves the words here and the voice branch alike:

    for event in transcriber.push(audio, start_ns): ...
    while (window := transcriber.window()) is not None:
        states = encoder.encode(window.audio)
        for event in transcriber.step(window, states.last_padded): ...

A word is settled as soon as the decoder's cross-attention has left it behind by a margin (after AlignAtt, Papi et al.
2023), and the margin is the smaller the surer the word is: one that two passes agree on or that the decoder is sure
of settles at once, one that it doubts only a second later. Settled words are given to the next decoding as its
prefix, together with the last seconds of their audio, so they cannot change, cost next to nothing and guide what
follows.
"""

from __future__ import annotations

from collections import deque
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ecmf.decoder import Decoder, Hypothesis
from ecmf.errors import UsageError
from ecmf.heard import Unit
from ecmf.left_context import LeftContext, Placed
from ecmf.speech_window import Window
from ecmf.transcript import Skipped, TranscriptEvent
from ecmf.unfinished import TranscriberSettings, Unfinished
from ecmf.utterances import Detector, Segmenter, Utterance
from ecmf.vad import BLOCK, GAP_NS, SAMPLE_RATE, SpeechDetector

_SPEECH_TAIL_S = 0.2
"""How long after the last speech by voice activity a word may still begin."""
_LONGEST_WINDOW_S = 28.0
"""What the encoder takes, with a second of padding."""
LANGUAGE_MEMORY = 0.8
"""How much of what was heard before counts, pass by pass, when the language is being found."""


class Transcriber:
    """Transcribes one stream. No thread and no clock inside; not thread-safe."""

    def __init__(
        self,
        decoder: Decoder,
        detector: Detector | None = None,
        settings: TranscriberSettings | None = None,
    ) -> None:
        self.settings = settings or TranscriberSettings()
        self._decoder = decoder
        self._segmenter = Segmenter(detector or SpeechDetector(), self.settings.utterances)
        self._audio = np.zeros(0, np.float32)
        self._base = 0
        """Sample number of ``_audio[0]``."""
        self._origin_ns: int | None = None
        self._queue: deque[Unfinished] = deque()
        """Utterances to transcribe, the one under way last."""
        self._context = LeftContext()
        self._languages: dict[str, float] = {}
        """Seconds heard in each language, the recent ones counting more."""
        self._lost = 0
        """One past the last sample that was skipped."""
        self.rejected = 0
        """Decodings that a guard threw away."""
        self.skipped_s = 0.0
        """Audio that was never transcribed, in seconds."""

    def push(self, audio: NDArray[np.float32], start_ns: int) -> list[TranscriptEvent]:
        """Go on with float32[n], 16 kHz mono in [-1, 1], whose first sample was captured at ``start_ns``.

        Raises UsageError for audio of another shape or type.
        """
        if audio.ndim != 1 or audio.dtype != np.float32:
            raise UsageError(
                f"audio is {audio.dtype}{list(audio.shape)}; expected float32[n], mono, {SAMPLE_RATE} Hz"
            )
        events: list[TranscriptEvent] = []
        here = self._base + len(self._audio)
        origin = start_ns - round(here * 1e9 / SAMPLE_RATE)
        if self._origin_ns is not None and abs(origin - self._origin_ns) > GAP_NS:
            events += self._break_off(here, origin)
        self._origin_ns = origin
        self._audio = np.concatenate([self._audio, audio])
        for ended in self._segmenter.push(audio):
            self._follow(ended)
        self._follow(self._segmenter.current)
        events += self._ends()
        events += self._catch_up()
        self._forget()
        return events

    def flush(self) -> list[TranscriptEvent]:
        """The stream is over: what is under way ends here, and `window` gives what is left of it."""
        self._follow(self._segmenter.close())
        return self._ends()

    def window(self) -> Window | None:
        """What to encode now, or None when nothing is due. Asking does not change anything."""
        for progress in self._queue:
            end = progress.due(self._segmenter.position, self.settings)
            if end is not None:
                return self._cut(progress, end)
            if progress.utterance.closed is None:
                break
        return None

    def step(self, window: Window, states: NDArray[np.float32]) -> list[TranscriptEvent]:
        """Decode ``window`` from its encoder states float32[1, T, d], padding included.

        A window that was skipped meanwhile gives nothing.
        """
        progress = next((p for p in self._queue if p.utterance.number == window.utterance), None)
        if progress is None or progress.settled != window.settled:
            return []
        end, seconds = window.end, window.seconds
        heard_s = min(seconds, window.speech_end_s(self.settings.utterances.release) + _SPEECH_TAIL_S)
        hypothesis = self._decoder.decode(
            states,
            heard_s,
            window.prefix,
            window.settled_s,
            self._language(states, heard_s, progress),
            known=[unit.text for unit in progress.rest],
            ended=window.paused,
        )
        if window.prefix and not hypothesis.units and self._silenced(window):
            # The same audio comes again, without what was said before.
            self._context.break_off(window.settled)
            return []
        progress.decoded = end
        if window.paused:
            progress.complete = end
        units = progress.unsettled(self._trusted(hypothesis), window.begin)
        ready = len(units)
        if not window.paused or progress.utterance.closed is None:
            ready = progress.ready(units, seconds, self.settings, paused=window.paused)
        if progress.wordless(units[:ready]):
            ready = 0
        events: list[TranscriptEvent] = [
            *self._settle(progress, units[:ready], window.begin, hypothesis.language)
        ]
        events += progress.guess(units[ready:], window.begin, hypothesis.language)
        if progress.settled == window.settled and len(window.audio) >= _LONGEST_WINDOW_S * SAMPLE_RATE:
            # No window can be longer: the next one would be the same.
            events += progress.guess((), end, hypothesis.language)
            events += self._skip(progress, end, "unsettled")
        if progress.splits(self.settings):
            following = self._segmenter.split(progress.settled)
            self._queue.append(progress.going_on(following))
        events += self._ends()
        self._forget()
        return events

    def _settle(
        self, progress: Unfinished, units: tuple[Unit, ...], begin: int, language: str
    ) -> list[TranscriptEvent]:
        self._context.add(
            Placed(unit.tokens, begin + round(unit.start_s * SAMPLE_RATE), unit.punctuation) for unit in units
        )
        return [*progress.settle(units, begin, language)]

    def _silenced(self, window: Window) -> bool:
        """Whether somebody spoke for so long after what is settled that the words before must have led the decoder to
        stop: a wrong last word, or the same sentence twice, can."""
        spoken_s = window.unsettled_speech_s(self.settings.utterances.release)
        return spoken_s >= (self.settings.hop_s if window.paused else self.settings.alone_s)

    def _follow(self, utterance: Utterance | None) -> None:
        """Queue an utterance that is not there yet."""
        if utterance is None or self._origin_ns is None:
            return
        if all(p.utterance is not utterance for p in self._queue):
            self._queue.append(Unfinished(utterance, self._origin_ns, utterance.begin))

    def _cut(self, progress: Unfinished, end: int) -> Window:
        utterance = progress.utterance
        pause = self.settings.utterances.pause_s * SAMPLE_RATE
        paused = utterance.closed is not None or end >= utterance.speech_end + pause
        begin, prefix = self._context.before(progress.settled, round(self.settings.context_s * SAMPLE_RATE))
        begin = max(begin - (begin - utterance.begin) % BLOCK, self._base)
        longest = round(_LONGEST_WINDOW_S * SAMPLE_RATE)
        if end - begin > longest:
            end, paused = begin + longest, False
        return Window(
            self._audio[begin - self._base : end - self._base].copy(),
            progress.ns(begin),
            progress.ns(end),
            self._segmenter.probabilities(begin, end),
            paused,
            utterance.number,
            begin,
            progress.settled,
            prefix,
        )

    def _trusted(self, hypothesis: Hypothesis) -> tuple[Unit, ...]:
        """The units that are speech, or none when the whole decoding is not to be trusted."""
        settings = self.settings
        if not hypothesis.units:
            return ()
        doubtful = (
            hypothesis.no_speech > settings.no_speech
            and hypothesis.log_probability < settings.log_probability
        )
        if doubtful or hypothesis.log_probability < settings.least_log_probability:
            self.rejected += 1
            return ()
        return hypothesis.units

    def _language(self, states: NDArray[np.float32], seconds: float, progress: Unfinished) -> str:
        """The language of the stream so far: a word or two tell little, so what was heard before counts on."""
        known = self._decoder.language or progress.language
        if known is not None:
            return known
        for code, probability in self._decoder.languages(states).items():
            self._languages[code] = LANGUAGE_MEMORY * self._languages.get(code, 0.0) + seconds * probability
        return max(self._languages, key=self._languages.__getitem__)

    def _ends(self) -> list[TranscriptEvent]:
        """Take the utterances off the queue that are over and transcribed."""
        events: list[TranscriptEvent] = []
        here = self._segmenter.position
        while self._queue and self._queue[0].utterance.closed is not None:
            if self._queue[0].due(here, self.settings) is not None:
                break
            ended = self._queue.popleft()
            events += self._settle(ended, ended.left(), ended.rest_begin, ended.rest_language)
            events += ended.finish()
        return events

    def _catch_up(self) -> list[TranscriptEvent]:
        """Skip the oldest audio when more waits than may."""
        events: list[TranscriptEvent] = []
        here = self._segmenter.position
        oldest = here - round(self.settings.lag_s * SAMPLE_RATE)
        for progress in self._queue:
            # What is settled is not lost; what lies before `oldest` and was never decoded is.
            done = progress.settled
            if done >= oldest or (progress.decoded >= oldest and progress.utterance.closed is None):
                break
            end = progress.utterance.closed or here
            to = min(end, here - round(self.settings.lag_s * SAMPLE_RATE / 4))
            if to <= done:
                continue
            events += self._skip(progress, to, "overload")
        return events + self._ends() if events else events

    def _skip(
        self, progress: Unfinished, to: int, reason: Literal["overload", "unsettled"]
    ) -> list[TranscriptEvent]:
        events: list[TranscriptEvent] = []
        untold = max(progress.settled, self._lost)  # utterances overlap by what leads up to the second
        if to > untold:
            events.append(Skipped(progress.ns(untold), progress.ns(to), reason))
            self.skipped_s += (to - untold) / SAMPLE_RATE
            self._lost = to
        progress.skip(to)
        self._context.break_off(to)
        return events

    def _break_off(self, here: int, origin: int) -> list[TranscriptEvent]:
        """Samples were lost, or the clock jumped: a new stretch begins."""
        assert self._origin_ns is not None
        self._follow(self._segmenter.close())
        self._segmenter.reset(here)
        self._context.break_off(here)
        events = self._ends()
        lost = origin - self._origin_ns
        if lost > 0:
            end = self._origin_ns + round(here * 1e9 / SAMPLE_RATE)
            self.skipped_s += lost / 1e9
            events.append(Skipped(end, end + lost, "gap"))
        return events

    def _forget(self) -> None:
        """Drop audio that no window will need."""
        preroll = round(self.settings.utterances.preroll_s * SAMPLE_RATE) + 2 * BLOCK
        needed = self._segmenter.position - preroll
        if self._queue:
            needed = min(needed, *(progress.settled for progress in self._queue))
        needed -= round(self.settings.context_s * SAMPLE_RATE)
        if needed - self._base > SAMPLE_RATE:
            self._audio = self._audio[needed - self._base :]
            self._base = needed
