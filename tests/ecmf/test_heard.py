"""Whatever a decoder makes up, what is taken for heard is a beginning of it, within the audio and free of loops."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ecmf.heard import Unit, heard
from ecmf.transcript import Settled, UtteranceEnd
from ecmf.unfinished import TranscriberSettings, Unfinished
from ecmf.utterances import Utterance
from ecmf.vad import SAMPLE_RATE

WORDS = st.sampled_from([" it", " was", " the", " age", ".", ","])


@st.composite
def decodings(draw: st.DrawFn) -> list[Unit]:
    """Units one after the other, some of no length, some far in the padding."""
    at, units = 0.0, []
    for number, text in enumerate(draw(st.lists(WORDS, max_size=25))):
        length = draw(st.sampled_from([0.0, 0.02, 0.2, 0.4, 2.0]))
        units.append(Unit(text, (number,), at, at + length, draw(st.floats(0.0, 1.0))))
        at += length
    return units


@given(
    decodings(), st.floats(0.1, 10.0), st.sampled_from(["", "It was the", "the age the age"]), st.booleans()
)
def test_what_is_heard_is_a_beginning_within_the_audio(
    units: list[Unit], seconds: float, before: str, ended: bool
) -> None:
    kept = heard(units, seconds, before, ended=ended)
    assert [unit.tokens for unit in kept] == [unit.tokens for unit in units[: len(kept)]]
    assert all(0 <= unit.start_s <= unit.end_s <= seconds for unit in kept)
    words = [unit for unit in units[: len(kept)] if not unit.punctuation][:-1]  # a sure last word may stay
    timeless = [unit.end_s - unit.start_s < 0.03 for unit in words]
    assert not any(all(timeless[k : k + 3]) for k in range(len(timeless) - 2))


def test_a_loop_of_the_decoder_is_cut_and_real_repetitions_stay() -> None:
    def unit(text: str, start: float, end: float) -> Unit:
        return Unit(text, (1,), start, end, 0.9)

    real = [unit(" It", 0, 0.2), unit(" was", 0.2, 0.4), unit(" it", 0.4, 0.6), unit(" was", 0.6, 0.8)]
    assert heard(real, 2.0, "") == tuple(real)
    loop = [unit(" it", 0.8, 0.82), unit(" was", 0.82, 0.9), unit(" it", 0.9, 0.9), unit(" was", 0.9, 1.0)]
    assert heard([*real, *loop], 2.0, "") == tuple(real)
    assert heard(loop, 2.0, "It was") == ()
    padding = [unit(" thank", 2.0, 2.4), unit(" you", 2.4, 2.9)]
    assert heard([*real, *padding], 2.0, "") == tuple(real)


def test_a_sure_last_word_stays_wherever_its_alignment_lies_when_speech_has_ended() -> None:
    by, the = Unit(" by", (1,), 1.2, 1.7, 0.99), Unit(" the", (2,), 1.7, 3.9, 0.99)
    door, stop, more = (Unit(text, (3,), 3.9, 3.9, 0.95) for text in (" door", ".", " Thanks"))
    texts = [unit.text for unit in heard([by, the, door, stop], 2.3, "", ended=True)]
    assert texts == [" by", " the", " door", "."]
    for units, ended in (([by, the, door, stop], False), ([by, the, door, stop, more], True)):
        assert [unit.text for unit in heard(units, 2.3, "", ended=ended)] == [" by", " the"]
    kept = heard([by, the, door, stop], 2.3, "", ended=True)
    assert all(unit.start_s <= unit.end_s <= 2.3 for unit in kept)


def test_what_less_audio_already_held_is_not_made_up() -> None:
    going, to, heaven = (
        Unit(text, (1,), start, start, 0.7)
        for text, start in ((" going", 1.2), (" to", 2.0), (" heaven", 2.0))
    )
    units = [going, to, heaven]
    assert [unit.text for unit in heard(units, 2.0, "", ended=True)] == [" going"]
    kept = heard(units, 2.0, "", known=[" going", " to", " heaven", "."], ended=True)
    assert [unit.text for unit in kept] == [" going", " to", " heaven"]
    other = heard(units, 2.0, "", known=[" gone", " to", " heaven"], ended=True)
    assert [unit.text for unit in other] == [" going"]


@given(decodings(), st.floats(0.5, 10.0))
def test_settled_words_stay_in_order_and_before_the_end_of_the_window(
    units: list[Unit], seconds: float
) -> None:
    end = round(seconds * SAMPLE_RATE)
    progress = Unfinished(Utterance(1, 0, end, end), 0, 0)
    kept = heard(units, seconds, "", ended=True)
    ready = progress.ready(kept, seconds, TranscriberSettings(), paused=False)
    events = progress.settle(kept[:ready], 0, "en")
    assert progress.settled <= end
    for event in events:
        assert isinstance(event, Settled)
        times = [time for word in event.words for time in (word.start_ns, word.end_ns)]
        assert times == sorted(times)


def test_a_doubtful_word_waits_and_comes_at_the_end_of_its_utterance_at_the_latest() -> None:
    settings, end = TranscriberSettings(), 2 * SAMPLE_RATE
    progress = Unfinished(Utterance(1, 0, end, end), 0, 0)
    sure, doubtful = Unit(" no", (1,), 0.4, 0.8, 0.95), Unit(" matter", (2,), 0.8, 1.3, 0.4)
    for paused in (False, True):
        assert progress.ready((sure, doubtful), 1.7, settings, paused=paused) == 1
    assert progress.ready((sure, doubtful), 2.4, settings, paused=False) == 2  # a second of sound behind it
    progress.settle((sure,), 0, "en")
    progress.guess((doubtful,), 0, "en")
    tail = progress.settle(progress.left(), progress.rest_begin, "en")
    assert [event.text for event in tail] == [" matter"]
    (ended,) = progress.finish()
    assert isinstance(ended, UtteranceEnd)
    assert ended.text == "no matter"
    assert progress.left() == ()


def test_a_split_takes_what_is_not_settled_along() -> None:
    end = 2 * SAMPLE_RATE
    progress = Unfinished(Utterance(1, 0, end, end), 0, 0)
    rest = Unit(" matter", (2,), 0.8, 1.3, 0.4)
    progress.settle((Unit(" no", (1,), 0.4, 0.8, 0.95),), 0, "en")
    progress.guess((rest,), 0, "de")
    following = progress.going_on(Utterance(2, progress.settled, end, end))
    assert progress.left() == ()
    assert following.left() == (rest,) and following.settled == progress.settled
    assert following.rest_language == "de"
