"""An utterance that is being transcribed: what of it is settled, when it is due, and which words settle."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

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
    """Audio that must lie behind a word's end before it is settled while speech goes on, if the pass before read the
    same there ..."""
    sure_s: float = 0.3
    """... or, if it did not, but the decoder gives the word a probability of ``sure`` ..."""
    sure: float = 0.9
    alone_s: float = 1.0
    """... and so much otherwise, or where the decoder gives it less than ``doubt``."""
    doubt: float = 0.7
    context_s: float = 4.0
    """Settled audio that a window begins with."""
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

    @property
    def usual_s(self) -> float:
        """As long as windows commonly become."""
        return self.context_s + self.alone_s + 2 * self.hop_s + self.utterances.preroll_s


@dataclass
class Unfinished:
    """How far one utterance is transcribed. Samples count from the start of the stream."""

    utterance: Utterance
    origin_ns: int
    """Capture time of sample 0 by the stamps of this utterance."""
    settled: int
    """Sample up to which words are settled."""
    decoded: int = 0
    """One past the last sample that a window covered."""
    complete: int = 0
    """One past the last sample of the last window that ended in a pause."""
    text: str = ""
    first_ns: int | None = None
    last_ns: int = 0
    language: str | None = None
    partial: str = ""
    rest: tuple[Unit, ...] = ()
    """What the last pass read and did not settle ..."""
    rest_begin: int = 0
    """... in a window that began at this sample ..."""
    rest_language: str = ""
    """... in this language; none where nothing is held."""

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
            return end if self.complete < utterance.speech_end and end > self.settled else None
        if here > paused - _PAUSE_NEAR_S * SAMPLE_RATE:
            return None
        return here if here - max(self.decoded, utterance.begin) >= settings.hop_s * SAMPLE_RATE else None

    def unsettled(self, units: tuple[Unit, ...], begin: int) -> tuple[Unit, ...]:
        """The units of a window that began at sample ``begin``, none of them before what is settled.

        The alignment may place a first new word in the settled audio that the window begins with.
        """
        from_s = (self.settled - begin) / SAMPLE_RATE
        return tuple(
            replace(unit, start_s=max(unit.start_s, from_s), end_s=max(unit.end_s, from_s)) for unit in units
        )

    def ready(
        self, units: tuple[Unit, ...], seconds: float, settings: TranscriberSettings, *, paused: bool
    ) -> int:
        """How many of the units may be settled while more may come, ``seconds`` into the window.

        ``paused``: nobody speaks at the window's end, so that no audio need lie behind the last words.
        """
        for index, unit in enumerate(units):
            agreed = self._read_before(index, unit)
            timeless = unit.end_s - unit.start_s < 1.5 * SECONDS_PER_STATE and not unit.punctuation
            if timeless and not agreed:  # a stutter of the decoder, not a word
                return index
            behind_s = seconds - unit.end_s
            doubtful = unit.probability < settings.doubt
            if paused:
                if doubtful and behind_s < settings.alone_s:
                    return index
                continue
            if agreed and not doubtful:
                least_s = settings.margin_s
            else:
                least_s = settings.sure_s if unit.probability >= settings.sure else settings.alone_s
            if behind_s < least_s:
                return index
        return len(units)

    def _read_before(self, index: int, unit: Unit) -> bool:
        """Whether the pass before read the same there."""
        return index < len(self.rest) and self.rest[index].text.lower() == unit.text.lower()

    def settle(self, units: tuple[Unit, ...], begin: int, language: str) -> list[Settled]:
        """Append ``units``, of a window that began at sample ``begin``, for good."""
        if not units:
            return []
        self.language = language
        words = self._words(units, begin)
        self.settled = max(self.settled, begin + round(units[-1].end_s * SAMPLE_RATE))
        text = "".join(unit.text for unit in units)
        self.text += text
        self.rest = ()
        if words:
            self.first_ns = words[0].start_ns if self.first_ns is None else self.first_ns
            self.last_ns = words[-1].end_ns
        start = self.ns(begin + units[0].start_s * SAMPLE_RATE)
        return [Settled(self.utterance.number, text, words, start, self.ns(self.settled), language)]

    def guess(self, units: tuple[Unit, ...], begin: int, language: str) -> list[Partial]:
        """What is not settled yet; nothing when that is what was said before."""
        self.rest, self.rest_begin, self.rest_language = units, begin, language
        text = "".join(unit.text for unit in units)
        if text == self.partial:
            return []
        self.partial = text
        words = self._words(units, begin)
        start, end = (words[0].start_ns, words[-1].end_ns) if words else (self.last_ns, self.last_ns)
        return [Partial(self.utterance.number, text, words, start, end)]

    def left(self) -> tuple[Unit, ...]:
        """What is to be settled when it has ended: what the last pass read, unless that is punctuation alone."""
        return () if self.wordless(self.rest) else self.rest

    def wordless(self, units: tuple[Unit, ...]) -> bool:
        """Whether the utterance would have punctuation and no word with these: it would never end."""
        return self.first_ns is None and all(unit.punctuation for unit in units)

    def finish(self) -> list[UtteranceEnd]:
        """Its last event; none when it has no words."""
        if self.first_ns is None:
            return []
        number, text = self.utterance.number, self.text.strip()
        return [UtteranceEnd(number, text, self.first_ns, self.last_ns, self.language or "en")]

    def going_on(self, utterance: Utterance) -> Unfinished:
        """The same for ``utterance``, which begins where this one is settled and ends by a split."""
        rest, self.rest = self.rest, ()
        return Unfinished(
            utterance,
            self.origin_ns,
            utterance.begin,
            rest=rest,
            rest_begin=self.rest_begin,
            rest_language=self.rest_language,
        )

    def splits(self, settings: TranscriberSettings) -> bool:
        """Whether it has gone on for so long that it ends where it is settled, at the end of a sentence if possible."""
        length = (self.settled - self.utterance.begin) / SAMPLE_RATE
        sentence = self.text.rstrip().endswith((".", "?", "!"))
        return self.utterance.closed is None and (
            length > 2 * settings.split_s or (sentence and length > settings.split_s)
        )

    def skip(self, to: int) -> None:
        """Give up what lies before sample ``to`` and is not settled."""
        self.settled = self.decoded = self.complete = to
        self.rest = ()

    def _words(self, units: tuple[Unit, ...], begin: int) -> tuple[Word, ...]:
        """The words among the units, each after the one before, whatever another pass aligned there."""
        words: list[Word] = []
        before = max(self.last_ns, self.ns(self.settled))
        for unit in units:
            if unit.punctuation:
                continue
            start, end = (self.ns(begin + s * SAMPLE_RATE) for s in (unit.start_s, unit.end_s))
            start = max(min(start, end - _SHORTEST_NS), before)
            before = max(end, start + _SHORTEST_NS // 2)
            words.append(Word(unit.text.strip(), start, before, unit.probability))
        return tuple(words)
