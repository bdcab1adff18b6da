"""Labels for unlabelled samples, from sources that agree and are sure enough (semi-supervised learning).

A source is a model of one feature, a model of all of them, or an opinion from outside. How sure is sure enough is
found for each label by itself, out of fold, on the samples whose label is given: the lowest confidence from which on
its guesses are as often right as asked. Accepted guesses train the next round's models with the given labels, as soft
labels (Lee 2013; per-class thresholds as in FlexMatch, Zhang et al. 2021; shares kept: ReMixMatch, Berthelot 2020).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecmf.errors import DataError
from train import refinement
from train.refinement import Probs

PART = 4096
"""Rows that are read at a time: the arrays may be memory-mapped and larger than memory."""
FEWEST = 10
"""Guesses of a label out of fold below which nothing is known of how often they are right."""
Tell = Callable[[str], None]


@dataclass(frozen=True)
class Options:
    rounds: int = 2
    precision: float = 0.8
    """How often the guesses of a label must be right, out of fold, to be accepted."""
    agree: float = 0.6
    """Share of the sources that must name the same label."""
    most: float = 3.0
    """Guesses accepted at most, the surest, relative to the given labels: what is trained on stays in memory."""
    training: refinement.Options = field(default_factory=refinement.Options)


@dataclass(frozen=True)
class Guessed:
    """What a round found."""

    soft: Probs
    """float32[unlabelled, labels]."""
    accepted: NDArray[np.bool_]
    """bool[unlabelled]."""
    thresholds: NDArray[np.float64]
    """float64[labels]: least confidence accepted; infinite where none is good enough."""
    precision: NDArray[np.float64]
    """float64[labels]: share of right guesses above it, out of fold; NaN where there is none."""
    sources: Mapping[str, NDArray[np.int64]]
    """Per source int64[unlabelled], the label it names; -1: it says nothing."""

    @property
    def label(self) -> NDArray[np.int64]:
        """int64[unlabelled]."""
        return self.soft.argmax(axis=1)


@dataclass(frozen=True)
class Data:
    """Samples with and without a label, in the same arrays."""

    features: Mapping[str, NDArray[np.floating]]
    """Per name float[n, d], perhaps memory-mapped."""
    outside: Mapping[str, Probs]
    """Opinions float32[n, labels] of sources that saw none of the given labels; rows of zeros: none."""
    given: NDArray[np.int64]
    """int64[n], -1 without a label."""
    labels: tuple[str, ...]
    groups: NDArray[np.str_] | None = None
    """str[n]: people, who must not be in two folds."""

    def __post_init__(self) -> None:
        for number, label in enumerate(self.labels):
            if not (self.given == number).any():
                raise DataError(f"no sample was given the label {label!r}; label some, or leave it out")
        if not (self.given < 0).any():
            raise DataError("every sample has a label; there is nothing to guess")

    @cached_property
    def digest(self) -> str:
        """Of everything that a guess can depend on."""
        found = hashlib.sha256(repr(self.labels).encode() + self.given.tobytes())
        found.update(b"" if self.groups is None else repr(self.groups.tolist()).encode())
        for name, values in (*self.features.items(), *self.outside.items()):
            found.update(f"{name} {values.shape} {values.dtype}".encode())
            for start in range(0, len(values), PART):
                found.update(np.ascontiguousarray(values[start : start + PART]).data)
        return found.hexdigest()

    @property
    def known(self) -> NDArray[np.int64]:
        return np.flatnonzero(self.given >= 0)

    @property
    def unknown(self) -> NDArray[np.int64]:
        return np.flatnonzero(self.given < 0)


def rows_of(features: Sequence[NDArray[np.floating]], rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """float32[rows, sum of d]. Raises DataError for a row that is not finite."""
    found = np.concatenate([np.asarray(values[rows], np.float32) for values in features], axis=1)
    finite = np.isfinite(found).all(axis=1)
    if not finite.all():
        raise DataError(f"features: row {int(rows[np.argmin(finite)])} is not finite (NaN or infinite)")
    return found


def judged(model: Any, features: Sequence[NDArray[np.floating]], rows: NDArray[np.int64]) -> Probs:
    """float32[rows, labels], a part in memory at a time; zeros for what has none of the features."""
    parts = []
    for start in range(0, len(rows), PART):
        values = rows_of(features, rows[start : start + PART])
        parts.append(refinement.judge(model, values) * values.any(axis=1, keepdims=True))
    return np.concatenate(parts)


def sources_of(data: Data) -> dict[str, list[NDArray[np.floating]]]:
    """What a model is trained on, by name: each feature, and all together where there are several."""
    found = {name: [values] for name, values in data.features.items()}
    if len(found) > 1:
        found["all features"] = list(data.features.values())
    return found


def thresholds(
    soft: Probs, agree: NDArray[np.bool_], given: NDArray[np.int64], precision: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Per label the lowest confidence from which on guesses are right as often as ``precision`` asks, and how often.

    soft: out-of-fold probabilities of samples whose label is ``given``; agree: where the sources agree. Infinite and
    NaN where no FEWEST guesses are that good.
    """
    count = soft.shape[1]
    least, found = np.full(count, np.inf), np.full(count, np.nan)
    guess, sure = soft.argmax(axis=1), soft.max(axis=1)
    for label in range(count):
        rows = np.flatnonzero(agree & (guess == label))
        rows = rows[np.argsort(-sure[rows], kind="stable")]
        right = np.cumsum(given[rows] == label) / np.arange(1, len(rows) + 1)
        enough = np.flatnonzero((right >= precision) & (np.arange(len(rows)) + 1 >= FEWEST))
        if len(enough):
            least[label], found[label] = sure[rows[enough[-1]]], right[enough[-1]]
    return least, found


