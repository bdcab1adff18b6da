"""The engine contract: what a backend must offer, and what everyone else may rely on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

from numpy.typing import NDArray

from ecmf.bundle import Bundle
from ecmf.errors import EngineError

Precision = Literal["fp32", "fp16", "bf16", "int8"]
Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class EngineSpec:
    """What to build: part of the cache key."""

    precision: Precision = "fp32"
    threads: int = 1
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """A static shape per input; an input not named keeps the manifest's dynamic sizes."""
    sizes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Values of a dynamic size (batch, frames) that a backend with static profiles prepares for, one profile each."""
    target: str | None = None
    """Compute capability to build for, e.g. "sm_86"; None: the device that is here."""


class Unsuitable(EngineError):
    """A backend that does not take this kind of bundle, precision or target; nothing is broken."""


@dataclass(frozen=True)
class Refusal:
    """Why backends that come before the one that runs do not."""

    backends: tuple[str, ...]
    """All of which this holds."""
    reason: str
    """For people, without the names."""
    slower: bool = False
    """They could run, but another is faster: a choice, where all else is a lack or a fault."""


class Engine(Protocol):
    """A loaded model. Not thread-safe: one thread uses it at a time."""

    backend: str
    precision: Precision
    fallback: str | None
    """Why it runs in place of a backend that comes first, or in another precision than asked for; None: it is first."""
    refusals: tuple[Refusal, ...]
    """The same in parts; empty: it is first."""

    def run(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """Run once; keys are the manifest's port names. Raises EngineError when the backend fails."""
        ...


@runtime_checkable
class Returning(Engine, Protocol):
    """An engine that would keep for good what its largest run took."""

    def run_once(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """As ``run``, for inputs that are rarely so large: gives most of the memory back afterwards."""
        ...


@runtime_checkable
class Shareable(Engine, Protocol):
    """An engine whose loaded model may serve others, too."""

    concurrent: bool
    """Whether its twins run at the same time; they wait for one another otherwise."""

    @property
    def stuck(self) -> bool:
        """Whether one of those who share it has been running for so long that others would wait for it in vain."""
        ...

    def twin(self) -> Engine:
        """The same model with buffers of its own, for another thread."""
        ...


class Backend(Protocol):
    """A compiler and runtime, e.g. OpenVINO."""

    name: str
    revision: int
    """Of what ``build`` asks the compiler for. Raise it with every change there, so that engines built before are not
    taken for new ones."""

    def probe(self) -> tuple[bool, str]:
        """Whether it can run here, and why not. Never raises."""
        ...

    def identity(self) -> str:
        """Name, version and device, as "NAME VERSION on DEVICE", for the cache key."""
        ...

    def build(self, bundle: Bundle, spec: EngineSpec, target: Path) -> None:
        """Compile into the file ``target``. Raises EngineError with the compiler's own words."""
        ...

    def load(self, path: Path, bundle: Bundle, spec: EngineSpec) -> Engine:
        """Load a built file. Raises EngineError when it is broken or of another version or device."""
        ...
