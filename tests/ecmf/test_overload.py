"""A transcriber that falls behind: it says what it skipped, keeps what it settled and comes back to the present."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from bench.recordings import WORSTWARD, read_wave
from bench.word_errors import matches, normal
from ecmf.decoder import Decoder
from ecmf.speech import SpeechEncoder
from ecmf.transcribe import Transcriber, TranscriberSettings
from ecmf.transcript import Settled, Skipped, TranscriptEvent, UtteranceEnd
from ecmf.vad import SAMPLE_RATE

Audio = NDArray[np.float32]
START_NS = 1_000_000_000_000
TEXT = normal(" ".join(text for _, text in WORSTWARD))


@pytest.fixture(scope="module")
def reading(demo_speech_short: Path) -> Audio:
    return read_wave(demo_speech_short)


@pytest.fixture(scope="module")
def decoder(weight: Callable[[str], Path]) -> Decoder:
    weight("whisper-tiny.en")
    return Decoder("tiny.en")


@pytest.fixture(scope="module")
def encoder(weight: Callable[[str], Path]) -> SpeechEncoder:
    weight("whisper-tiny.en")
    return SpeechEncoder("tiny.en")


def live(
    audio: Audio, transcriber: Transcriber, encoder: SpeechEncoder, cost_s: Callable[[float], float]
) -> list[tuple[float, TranscriptEvent]]:
    """Play ``audio`` by a clock that only goes on by waiting and by passes, each of which takes ``cost_s(clock)``.

    Gives every event with the time at which it came.
    """
    events: list[tuple[float, TranscriptEvent]] = []
    clock, pushed, length = 0.0, 0, len(audio) / SAMPLE_RATE
    while pushed < len(audio):
        clock = max(clock, min(pushed / SAMPLE_RATE + 0.25, length))
        due = min(round(clock * SAMPLE_RATE), len(audio))
        fresh = transcriber.push(audio[pushed:due], START_NS + round(pushed * 1e9 / SAMPLE_RATE))
        pushed = due
        fresh += transcriber.flush() if pushed == len(audio) else []
        events += [(clock, event) for event in fresh]
        while (window := transcriber.window()) is not None:
            clock += cost_s(clock)
            fresh = transcriber.step(window, encoder.encode(window.audio).last_padded)
            events += [(clock, event) for event in fresh]
    return events


def test_after_an_overload_it_goes_on_with_the_present(
    reading: Audio, decoder: Decoder, encoder: SpeechEncoder
) -> None:
    transcriber = Transcriber(decoder, settings=TranscriberSettings(lag_s=6.0))
    events = transcriber.push(reading[: 2 * SAMPLE_RATE], START_NS)
    window = transcriber.window()
    assert window is not None
    events += transcriber.step(window, encoder.encode(window.audio).last_padded)
    settled = [event for event in events if isinstance(event, Settled)]

    late = transcriber.window()  # is still computed while ten seconds arrive at once
    events += transcriber.push(
        np.concatenate([reading[2 * SAMPLE_RATE :], reading]), START_NS + 2_000_000_000
    )
    if late is not None:
        events += transcriber.step(late, encoder.encode(late.audio).last_padded)
    events += transcriber.flush()
    while (window := transcriber.window()) is not None:
        events += transcriber.step(window, encoder.encode(window.audio).last_padded)

    skipped = [event for event in events if isinstance(event, Skipped)]
    assert skipped
    assert all(event.reason == "overload" and event.end_ns > event.start_ns for event in skipped)
    assert transcriber.skipped_s == pytest.approx(sum((e.end_ns - e.start_ns) / 1e9 for e in skipped))
    assert [event for event in events if isinstance(event, Settled)][: len(settled)] == settled
    ends = [event for event in events if isinstance(event, UtteranceEnd)]
    assert normal(ends[-1].text) == ["fail", "better"]


def test_when_the_machine_is_free_again_it_is_back_in_real_time(
    reading: Audio, decoder: Decoder, encoder: SpeechEncoder
) -> None:
    length = len(reading) / SAMPLE_RATE
    busy_until = 2 * length
    transcriber = Transcriber(decoder, settings=TranscriberSettings(lag_s=6.0))
    events = live(
        np.concatenate([reading] * 4), transcriber, encoder, lambda at: 5.0 if at < busy_until else 0.05
    )

    skipped = [(at, event) for at, event in events if isinstance(event, Skipped)]
    assert skipped
    assert all(event.reason == "overload" for _, event in skipped)
    assert transcriber.skipped_s == pytest.approx(sum(e.end_ns - e.start_ns for _, e in skipped) / 1e9)
    texts: dict[int, str] = {}
    for _, event in events:
        if isinstance(event, Settled):
            texts[event.utterance] = texts.get(event.utterance, "") + event.text
        elif isinstance(event, UtteranceEnd):
            assert event.text == texts[event.utterance].strip()  # nothing settled was lost on the way
    for (_, one), (_, other) in itertools.pairwise(skipped):
        assert one.end_ns <= other.start_ns  # nothing is told twice
    free = busy_until + 7.0
    delays = [
        at - (word.end_ns - START_NS) / 1e9
        for at, event in events
        if isinstance(event, Settled) and at > free
        for word in event.words
    ]
    assert delays
    assert max(delays) < 2.0
    last = [e.text for _, e in events if isinstance(e, UtteranceEnd) and e.start_ns > START_NS + 3e9 * length]
    _, errors = matches(TEXT, normal(" ".join(last)))
    assert sum(errors) <= 1
