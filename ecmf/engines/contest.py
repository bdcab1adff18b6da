"""Which engine of a model is fastest on this processor: they take turns on the same inputs."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecmf import golden
from ecmf.bundle import Bundle
from ecmf.engines.base import Arrays, Engine, EngineSpec
from ecmf.engines.profiles import profiles

ROUNDS = 12
LIMIT_S = 0.25
"""All candidates together, of one model, once five rounds are done."""
SAMPLES = 2
"""Inputs of different shapes, such as short and long speech."""

HERE = 0.3
"""Share of an undisturbed turn that the calling thread computes at least, if it is the one that computes."""

_ONE_AT_A_TIME = threading.Lock()
"""Models are loaded on several threads at once; what measures must not be measured against."""


def samples(bundle: Bundle, spec: EngineSpec) -> list[dict[str, NDArray[Any]]]:
    """Golden inputs of different shapes; ones of the usual sizes where there are none: what they hold costs no time.

    Raises BundleError for a dynamic size of which nothing is known.
    """
    try:
        found = golden.inputs(bundle, spec)
    except golden.NoGolden:
        usual = {name: shape for name, (_, shape, _) in profiles(bundle, spec)[0].items()}
        return [{port.name: np.ones(usual[port.name], port.dtype) for port in bundle.manifest.inputs}]
    by_shape = {tuple(array.shape for array in sample.values()): sample for sample in found}
    return list(by_shape.values())[:SAMPLES]


def fastest_ms(engines: Sequence[Engine], inputs: Sequence[Arrays], rounds: int = ROUNDS) -> list[float]:
    """Milliseconds of each engine for all ``inputs`` together, in its least disturbed turn. Raises EngineError.

    Of processor time, where all of them compute in the thread that calls them, else of wall time: a first start loads
    many models at once, on a machine that may do other work besides, and wall time then tells who was unlucky.
    """
    turns: list[list[_Turn]] = [[] for _ in engines]
    with _ONE_AT_A_TIME:
        for engine in engines:
            for _ in range(2):
                _run(engine, inputs)
        began = time.perf_counter()
        for number in range(rounds):
            if number >= 5 and time.perf_counter() - began > LIMIT_S:
                break
            for place in range(len(engines)):
                which = (place + number) % len(
                    engines
                )  # nobody always runs on what another left in the caches
                turns[which].append(_run(engines[which], inputs))
    here = all(max(turn.here_ms / turn.wall_ms for turn in each) > HERE for each in turns)
    return [round(min(turn.here_ms if here else turn.wall_ms for turn in each), 3) for each in turns]


@dataclass(frozen=True)
class _Turn:
    wall_ms: float
    here_ms: float
    """Processor time of the calling thread."""


def _run(engine: Engine, inputs: Sequence[Arrays]) -> _Turn:
    wall_s, here_s = time.perf_counter(), time.thread_time()
    for sample in inputs:
        engine.run(sample)
    return _Turn((time.perf_counter() - wall_s) * 1e3, (time.thread_time() - here_s) * 1e3)
