"""Training examples of the text branch: an utterance, the lines before it, soft targets; augmentation and batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ecmf.labels import EKMAN
from ecmf.wordpiece import OTHER, Tokens, WordPiece, pad
from train.datasets.goemotions import Comment
from train.datasets.meld import Line, with_history
from train.word_errors import corrupt, unpunctuated

HISTORY_LINES = 4
Context = Literal["none", "own", "dialogue"]
CONTEXTS: tuple[Context, ...] = ("none", "own", "dialogue")
"""No earlier line, only the speaker's own (what a microphone in front of one person hears), everybody's."""


@dataclass(frozen=True)
class Example:
    text: str
    target: NDArray[np.float32]
    """float32[7] in the order of EKMAN, sums to 1."""
    own: tuple[str, ...] = ()
    """The speaker's own earlier lines, oldest first."""
    dialogue: tuple[str, ...] = ()
    """Everybody's, other people's marked with OTHER."""

    def history(self, context: Context) -> tuple[str, ...]:
        return {"none": (), "own": self.own, "dialogue": self.dialogue}[context]


@dataclass(frozen=True)
class Augmentation:
    """How an example is varied each time it is seen."""

    contexts: tuple[float, float, float] = (0.25, 0.35, 0.4)
    """Probability of each of CONTEXTS."""
    word_errors: float = 0.2
    """Share of examples with imitated recognition errors, at a rate drawn from 0 to 30 %."""
    unpunctuated: float = 0.15
    """Share of examples without case and punctuation."""


def from_meld(lines: Sequence[Line]) -> list[Example]:
    examples = []
    for line, earlier in with_history(lines):
        recent = earlier[-HISTORY_LINES:]
        own = tuple(e.text for e in earlier if e.speaker == line.speaker)[-HISTORY_LINES:]
        dialogue = tuple(e.text if e.speaker == line.speaker else OTHER + e.text for e in recent)
        examples.append(Example(line.text, _target((line.label,)), own, dialogue))
    return examples


def from_goemotions(comments: Sequence[Comment]) -> list[Example]:
    return [Example(comment.text, _target(comment.labels)) for comment in comments]


def _target(labels: Sequence[str]) -> NDArray[np.float32]:
    target = np.zeros(len(EKMAN), np.float32)
    for label in labels:
        target[EKMAN.index(label)] = 1 / len(labels)
    return target


@dataclass
class Loader:
    """Shuffled, augmented, length-sorted batches; the same seed and epoch give the same batches."""

    examples: Sequence[Example]
    wordpiece: WordPiece
    batch: int
    seed: int
    augmentation: Augmentation = field(default_factory=Augmentation)

    def __post_init__(self) -> None:
        self._words = [word for example in self.examples for word in example.text.split()]

    def __len__(self) -> int:
        return -(-len(self.examples) // self.batch)

    def epoch(self, number: int) -> Iterator[tuple[Tokens, NDArray[np.float32]]]:
        rng = np.random.default_rng((self.seed, number))
        lines = [self._line(example, rng) for example in self.examples]
        order = rng.permutation(len(lines))
        block = self.batch * 40  # sorted by length within a block, so that padding costs little
        batches = []
        for start in range(0, len(order), block):
            part = sorted(order[start : start + block], key=lambda index: len(lines[index][0]))
            batches += [part[i : i + self.batch] for i in range(0, len(part), self.batch)]
        for number_of_batch in rng.permutation(len(batches)):
            chosen = batches[number_of_batch]
            yield pad([lines[i] for i in chosen]), np.stack([self.examples[i].target for i in chosen])

    def _line(self, example: Example, rng: np.random.Generator) -> tuple[list[int], int]:
        context = CONTEXTS[rng.choice(len(CONTEXTS), p=self.augmentation.contexts)]
        text = example.text
        if rng.random() < self.augmentation.word_errors:
            text = corrupt(text, rng.uniform(0, 0.3), self._words, rng)
        if rng.random() < self.augmentation.unpunctuated:
            text = unpunctuated(text) or text
        return self.wordpiece.line(text, example.history(context))


def batches(
    wordpiece: WordPiece, texts: Sequence[str], histories: Sequence[Sequence[str]], size: int = 64
) -> Iterator[Tokens]:
    """Plain batches in order, for evaluation."""
    for start in range(0, len(texts), size):
        part = slice(start, start + size)
        yield pad([wordpiece.line(t, h) for t, h in zip(texts[part], histories[part], strict=True)])
