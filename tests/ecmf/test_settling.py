"""What is settled, when and in which order, whatever the decoder reads."""

from __future__ import annotations

from dataclasses import replace

import pytest
from scripted import Scripted, follow, transcriber

from ecmf.heard import Unit
from ecmf.transcript import Partial, Settled, Skipped, UtteranceEnd
from ecmf.vad import SAMPLE_RATE

ONE, TWO = Unit(" one", (1,), 0.3, 0.6, 0.95), Unit(" two", (2,), 0.7, 1.9, 0.95)


def test_no_word_is_placed_before_what_was_settled_when_it_was_read() -> None:
    three = Unit(" three", (3,), 0.5, 0.8, 0.95)  # in the window, that is where " one" lies

    def read(prefix: tuple[int, ...], from_s: float, seconds: float) -> list[Unit]:
        if not prefix:
            return [ONE, TWO] if seconds > TWO.end_s + 0.3 else []
        return [three] if prefix == (1, 2) and seconds > from_s + 0.7 else []

    settled, texts = 0, ""
    made = transcriber(Scripted(read), (0.5, 2.5), (3.2, 3.8))
    for _, window, event in follow(made, 6.0):
        if isinstance(event, Settled | Partial) and window is not None:
            before = window.start_ns + round((window.settled - window.begin) * 1e9 / SAMPLE_RATE)
            assert event.start_ns >= before - 1 or not event.words
            assert all(word.start_ns >= before - 1 for word in event.words)
        if isinstance(event, Settled):
            assert event.start_ns >= settled
            settled, texts = event.end_ns, texts + event.text
    assert texts == " one two three"


def test_what_sounds_like_speech_for_long_and_has_no_word_in_it_is_skipped() -> None:
    decoder = Scripted(lambda prefix, from_s, seconds: [])
    made = transcriber(decoder, (0.5, 36.0))
    events = [event for _, _, event in follow(made, 40.0)]
    assert [event.reason for event in events if isinstance(event, Skipped)] == ["unsettled"]
    (skipped,) = events
    assert made.skipped_s == pytest.approx((skipped.end_ns - skipped.start_ns) / 1e9) == 28.0
    assert made.window() is None


def test_words_after_a_skipped_stretch_are_settled() -> None:
    late = Unit(" late", (7,), 0.2, 0.6, 0.95)

    def read(prefix: tuple[int, ...], from_s: float, seconds: float) -> list[Unit]:
        if prefix:
            return []
        if not texts:
            return [ONE] if seconds < 2 else []
        return [late] if made.skipped_s and texts == [ONE.text] and seconds > 1 else []

    decoder = Scripted(read)
    made = transcriber(decoder, (0.5, 36.0))
    texts: list[str] = []
    for _, _, event in follow(made, 40.0):
        if isinstance(event, Settled):
            texts.append(event.text)
    assert texts == [" one", " late"]
    guided = [prefix for prefix in decoder.prefixes if prefix]
    assert guided[-1] == (7,)  # and not what was said before the skipped stretch


def test_a_doubtful_word_keeps_the_language_it_was_read_in() -> None:
    decoder = Scripted(lambda *_: [Unit(" Genau", (1,), 0.3, 0.6, 0.6)], language=None, likely="de")
    told = [
        event
        for _, _, event in follow(transcriber(decoder, (0.5, 1.2)), 3.0)
        if isinstance(event, Settled | UtteranceEnd)
    ]
    assert [(event.text.strip(), event.language) for event in told] == [("Genau", "de")] * 2


def test_an_utterance_of_punctuation_alone_settles_nothing() -> None:
    stop = Unit(".", (3,), 0.4, 0.4, 0.95)

    def read(prefix: tuple[int, ...], from_s: float, seconds: float) -> list[Unit]:
        if not prefix:
            return [ONE, TWO] if seconds > TWO.end_s + 0.3 else []
        return [replace(stop, start_s=from_s, end_s=from_s)] if seconds > from_s + 1 else []

    events = [event for _, _, event in follow(transcriber(Scripted(read), (0.5, 2.5), (3.2, 3.8)), 6.0)]
    settled = [(event.utterance, event.text) for event in events if isinstance(event, Settled)]
    ended = [event.utterance for event in events if isinstance(event, UtteranceEnd)]
    assert {number for number, _ in settled} == set(ended) == {1}
    assert any(isinstance(event, Partial) and event.utterance == 2 for event in events)


def test_punctuation_before_the_first_word_is_settled_with_it() -> None:
    dots = Unit("...", (3,), 0.3, 0.4, 0.95)
    said: list[str] = []
    decoder = Scripted(lambda prefix, *_: [] if prefix or said else [dots, replace(ONE, start_s=0.4)])
    for _, _, event in follow(transcriber(decoder, (0.5, 1.4)), 3.0):
        if isinstance(event, Settled):
            said.append(event.text)
    assert said == ["... one"]


def test_words_that_the_ones_before_silence_are_read_without_them() -> None:
    again = Unit(" again", (9,), 0.3, 0.8, 0.95)

    def read(prefix: tuple[int, ...], from_s: float, seconds: float) -> list[Unit]:
        if prefix:
            return []  # as a decoder does whose prefix ends in a word that nobody said
        return [ONE] if not texts else [again] if texts == [ONE.text] else []

    made = transcriber(Scripted(read), (0.5, 1.4), (2.5, 4.2))
    texts: list[str] = []
    for _, _, event in follow(made, 6.0):
        if isinstance(event, Settled):
            texts.append(event.text)
    assert texts == [" one", " again"]
