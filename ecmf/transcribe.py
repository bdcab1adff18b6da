"""Words while they are spoken: utterances from voice activity, settled word by word, on the capture clock.

One stream of audio goes in by `push`; `window` says what to encode next; `step` takes the encoder's states of that
window, so that the one encoder pass of a hop serves the words here and the voice branch alike:

    for event in transcriber.push(audio, start_ns): ...
    while (window := transcriber.window()) is not None:
        states = encoder.encode(window.audio)
        for event in transcriber.step(window, states.last_padded): ...

A word is settled as soon as the decoder's cross-attention has left it behind by a margin (after AlignAtt, Papi et al.
2023): one pass over the audio is enough, where agreement of two passes needs a hop more. Settled words are given to
the next decoding as its prefix, so they cannot change and cost next to nothing.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ecmf.decoder import Decoder, Hypothesis, Unit
from ecmf.errors import UsageError
from ecmf.utterances import Detector, Segmenter, Utterance, UtteranceSettings
from ecmf.vad import BLOCK, SAMPLE_RATE, SpeechDetector

_GAP_NS = 50_000_000
"""A stamp further than this from where the audio before ended: samples were lost or the clock jumped."""

_SHORTEST_NS = 40_000_000
"""Shortest word in the timing given out."""
_SPEECH_TAIL_S = 0.2
"""How long after the last speech by voice activity a word may still begin."""


LANGUAGE_MEMORY = 0.8
"""How much of what was heard before counts, pass by pass, when the language is being found."""


@dataclass(frozen=True)
class TranscriberSettings:
    """Pace and guards of the transcriber."""

    hop_s: float = 0.5
    """New audio before the next pass while somebody speaks."""
    margin_s: float = 0.3
    """Audio that must lie behind a word's end before it is settled while speech goes on ..."""
    alone_s: float = 1.0
    """... and so much if the pass before read another word there."""
    longest_s: float = 10.0
    """Window length at which settled audio is cut off."""
    lag_s: float = 20.0
    """Audio that may wait to be transcribed; what is older is skipped, and said so."""
    split_s: float = 15.0
    """Length from which an utterance ends at the next end of a sentence, and at twice which it ends anyway."""
    no_speech: float = 0.6
    log_probability: float = -1.0
    """A decoding with no-speech above the one and a mean log-probability under the other is thrown away."""
    least_log_probability: float = -1.6
    """... and so is one under this alone."""
    utterances: UtteranceSettings = field(default_factory=UtteranceSettings)


@dataclass(frozen=True)
class Window:
    """A stretch of audio to encode now. Times are ns on the capture clock."""

    audio: NDArray[np.float32]
    """float32[n], 16 kHz mono: the part of an utterance that is not settled, and what leads up to it."""
    start_ns: int
    end_ns: int
    speech: NDArray[np.float32]
    """float32[k]: speech probability of every 32 ms of it."""
    settles: bool
    """Speech has paused or ended: every word in it will be settled."""
    utterance: int
    begin: int
    """First sample, counted from the start of the stream."""


@dataclass(frozen=True)
class Word:
    text: str
    """Without spaces or punctuation around it."""
    start_ns: int
    end_ns: int
    probability: float


@dataclass(frozen=True)
class Settled:
    """Text that is appended to an utterance and never changes."""

    utterance: int
    text: str
    """Exact text to append, with its spaces and punctuation (which may come alone, after its word)."""
    words: tuple[Word, ...]
    start_ns: int
    end_ns: int


@dataclass(frozen=True)
class Partial:
    """What seems to follow the settled text: replaced by the next Partial or Settled of the utterance."""

    utterance: int
    text: str
    words: tuple[Word, ...]
    start_ns: int
    end_ns: int


@dataclass(frozen=True)
class UtteranceEnd:
    """Nothing more comes for this utterance. Sent only for one that has words."""

    utterance: int
    text: str
    start_ns: int
    """Of its first word."""
    end_ns: int
    """Of its last word."""
    language: str


@dataclass(frozen=True)
class Skipped:
    """Audio that was never transcribed."""

    start_ns: int
    end_ns: int
    reason: str
    """overload (too far behind) or gap (the source lost samples)."""


TranscriptEvent = Settled | Partial | UtteranceEnd | Skipped


