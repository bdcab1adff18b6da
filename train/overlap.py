"""Who was trained on whom: people that a head or the shipped branches below it have seen before."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ecmf.bundle import SHIPPED, Bundle, load_bundle
from train.datasets import layouts

LEARNT_FROM: Mapping[str, str] = {"meld": "text", "fer": "face", "muxspace": "face"}
"""Corpus -> the shipped branch that was trained on its train split."""


def trained_on(bundle: Bundle) -> set[str]:
    """People whom the manifest names as seen in training; none where it only counts them, as the shipped head does."""
    named = (source.get("people") for source in bundle.manifest.training_data)
    splits = [people for people in named if isinstance(people, Mapping)]
    return {person for people in splits for split in people if split != "test" for person in people[split]}


def heard(people: set[str]) -> set[str]:
    """Those of ``people`` whom the shipped voice branch was trained on, by the names that the corpora give them."""
    sources = load_bundle(SHIPPED / "voice", verify=False).manifest.training_data
    return people & {name for source in sources for name in source.get("speakers", ())}


def flattered(people: set[str], data: Path | None = None) -> str:
    """What is to be said, after a semicolon, where shipped branches know the ``people`` measured; else nothing.

    data: the corpus, where people of its train split are among them.
    """
    said = ""
    if known := heard(people):
        said = (
            f"; the shipped voice branch was trained on {len(known)} of these people: it flatters the voice"
        )
    branch = LEARNT_FROM.get((layouts.kind_of(data) if data is not None else None) or "")
    if branch is not None:
        said += f"; the shipped {branch} branch was trained on this corpus's train split: it flatters the {branch}"
    return said
