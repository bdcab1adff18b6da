"""How likely each label is before anything is seen: what a head assumes, and what a user asks for instead."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ecmf.bundle import Bundle
from ecmf.errors import UsageError

OWN, UNIFORM = "auto", "uniform"
NAMES = (OWN, "webcam", "corpus", UNIFORM)
"""What --prior takes by name; a head states in its manifest what it has of them."""
_TABLE = re.compile(r"\s*[^=,\s][^=,]*=\s*[0-9.]+\s*(,\s*[^=,\s][^=,]*=\s*[0-9.]+\s*)*")


@dataclass(frozen=True)
class Prior:
    probs: NDArray[np.float64]
    """float64[labels], sums to 1, positive."""
    shift: NDArray[np.float64]
    """float64[labels]: what to add to the head's logits: the logarithm of this prior over the trained one."""


def is_prior(text: str) -> bool:
    """Whether it has the form of a prior: one of NAMES, or a table like ``neutral=0.5,happiness=0.3,anger=0.2``."""
    return text in NAMES or _TABLE.fullmatch(text) is not None


def prior_of(bundle: Bundle, asked: str = OWN) -> Prior:
    """The prior of the head in ``bundle`` that ``asked`` means (see ``is_prior``).

    A head that states none is taken to be trained with an even one. Raises UsageError for a prior that the head does
    not state, and for a table that does not name each of its labels with a positive number.
    """
    labels = bundle.manifest.labels
    stated: Mapping[str, Mapping[str, float]] = dict(bundle.manifest.extra.get("priors", {}))
    even = np.full(len(labels), 1 / len(labels))
    trained_on = bundle.manifest.extra.get("prior")
    trained = even if trained_on is None else _table(bundle.id, trained_on, labels)
    if asked == OWN:
        probs = trained
    elif asked == UNIFORM:
        probs = even
    elif asked in NAMES:
        if asked not in stated:
            known = ", ".join([OWN, UNIFORM, *stated])
            raise UsageError(f"{bundle.id} states no prior {asked!r}; it has {known}, or give a table")
        probs = _table(bundle.id, stated[asked], labels)
    elif is_prior(asked):
        pairs = (part.partition("=") for part in asked.split(","))
        probs = _table("--prior", {name.strip(): _number(value) for name, _, value in pairs}, labels)
    else:
        raise UsageError(
            f"--prior {asked}: expected {', '.join(NAMES)}, or a table like neutral=0.5,anger=0.5"
        )
    return Prior(probs, np.log(probs) - np.log(trained))


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise UsageError(f"--prior: {text.strip()!r} is no number") from None


def _table(where: str, table: Mapping[str, float], labels: Sequence[str]) -> NDArray[np.float64]:
    if set(table) != set(labels):
        raise UsageError(f"{where}: a prior names each of {', '.join(labels)}, this one {', '.join(table)}")
    found = np.array([float(table[label]) for label in labels])
    if not np.isfinite(found).all() or found.min() <= 0:
        raise UsageError(f"{where}: a prior is a positive number for each label, this one is {dict(table)}")
    return found / found.sum()
