"""What a window begins with: whole settled words, not too many, never across a break."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ecmf.left_context import LeftContext, Placed

WORDS = st.lists(st.tuples(st.integers(0, 400), st.booleans()), max_size=30)
"""Lengths, and whether it is punctuation."""


def placed(words: list[tuple[int, bool]]) -> list[Placed]:
    at, made = 0, []
    for number, (length, punctuation) in enumerate(words):
        made.append(Placed((number,), at, punctuation))
        at += length
    return made


@given(WORDS, st.integers(0, 10_000), st.integers(0, 4_000), st.lists(st.integers(0, 10_000), max_size=40))
def test_a_window_begins_with_a_word_and_its_prefix_is_all_that_was_said_since(
    words: list[tuple[int, bool]], sample: int, seconds: int, breaks: list[int]
) -> None:
    context, said = LeftContext(), placed(words)
    context.add(said)
    for broken in breaks:
        context.break_off(broken)
    begin, prefix = context.before(sample, seconds)
    assert sample - seconds <= begin <= sample
    last = max((broken for broken in breaks if broken <= sample), default=0)
    assert begin >= last
    if not prefix:
        assert begin == sample
        return
    first = said[prefix[0]]
    assert first.start == begin and not first.punctuation
    assert prefix == tuple(range(prefix[0], len(said)))
    earlier = [each.start for each in said[: prefix[0]] if not each.punctuation]
    assert all(start < sample - seconds or start < last for start in earlier)


def test_a_later_break_does_not_undo_an_earlier_one() -> None:
    context = LeftContext()
    context.add([Placed((1,), 100, False), Placed((2,), 600, False)])
    context.break_off(500)
    context.break_off(900)
    assert context.before(800, 1000) == (600, (2,))  # its utterance still waits
    assert context.before(950, 1000) == (950, ())


def test_there_is_context_again_after_any_number_of_breaks() -> None:
    context = LeftContext()
    for broken in range(0, 1000, 10):
        context.break_off(broken)
    context.add([Placed((1,), 1000, False)])
    assert context.before(1100, 1000) == (1000, (1,))


def test_nothing_said_is_no_context() -> None:
    assert LeftContext().before(16000, 64000) == (16000, ())