@dataclass
class _Progress:
    """How far one utterance is transcribed. Samples count from the start of the stream."""

    utterance: Utterance
    begin: int
    """Where the next window starts."""
    origin_ns: int
    """Capture time of sample 0 by the stamps of this utterance."""
    decoded: int = 0
    """One past the last sample that a window covered."""
    complete: int = 0
    """One past the last sample of the last window in which everything was settled."""
    prefix: list[int] = field(default_factory=list)
    """Settled tokens of the audio from ``begin``."""
    settled: int = 0
    """Sample up to which words are settled."""
    text: str = ""
    held: str = ""
    """Punctuation that the last decoding put after the settled text."""
    first_ns: int | None = None
    last_ns: int = 0
    language: str | None = None
    partial: str = ""
    rest: tuple[str, ...] = ()
    """Units of the last pass that were not settled."""

    def ns(self, sample: float) -> int:
        return self.origin_ns + round(sample * 1e9 / SAMPLE_RATE)


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
        self._queue: deque[_Progress] = deque()
        """Utterances to transcribe, the one under way last."""
        self._languages: dict[str, float] = {}
        """Seconds heard in each language, the recent ones counting more."""
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
        if self._origin_ns is not None and abs(origin - self._origin_ns) > _GAP_NS:
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
            end = self._due(progress)
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
        if progress is None or progress.begin != window.begin:
            return []
        end = window.begin + len(window.audio)
        seconds = len(window.audio) / SAMPLE_RATE
        from_s = max(progress.settled - progress.begin, 0) / SAMPLE_RATE
        heard_s = min(seconds, self._speech_end_s(window.speech) + _SPEECH_TAIL_S)
        language = progress.language or self._language(states, heard_s)
        hypothesis = self._decoder.decode(states, heard_s, progress.prefix, from_s, language)
        progress.decoded = end
        if window.settles:
            progress.complete = end
        units = self._trusted(hypothesis, progress, window)
        ready = len(units) if window.settles else self._ready(units, seconds, progress.rest)
        progress.rest = tuple(unit.text for unit in units[ready:])
        events = self._settle(progress, units[:ready], hypothesis.language)
        events += self._tell_rest(progress, units[ready:])
        self._shorten(progress, end)
        self._split(progress)
        events += self._ends()
        self._forget()
        return events

    def _speech_end_s(self, speech: NDArray[np.float32]) -> float:
        spoken = np.flatnonzero(speech >= self.settings.utterances.release)
        return (int(spoken[-1]) + 1) * BLOCK / SAMPLE_RATE if len(spoken) else 0.0

    def _follow(self, utterance: Utterance | None) -> None:
        """Queue an utterance that is not there yet."""
        if utterance is None or self._origin_ns is None:
            return
        if all(p.utterance is not utterance for p in self._queue):
            self._queue.append(
                _Progress(utterance, utterance.begin, self._origin_ns, settled=utterance.begin)
            )

    def _due(self, progress: _Progress) -> int | None:
        """The sample up to which a window is due now."""
        utterance, settings = progress.utterance, self.settings
        if utterance.spoken < settings.utterances.least_s * SAMPLE_RATE:
            return None
        pause = round(settings.utterances.pause_s * SAMPLE_RATE)
        paused = utterance.speech_end + pause
        here = self._segmenter.position if utterance.closed is None else utterance.closed
        if here >= paused or utterance.closed is not None:
            end = min(here, paused)
            return end if progress.complete < utterance.speech_end else None
        return here if here - max(progress.decoded, utterance.begin) >= settings.hop_s * SAMPLE_RATE else None

    def _cut(self, progress: _Progress, end: int) -> Window:
        utterance = progress.utterance
        pause = self.settings.utterances.pause_s * SAMPLE_RATE
        settles = utterance.closed is not None or end >= utterance.speech_end + pause
        longest = round(28.0 * SAMPLE_RATE)
        if end - progress.begin > longest:
            end, settles = progress.begin + longest, False
        first, last = ((s - utterance.begin) // BLOCK for s in (progress.begin, end))
        return Window(
            self._audio[progress.begin - self._base : end - self._base].copy(),
            progress.ns(progress.begin),
            progress.ns(end),
            np.asarray(utterance.probabilities[first : max(last, first + 1)], np.float32),
            settles,
            utterance.number,
            progress.begin,
        )

    def _trusted(self, hypothesis: Hypothesis, progress: _Progress, window: Window) -> tuple[Unit, ...]:
        """The units that are speech, or none when the whole decoding is not to be trusted."""
        settings = self.settings
        units = hypothesis.units
        if not units:
            return ()
        doubtful = (
            hypothesis.no_speech > settings.no_speech
            and hypothesis.log_probability < settings.log_probability
        )
        if doubtful or hypothesis.log_probability < settings.least_log_probability:
            self.rejected += 1
            return ()
        return units

    def _ready(self, units: tuple[Unit, ...], seconds: float, before: tuple[str, ...]) -> int:
        """How many of the units may be settled, given the unsettled texts of the pass before."""
        settings = self.settings
        for index, unit in enumerate(units):
            behind = seconds - unit.end_s
            agreed = index < len(before) and before[index].lower() == unit.text.lower()
            if behind < (settings.margin_s if agreed else settings.alone_s):
                return index
        return len(units)

    def _language(self, states: NDArray[np.float32], seconds: float) -> str | None:
        """The language of the stream so far: a word or two tell little, so what was heard before counts on."""
        if self._decoder.language is not None:
            return self._decoder.language
        for code, probability in self._decoder.languages(states).items():
            self._languages[code] = LANGUAGE_MEMORY * self._languages.get(code, 0.0) + seconds * probability
        return max(self._languages, key=self._languages.__getitem__)

    def _settle(self, progress: _Progress, units: tuple[Unit, ...], language: str) -> list[TranscriptEvent]:
        if not units:
            return []
        progress.language = language
        words = _words(units, progress)
        for unit in units:
            progress.prefix += unit.tokens
        progress.settled = progress.begin + round(units[-1].end_s * SAMPLE_RATE)
        text = "".join(unit.text for unit in units)
        progress.text += text
        progress.held = ""
        start = progress.ns(progress.begin + units[0].start_s * SAMPLE_RATE)
        end = progress.ns(progress.settled)
        if words:
            progress.first_ns = words[0].start_ns if progress.first_ns is None else progress.first_ns
            progress.last_ns = words[-1].end_ns
        return [Settled(progress.utterance.number, text, words, start, end)]

    def _tell_rest(self, progress: _Progress, units: tuple[Unit, ...]) -> list[TranscriptEvent]:
        progress.held = units[0].text if units and units[0].punctuation else ""
        text = "".join(unit.text for unit in units)
        if text == progress.partial or not (text or progress.partial):
            return []
        progress.partial = text
        words = _words(units, progress)
        start, end = (words[0].start_ns, words[-1].end_ns) if words else (progress.last_ns, progress.last_ns)
        return [Partial(progress.utterance.number, text, words, start, end)]

    def _shorten(self, progress: _Progress, end: int) -> None:
        """Cut settled audio off a window that has become long."""
        if end - progress.begin > self.settings.longest_s * SAMPLE_RATE and progress.settled > progress.begin:
            progress.begin, progress.prefix = progress.settled, []

    def _split(self, progress: _Progress) -> None:
        """End an utterance that goes on and on, at the end of a sentence if there is one."""
        utterance = progress.utterance
        length = (progress.settled - utterance.begin) / SAMPLE_RATE
        sentence = progress.text.rstrip().endswith((".", "?", "!"))
        if utterance.closed is None and (
            length > 2 * self.settings.split_s or (sentence and length > self.settings.split_s)
        ):
            following = self._segmenter.split(progress.settled)
            self._queue.append(
                _Progress(following, following.begin, progress.origin_ns, settled=following.begin)
            )

    def _ends(self) -> list[TranscriptEvent]:
        """Take the utterances off the queue that are over and transcribed."""
        events: list[TranscriptEvent] = []
        while (
            self._queue and self._queue[0].utterance.closed is not None and self._due(self._queue[0]) is None
        ):
            progress = self._queue.popleft()
            if progress.first_ns is None:
                continue
            number = progress.utterance.number
            if progress.held:
                events.append(Settled(number, progress.held, (), progress.last_ns, progress.last_ns))
            text = (progress.text + progress.held).strip()
            events.append(
                UtteranceEnd(number, text, progress.first_ns, progress.last_ns, progress.language or "en")
            )
        return events

    def _catch_up(self) -> list[TranscriptEvent]:
        """Skip the oldest audio when more waits than may."""
        events: list[TranscriptEvent] = []
        here = self._segmenter.position
        oldest = here - round(self.settings.lag_s * SAMPLE_RATE)
        for progress in self._queue:
            # What is settled is not lost; what lies before `oldest` and was never decoded is.
            done = max(progress.settled, progress.begin)
            if done >= oldest or (progress.decoded >= oldest and progress.utterance.closed is None):
                break
            end = progress.utterance.closed or here
            to = min(end, here - round(self.settings.lag_s * SAMPLE_RATE / 4))
            if to <= done:
                continue
            events.append(Skipped(progress.ns(done), progress.ns(to), "overload"))
            self.skipped_s += (to - done) / SAMPLE_RATE
            progress.begin = progress.settled = progress.decoded = progress.complete = to
            progress.prefix = []
        return events + self._ends() if events else events

    def _break_off(self, here: int, origin: int) -> list[TranscriptEvent]:
        """Samples were lost, or the clock jumped: a new stretch begins."""
        assert self._origin_ns is not None
        self._follow(self._segmenter.close())
        self._segmenter.reset(here)
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
            needed = min(needed, *(progress.begin for progress in self._queue))
        if needed - self._base > SAMPLE_RATE:
            self._audio = self._audio[needed - self._base :]
            self._base = needed


def _words(units: tuple[Unit, ...], progress: _Progress) -> tuple[Word, ...]:
    """The words among the units, each after the one before, whatever another pass aligned there."""
    words: list[Word] = []
    before = progress.last_ns
    for unit in units:
        if unit.punctuation:
            continue
        end = progress.ns(progress.begin + unit.end_s * SAMPLE_RATE)
        start = max(min(progress.ns(progress.begin + unit.start_s * SAMPLE_RATE), end - _SHORTEST_NS), before)
        before = max(end, start + _SHORTEST_NS // 2)
        words.append(Word(unit.text.strip(), start, before, unit.probability))
    return tuple(words)
