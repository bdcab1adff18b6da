"""Utterances become bounded token rows whose layout nothing spoken can break."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecmf.bundle import SHIPPED
from ecmf.errors import WeightError
from ecmf.wordpiece import CLS, MAX_TOKENS, MAX_UTTERANCE, SEP, WordPiece, clean, pad

WORDPIECE = WordPiece(SHIPPED / "text" / "tokenizer.json")


def test_known_pieces() -> None:
    assert WORDPIECE.line("Hello world") == ([CLS, 7592, 2088, SEP], 4)


def test_layout_is_utterance_cues_then_latest_history_first() -> None:
    ids, own = WORDPIECE.line("hello", ["first", "second"], "happy")
    pieces = [WORDPIECE.pieces(text) for text in ("hello", "happy", "second", "first")]
    assert ids == [CLS, *pieces[0], SEP, *pieces[1], SEP, *pieces[2], SEP, *pieces[3], SEP]
    assert own == 3


def test_spoken_markers_stay_words() -> None:
    assert SEP not in WORDPIECE.pieces("[SEP] and [CLS]")
    assert CLS not in WORDPIECE.pieces("[SEP] and [CLS]")


def test_typographic_and_control_characters() -> None:
    assert clean("It\x92s  a “test”…\n") == 'It\'s a "test"...'


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=400), st.lists(st.text(max_size=200), max_size=6), st.text(max_size=40))
def test_any_text_gives_a_bounded_row(words: str, history: list[str], cues: str) -> None:
    ids, own = WORDPIECE.line(words, history, cues)
    assert ids[0] == CLS and ids[own - 1] == SEP == ids[-1]
    assert 2 <= own <= MAX_UTTERANCE + 2
    assert own <= len(ids) <= MAX_TOKENS


def test_padding_marks_what_is_there() -> None:
    short, long = WORDPIECE.line("hi"), WORDPIECE.line("hello there", ["before"])
    tokens = pad([short, long])
    assert tokens.ids.shape == (2, len(long[0]))
    assert tokens.mask.sum(1).tolist() == [len(short[0]), len(long[0])]
    assert tokens.types.sum(1).tolist() == [0, len(long[0]) - long[1]]


def test_a_broken_tokenizer_is_one_line(tmp_path) -> None:  # type: ignore[no-untyped-def]
    for content in ("{", '{"model": {}}', '{"model": {"vocab": {"a": 0}}}'):
        path = tmp_path / "tokenizer.json"
        path.write_text(content)
        with pytest.raises(WeightError, match=r"tokenizer\.json") as caught:
            WordPiece(path)
        assert "\n" not in str(caught.value)