def agreement(guess: NDArray[np.int64], said: Mapping[str, Probs], share: float) -> NDArray[np.bool_]:
    """bool[n]: at least ``share`` of the sources that say anything name the label ``guess``."""
    speak = np.stack([probs.sum(axis=1) > 0 for probs in said.values()])
    same = np.stack([probs.argmax(axis=1) == guess for probs in said.values()]) & speak
    agreed: NDArray[np.bool_] = same.sum(axis=0) >= share * speak.sum(axis=0)
    return agreed


def guess(data: Data, options: Options, before: Guessed | None, tell: Tell = lambda what: None) -> Guessed:
    """One round: models of the given labels, and of what was accepted ``before``, judge the unlabelled samples."""
    known, unknown = data.known, data.unknown
    given = data.given[known]
    hard = np.eye(len(data.labels), dtype=np.float32)[given]
    shares = np.bincount(given, minlength=len(data.labels)) / len(given)
    if before is None:
        least, right = _calibrated(data, options, tell)
        rows, target = known, hard
    else:
        least, right = before.thresholds, before.precision
        rows = np.concatenate([known, unknown[before.accepted]])
        target = np.concatenate([hard, before.soft[before.accepted]])
    said: dict[str, Probs] = {}
    for name, features in sources_of(data).items():
        model = refinement.classifier(
            rows_of(features, rows), target, options.training, options.training.seed
        )
        said[name] = judged(model, features, unknown)
        tell(f"{name}: judged {len(unknown)} samples")
    said |= {name: probs[unknown] for name, probs in data.outside.items()}
    soft = refinement.keep_shares(refinement.together(list(said.values())), shares)
    label, sure = soft.argmax(axis=1), soft.max(axis=1)
    accepted = agreement(label, said, options.agree) & (sure >= least[label])
    room = round(options.most * len(known))
    if accepted.sum() > room:
        kept = np.argsort(np.where(accepted, -sure, 1.0), kind="stable")[:room]
        accepted = np.isin(np.arange(len(accepted)), kept) & accepted
    names = {name: np.where(p.sum(axis=1) > 0, p.argmax(axis=1), -1) for name, p in said.items()}
    return Guessed(soft, accepted, least, right, names)


def _calibrated(data: Data, options: Options, tell: Tell) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Thresholds from samples with a given label, judged by models that saw neither them nor any guess."""
    known = data.known
    given = data.given[known]
    hard = np.eye(len(data.labels), dtype=np.float32)[given]
    people = None if data.groups is None else data.groups[known]
    fold = refinement.folds_of(len(known), options.training, people)
    said: dict[str, Probs] = {}
    for name, features in sources_of(data).items():
        said[name] = refinement.out_of_fold(rows_of(features, known), hard, fold, options.training)
        tell(f"{name}: judged {len(known)} given labels out of fold")
    said |= {name: probs[known] for name, probs in data.outside.items()}
    shares = np.bincount(given, minlength=len(data.labels)) / len(given)
    soft = refinement.keep_shares(refinement.together(list(said.values())), shares)
    agree = agreement(soft.argmax(axis=1), said, options.agree)
    return thresholds(soft, agree, given, options.precision)
