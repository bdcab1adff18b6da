"""Fixtures for everyone: weights and demo media, fetched once into the cache."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ecmf.bundle import Bundle
from ecmf.weights import Unreachable, fetch, imported


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    """A command line that ran within a test leaves no log level or handler behind."""
    loggers = [logging.getLogger(name) for name in (None, "ecmf", "realtime", "train")]
    before = [(logger, logger.level, list(logger.handlers)) for logger in loggers]
    yield
    for logger, level, handlers in before:
        logger.setLevel(level)
        logger.handlers[:] = handlers


@functools.cache
def _fetch(name: str) -> Path | Unreachable:
    try:
        return fetch(name)
    except Unreachable as error:
        return error


@pytest.fixture(scope="session")
def weight() -> Callable[[str], Path]:
    """`weight(name)`: the path of a registered weight; skips where it cannot be fetched."""

    def path(name: str) -> Path:
        found = _fetch(name)
        if isinstance(found, Unreachable):
            pytest.skip(str(found))
        return found

    return path


@pytest.fixture(scope="session")
def bundle(weight: Callable[[str], Path]) -> Callable[[str, str], Bundle]:
    """`bundle(name, *weights)`: the bundle made of those weights; skips where they cannot be fetched."""

    def made(name: str, *weights: str) -> Bundle:
        for needed in weights:
            weight(needed)
        return imported(name, offline=True)

    return made


@pytest.fixture(scope="session")
def demo_face(weight: Callable[[str], Path]) -> Path:
    """20 s, 640x360, silent: distress 0-6 s, changing 6-10.5 s, laughing 10.7-19.7 s."""
    return weight("demo-face")


@pytest.fixture(scope="session")
def demo_smile(weight: Callable[[str], Path]) -> Path:
    """2.4 s: neutral 0-0.6 s, a broad smile 0.7-2.3 s."""
    return weight("demo-smile")


@pytest.fixture(scope="session")
def demo_no_face(weight: Callable[[str], Path]) -> Path:
    """A video without a face."""
    return weight("demo-no-face")


@pytest.fixture(scope="session")
def demo_multi_face(weight: Callable[[str], Path]) -> Path:
    """A picture with five faces."""
    return weight("demo-multi-face")


@pytest.fixture(scope="session")
def demo_speech(weight: Callable[[str], Path]) -> Path:
    """44 s of Dickens, read."""
    return weight("demo-speech")


@pytest.fixture(scope="session")
def demo_speech_short(weight: Callable[[str], Path]) -> Path:
    """10 s of Beckett, read."""
    return weight("demo-speech-short")
