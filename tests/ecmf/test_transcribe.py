"""The transcriber on real speech: right words, in time, never changed; none where none are said."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from numpy.typing import NDArray
from scripted import STATES, Scripted

from bench.recordings import WORSTWARD, pink, read_wave, wordless
from bench.word_errors import matches, normal
from ecmf.decoder import Decoder, model_folder
from ecmf.errors import UsageError
from ecmf.heard import Unit
from ecmf.speech import SpeechEncoder
from ecmf.speech_window import Window
from ecmf.transcribe import Transcriber
from ecmf.transcript import Partial, Settled, Skipped, TranscriptEvent, UtteranceEnd
from ecmf.vad import SAMPLE_RATE

Audio = NDArray[np.float32]
Weight = Callable[[str], Path]
START_NS = 1_000_000_000_000
TEXT = " ".join(text for _, text in WORSTWARD)


@pytest.fixture(scope="module")
def reading(demo_speech_short: Path) -> Audio:
    return read_wave(demo_speech_short)


@pytest.fixture(scope="module")
def decoder(weight: Weight) -> Decoder:
    weight("whisper-tiny.en")
    return Decoder("tiny.en")


@pytest.fixture(scope="module")
def encoder(weight: Weight) -> SpeechEncoder:
    weight("whisper-tiny.en")
    return SpeechEncoder("tiny.en")


def follow(
    audio: Audio, transcriber: Transcriber, encoder: SpeechEncoder, chunk_s: float = 0.25
) -> Iterator[tuple[float, TranscriptEvent]]:
    """Every event with the seconds of audio given when it came."""
    chunk = round(chunk_s * SAMPLE_RATE)
    for begin in range(0, len(audio), chunk):
        piece = audio[begin : begin + chunk]
        events = transcriber.push(piece, START_NS + round(begin * 1e9 / SAMPLE_RATE))
        events += transcriber.flush() if begin + chunk >= len(audio) else []
        while (window := transcriber.window()) is not None:
            events += transcriber.step(window, encoder.encode(window.audio).last_padded)
        yield from (((begin + len(piece)) / SAMPLE_RATE, event) for event in events)


@pytest.fixture(scope="module")
def heard(reading: Audio, decoder: Decoder, encoder: SpeechEncoder) -> list[tuple[float, TranscriptEvent]]:
    return list(follow(reading, Transcriber(decoder), encoder))


def test_a_comma_follows_its_word_whichever_way_it_is_written(
    reading: Audio, decoder: Decoder, encoder: SpeechEncoder
) -> None:
    units = decoder.align(encoder.encode(reading[: 3 * 16_000]).last_padded, " Ever tried , ever failed.")
    assert "".join(unit.text for unit in units) == " Ever tried, ever failed."


def said(events: list[tuple[float, TranscriptEvent]]) -> str:
    return " ".join(event.text for _, event in events if isinstance(event, UtteranceEnd))


def test_a_reading_is_written_down(heard: list[tuple[float, TranscriptEvent]]) -> None:
    _, errors = matches(normal(TEXT), normal(said(heard)))
    assert sum(errors) <= 1
    ends = [event for _, event in heard if isinstance(event, UtteranceEnd)]
    assert len(ends) == 6
    assert {end.language for end in ends} == {"en"}


def test_an_utterance_is_exactly_its_settled_pieces(heard: list[tuple[float, TranscriptEvent]]) -> None:
    texts: dict[int, str] = {}
    ended: set[int] = set()
    for _, event in heard:
        if isinstance(event, Settled):
            assert event.utterance not in ended
            texts[event.utterance] = texts.get(event.utterance, "") + event.text
        elif isinstance(event, UtteranceEnd):
            ended.add(event.utterance)
            assert event.text == texts[event.utterance].strip()
    assert ended == set(texts)


def test_words_carry_their_time_on_the_capture_clock(
    heard: list[tuple[float, TranscriptEvent]], reading: Audio
) -> None:
    words = [word for _, event in heard if isinstance(event, Settled) for word in event.words]
    times = [time for word in words for time in (word.start_ns, word.end_ns)]
    assert all(word.start_ns < word.end_ns for word in words)
    assert times == sorted(times)
    assert times[0] >= START_NS
    begin = 0.0
    texts = [[word for word in words if a <= (word.end_ns - START_NS) / 1e9 < b] for a, b in _spans()]
    assert [len(text) for text in texts] == [2] * 6, texts
    assert begin <= (times[-1] - START_NS) / 1e9 <= len(reading) / SAMPLE_RATE


def _spans() -> list[tuple[float, float]]:
    ends = [end for end, _ in WORSTWARD]
    return list(zip([0.0, *ends[:-1]], ends, strict=True))


def test_words_are_settled_soon_and_seen_before(heard: list[tuple[float, TranscriptEvent]]) -> None:
    delays = [
        at - (word.end_ns - START_NS) / 1e9
        for at, event in heard
        if isinstance(event, Settled)
        for word in event.words
    ]
    assert np.median(delays) < 1.0
    assert max(delays) < 2.0
    assert any(isinstance(event, Partial) and event.words for _, event in heard)


def test_pieces_of_any_size_give_the_same_words(
    reading: Audio, decoder: Decoder, encoder: SpeechEncoder
) -> None:
    audio = reading[: 5 * SAMPLE_RATE]
    fine = list(follow(audio, Transcriber(decoder), encoder, 0.032))
    coarse = list(follow(audio, Transcriber(decoder), encoder, 5.0))
    assert normal(said(fine)) == normal(said(coarse)) == normal("Ever tried. Ever failed. No matter.")


@pytest.mark.parametrize("sound", ["silence", "pink noise", "room noise", "keyboard", "breathing", "music"])
def test_no_words_where_none_are_said(sound: str, decoder: Decoder, encoder: SpeechEncoder) -> None:
    audio = wordless(10.0, seed=3)[sound]
    assert [e for _, e in follow(audio, Transcriber(decoder), encoder) if isinstance(e, Settled)] == []


@pytest.mark.slow
@pytest.mark.parametrize("sound", ["silence", "pink noise", "room noise", "keyboard", "breathing", "music"])
def test_no_words_in_five_minutes_without_any(sound: str, decoder: Decoder, encoder: SpeechEncoder) -> None:
    audio = wordless(300.0, seed=0)[sound]
    events = list(follow(audio, Transcriber(decoder), encoder))
    assert [event for _, event in events if isinstance(event, Settled | Partial | UtteranceEnd)] == []


def test_speech_in_noise_is_still_heard(reading: Audio, decoder: Decoder, encoder: SpeechEncoder) -> None:
    audio = reading[: 5 * SAMPLE_RATE]
    noise = pink(len(audio), np.random.default_rng(0)) * 0.1 * np.sqrt(np.mean(audio**2))
    heard = list(follow((audio + noise).astype(np.float32), Transcriber(decoder), encoder))
    _, errors = matches(normal("Ever tried. Ever failed. No matter."), normal(said(heard)))
    assert sum(errors) <= 1


def test_lost_samples_are_told_and_times_stay_right(
    reading: Audio, decoder: Decoder, encoder: SpeechEncoder
) -> None:
    transcriber = Transcriber(decoder)
    first, second = reading[: round(1.9 * SAMPLE_RATE)], reading[round(3.45 * SAMPLE_RATE) : 5 * SAMPLE_RATE]
    events = transcriber.push(first, START_NS)
    later = START_NS + 60_000_000_000
    events += transcriber.push(second, later) + transcriber.flush()
    while (window := transcriber.window()) is not None:
        events += transcriber.step(window, encoder.encode(window.audio).last_padded)

    (skipped,) = [event for event in events if isinstance(event, Skipped)]
    assert skipped.reason == "gap"
    assert skipped.end_ns == later
    ends = [event for event in events if isinstance(event, UtteranceEnd)]
    assert normal(ends[-1].text) == ["no", "matter"]
    assert later <= ends[-1].start_ns < ends[-1].end_ns <= later + 2_000_000_000


def test_a_window_says_what_to_encode(reading: Audio, decoder: Decoder) -> None:
    transcriber = Transcriber(decoder)
    assert transcriber.window() is None
    transcriber.push(reading[:SAMPLE_RATE], START_NS)
    window = transcriber.window()
    assert window is not None
    seconds = (window.end_ns - window.start_ns) / 1e9
    assert seconds == pytest.approx(len(window.audio) / SAMPLE_RATE)
    assert len(window.speech) == len(window.audio) // 512
    offset = round((window.start_ns - START_NS) * SAMPLE_RATE / 1e9)
    np.testing.assert_array_equal(window.audio, reading[offset : offset + len(window.audio)])


def test_windows_begin_with_what_was_said_shortly_before(
    reading: Audio, decoder: Decoder, encoder: SpeechEncoder
) -> None:
    transcriber = Transcriber(decoder)
    windows: list[Window] = []
    for begin in range(0, 5 * SAMPLE_RATE, 4096):
        transcriber.push(reading[begin : begin + 4096], START_NS + round(begin * 1e9 / SAMPLE_RATE))
        while (window := transcriber.window()) is not None:
            windows.append(window)
            transcriber.step(window, encoder.encode(window.audio).last_padded)
    context = transcriber.settings.context_s * SAMPLE_RATE
    assert windows[0].prefix == ()
    assert {window.utterance for window in windows if window.prefix} >= {2, 3}  # of the utterance before, too
    for window in windows:
        np.testing.assert_array_equal(window.audio, reading[window.begin : window.begin + len(window.audio)])
        assert 0 <= window.settled - window.begin <= context + 512
        assert len(window.speech) == len(window.audio) // 512
    last = next(window for window in reversed(windows) if window.prefix)
    assert normal(decoder.text(last.prefix))[-2:] in (["ever", "failed"], ["no", "matter"])


@pytest.mark.parametrize("lost_s", [0, 60])
def test_nothing_said_before_a_gap_guides_what_follows(reading: Audio, lost_s: int) -> None:
    before, after, cut = 1, 2, round(1.9 * SAMPLE_RATE)
    saying = before
    decoder = Scripted(lambda *_: [Unit(" ever", (saying,), 0.3, 0.9, 0.95)])
    transcriber = Transcriber(cast(Decoder, decoder))
    windows: list[tuple[Window, tuple[int, ...]]] = []
    for saying, late_ns in ((before, 0), (after, lost_s * 1_000_000_000)):
        begin = 0 if saying == before else cut
        start_ns = START_NS + round(begin * 1e9 / SAMPLE_RATE) + late_ns
        events = transcriber.push(reading[begin : begin + cut], start_ns)
        while (window := transcriber.window()) is not None:
            events += transcriber.step(window, STATES)
            windows.append((window, decoder.prefixes[-1]))
        assert any(isinstance(event, Settled) for event in events)
    assert windows[0][1] == ()
    following = [(window, guide) for window, guide in windows if window.settled >= cut]
    assert following and all(window.prefix == guide for window, guide in following)
    if lost_s:
        assert all(before not in guide and window.begin >= cut for window, guide in following)
    else:
        assert any(before in guide and window.begin < cut for window, guide in following)


def test_a_compound_is_one_word(decoder: Decoder) -> None:
    tokens = decoder._tokenizer.encode(" an ill-disposed young man, don't", add_special_tokens=False).ids
    begins, sure = np.arange(len(tokens) + 1, dtype=np.float64), np.ones(len(tokens))
    texts = [unit.text for unit in decoder._units(tokens, 0, begins, sure, "en")]
    assert texts == [" an", " ill-disposed", " young", " man", ",", " don't"]


def test_the_decoder_is_bounded(decoder: Decoder, encoder: SpeechEncoder) -> None:
    rng = np.random.default_rng(0)
    noise = (0.1 * rng.standard_normal(SAMPLE_RATE)).astype(np.float32)
    hypothesis = decoder.decode(encoder.encode(noise).last_padded, 1.0)
    assert sum(len(unit.tokens) for unit in hypothesis.units) <= 14


def test_models_and_languages_that_do_not_exist_are_named(weight: Weight, tmp_path: Path) -> None:
    weight("whisper-tiny.en")
    with pytest.raises(UsageError, match="tinier"):
        model_folder("tinier")
    with pytest.raises(UsageError, match=r"model\.bin"):
        model_folder(str(tmp_path))
    with pytest.raises(UsageError, match="English alone"):
        Decoder("tiny.en", language="de")


@pytest.mark.slow
def test_the_language_is_found_after_a_few_words(weight: Weight, reading: Audio) -> None:
    """Utterances of two words: the first may be taken for another language, what was heard before then decides."""
    weight("whisper-base")
    heard = list(follow(reading, Transcriber(Decoder("base")), SpeechEncoder("base")))
    ends = [event for _, event in heard if isinstance(event, UtteranceEnd)]
    assert len(ends) >= 4
    assert {end.language for end in ends[2:]} == {"en"}
    with pytest.raises(UsageError, match="xx"):
        Decoder("base", language="xx")
