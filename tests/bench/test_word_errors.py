"""The rule by which word errors are counted."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from bench.word_errors import error_rate, matches, normal, spoken

WORDS = st.lists(st.sampled_from("abcd"), max_size=8)


def test_case_punctuation_and_digits_do_not_count() -> None:
    assert normal("It’s 1,234 well-known “Foo”, 21.") == normal(
        "it's one thousand two hundred thirty four well known FOO twenty one"
    )
    assert spoken(0) == ["zero"]


def test_errors_stand_at_the_word_that_they_belong_to() -> None:
    found, errors = matches(["the", "cat", "sat"], ["the", "cut", "sat", "down"])
    assert found == [0, None, 2]
    assert errors == [0, 1, 1]


@given(WORDS, WORDS)
def test_least_edits(reference: list[str], hypothesis: list[str]) -> None:
    found, errors = matches(reference, hypothesis)
    kept = [k for k in found if k is not None]
    assert kept == sorted(set(kept))
    assert abs(len(reference) - len(hypothesis)) <= sum(errors) <= max(len(reference), len(hypothesis))
    assert (sum(errors) == 0) == (reference == hypothesis)


def test_the_interval_holds_the_pooled_rate() -> None:
    rate = error_rate([(10, 0), (10, 2), (20, 1), (5, 1)])
    assert (rate.words, rate.errors) == (45, 4)
    assert rate.low <= rate.rate <= rate.high
