"""An utterance that is being transcribed: what of it is settled, when it is due, and which words settle."""

from __future__ import annotations

from dataclasses import dataclass, field

from ecmf.heard import SECONDS_PER_STATE, Unit
from ecmf.transcript import Partial, Settled, UtteranceEnd, Word
from ecmf.utterances import Utterance, UtteranceSettings
from ecmf.vad import SAMPLE_RATE

_SHORTEST_NS = 40_000_000
"""Shortest word in the timing given out."""
_PAUSE_NEAR_S = 0.1
"""So shortly before a pause nothing is decoded: the pass at the pause would do it over."""


@dataclass(frozen=True)
class TranscriberSettings:
    """Pace and guards of the transcriber."""

    hop_s: float = 0.5
    """New audio before the next pass while somebody speaks."""
    margin_s: float = 0.25
    """Audio that must lie behind a word's end before it is settled while speech goes on ..."""
    alone_s: float = 1.0
    """... and so much if the pass before read another word there ..."""
    sure_s: float = 0.4
    """... but only so much if the decoder gives the word a probability of ``sure``."""
    sure: float = 0.9
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


@dataclass
class Unfinished:
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
        """Capture time of a sample."""
        return self.origin_ns + round(sample * 1e9 / SAMPLE_RATE)

    def due(self, position: int, settings: TranscriberSettings) -> int | None:
        """The sample up to which a window is due when the stream has come to ``position``, or None."""
        utterance = self.utterance
        if utterance.spoken < settings.utterances.least_s * SAMPLE_RATE:
            return None
        pause = round(settings.utterances.pause_s * SAMPLE_RATE)
        paused = utterance.speech_end + pause
        here = position if utterance.closed is None else utterance.closed
        if here >= paused or utterance.closed is not None:
            end = min(here, paused)
            return end if self.complete < utterance.speech_end and end > self.begin else None
        if here > paused - _PAUSE_NEAR_S * SAMPLE_RATE:
            return None
        return here if here - max(self.decoded, utterance.begin) >= settings.hop_s * SAMPLE_RATE else None

    def ready(self, units: tuple[Unit, ...], seconds: float, settings: TranscriberSettings) -> int:
        """How many of the units may be settled while speech goes on, ``seconds`` into the window."""
        for index, unit in enumerate(units):
            agreed = index < len(self.rest) and self.rest[index].lower() == unit.text.lower()
            timeless = unit.end_s - unit.start_s < 1.5 * SECONDS_PER_STATE and not unit.punctuation
            if timeless and not agreed:  # a stutter of the decoder, not a word
                return index
            alone_s = settings.sure_s if unit.probability >= settings.sure else settings.alone_s
            if seconds - unit.end_s < (settings.margin_s if agreed else alone_s):
                return index
        return len(units)

    def settle(self, units: tuple[Unit, ...], language: str) -> list[Settled]:
        """Append ``units`` for good."""
        if not units:
            return []
        self.language = language
        words = self._words(units)
        for unit in units:
            self.prefix += unit.tokens
        self.settled = self.begin + round(units[-1].end_s * SAMPLE_RATE)
        text = "".join(unit.text for unit in units)
        self.text += text
        self.held = ""
        if words:
            self.first_ns = words[0].start_ns if self.first_ns is None else self.first_ns
            self.last_ns = words[-1].end_ns
        start = self.ns(self.begin + units[0].start_s * SAMPLE_RATE)
        return [Settled(self.utterance.number, text, words, start, self.ns(self.settled), language)]

    def guess(self, units: tuple[Unit, ...]) -> list[Partial]:
        """What is not settled yet; nothing when that is what was said before."""
        self.rest = tuple(unit.text for unit in units)
        self.held = units[0].text if units and units[0].punctuation else ""
        text = "".join(self.rest)
        if text == self.partial:
            return []
        self.partial = text
        words = self._words(units)
        start, end = (words[0].start_ns, words[-1].end_ns) if words else (self.last_ns, self.last_ns)
        return [Partial(self.utterance.number, text, words, start, end)]

    def finish(self) -> list[Settled | UtteranceEnd]:
        """Its last events; none when it has no words."""
        if self.first_ns is None:
            return []
        number = self.utterance.number
        language = self.language or "en"
        tail = [Settled(number, self.held, (), self.last_ns, self.last_ns, language)] if self.held else []
        text = (self.text + self.held).strip()
        return [*tail, UtteranceEnd(number, text, self.first_ns, self.last_ns, language)]

    def shorten(self, end: int, settings: TranscriberSettings) -> None:
        """Cut settled audio off windows that have become long; the last one ended at sample ``end``."""
        if end - self.begin > settings.longest_s * SAMPLE_RATE and self.settled > self.begin:
            self.begin, self.prefix = self.settled, []

    def splits(self, settings: TranscriberSettings) -> bool:
        """Whether it has gone on for so long that it ends where it is settled, at the end of a sentence if possible."""
        length = (self.settled - self.utterance.begin) / SAMPLE_RATE
        sentence = self.text.rstrip().endswith((".", "?", "!"))
        return self.utterance.closed is None and (
            length > 2 * settings.split_s or (sentence and length > settings.split_s)
        )

    def skip(self, to: int) -> None:
        """Give up what lies before sample ``to`` and is not settled."""
        self.begin = self.settled = self.decoded = self.complete = to
        self.prefix, self.rest, self.held = [], (), ""

    def _words(self, units: tuple[Unit, ...]) -> tuple[Word, ...]:
        """The words among the units, each after the one before, whatever another pass aligned there."""
        words: list[Word] = []
        before = self.last_ns
        for unit in units:
            if unit.punctuation:
                continue
            start, end = (self.ns(self.begin + s * SAMPLE_RATE) for s in (unit.start_s, unit.end_s))
            start = max(min(start, end - _SHORTEST_NS), before)
            before = max(end, start + _SHORTEST_NS // 2)
            words.append(Word(unit.text.strip(), start, before, unit.probability))
        return tuple(words)
