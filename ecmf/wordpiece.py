"""Words to token numbers: how an utterance, its emotional cues and the lines before it reach a BERT encoder."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ecmf.errors import WeightError, need

CLS, SEP, VOCABULARY = 101, 102, 30522
MAX_TOKENS = 96
"""Length of the longest input; the oldest history is cut first."""
MAX_UTTERANCE = 64
"""Tokens of the utterance itself; its end is kept, because that is what was said last."""
OTHER = "> "
"""Put before a line of history that somebody else said."""
_PUNCTUATION = str.maketrans({"’": "'", "‘": "'", "\x92": "'", "“": '"', "”": '"', "\x93": '"', "\x94": '"',
                              "—": "-", "–": "-", "\x96": "-", "\x97": "-", "…": "...", "\x85": "..."})  # fmt: skip


@dataclass(frozen=True)
class Tokens:
    """A batch, padded at the right: int64[batch, tokens] each."""

    ids: NDArray[np.int64]
    mask: NDArray[np.int64]
    """1 where a token stands, 0 for padding."""
    types: NDArray[np.int64]
    """0 for the utterance, 1 for cues and history."""


def clean(text: str) -> str:
    """One spelling for quotes, dashes and spaces, and no control characters."""
    text = text.translate(_PUNCTUATION)
    return " ".join("".join(" " if unicodedata.category(c) == "Cc" else c for c in text).split())


class WordPiece:
    """The tokenizer of BERT's English uncased vocabulary (30,522 pieces) from a `tokenizer.json`."""

    def __init__(self, path: Path) -> None:
        tokenizers = need("tokenizers", "live")
        try:
            text = path.read_text("utf-8")
            size = len(json.loads(text)["model"]["vocab"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise WeightError(f"{path} is not a tokenizer ({error}); fetch it again") from None
        if size != VOCABULARY:
            raise WeightError(
                f"{path} has {size} pieces, BERT's uncased vocabulary {VOCABULARY}; fetch it again"
            )
        self._tokenizer = tokenizers.Tokenizer.from_str(text)
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self._tokenizer.encode_special_tokens = True  # a spoken or typed "[SEP]" stays ordinary text

    def pieces(self, text: str) -> list[int]:
        """Token numbers of ``text`` alone, without markers."""
        return list(self._tokenizer.encode(clean(text), add_special_tokens=False).ids)

    def line(self, utterance: str, history: Sequence[str] = (), cues: str = "") -> tuple[list[int], int]:
        """Token numbers of one input and how many of them are the utterance's.

        [CLS] utterance [SEP] cues [SEP] last line [SEP] line before [SEP] ...; ``history`` is oldest first.
        """
        ids = [CLS, *self.pieces(utterance)[-MAX_UTTERANCE:], SEP]
        own = len(ids)
        for text in ([cues] if cues else []) + list(reversed(history)):
            more = self.pieces(text)
            if len(ids) + len(more) + 1 > MAX_TOKENS:
                break
            ids += [*more, SEP]
        return ids, own


def pad(lines: Sequence[tuple[list[int], int]]) -> Tokens:
    """Batch what ``WordPiece.line`` returned."""
    length = max(len(ids) for ids, _ in lines)
    ids, mask, types = (np.zeros((len(lines), length), np.int64) for _ in range(3))
    for row, (numbers, own) in enumerate(lines):
        ids[row, : len(numbers)] = numbers
        mask[row, : len(numbers)] = 1
        types[row, own : len(numbers)] = 1
    return Tokens(ids, mask, types)
