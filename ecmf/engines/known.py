"""Bundles by name, and the shapes in which the live branches load their engines."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ecmf.bundle import SHIPPED, Bundle, load_bundle
from ecmf.errors import UsageError
from ecmf.registry import registry
from ecmf.weights import bundle_dir, imported

VOICE_FRAMES_PER_SECOND = 12.5
"""Frames of the voice network a second (ecmf.branches.voice: 50 states a second, four averaged)."""


def bundles(names: Sequence[str], *, offline: bool) -> list[Bundle]:
    """Bundles by name or folder; without any, the shipped ones and the imported ones that are already here.

    Raises UsageError for an unknown name.
    """
    shipped = sorted(path.parent.name for path in SHIPPED.glob("*/manifest.json"))
    found = []
    for name in names or [*shipped, *(n for n in registry().bundles if bundle_dir(n).exists())]:
        if name in shipped:
            found.append(load_bundle(SHIPPED / name))
        elif (Path(name) / "manifest.json").is_file():
            found.append(load_bundle(Path(name)))
        elif name in registry().bundles:
            found.append(imported(name, offline=offline))
        else:
            known = ", ".join([*shipped, *registry().bundles])
            raise UsageError(f"unknown bundle {name!r}; name a bundle's folder or one of {known}")
    return found


def live_shapes(bundle: Bundle) -> dict[str, tuple[int, ...]]:
    """The shapes that the live branches ask for, so that an engine built here is the one they load."""
    sizes = {"batch": 1}
    if bundle.manifest.name == "voice":
        sizes["time"] = round(float(bundle.manifest.preprocessing["window_s"]) * VOICE_FRAMES_PER_SECOND)
    elif bundle.manifest.name not in ("face", "face-landmarks"):
        return {}
    return {
        port.name: tuple(sizes[size] if isinstance(size, str) else size for size in port.shape)
        for port in bundle.manifest.inputs
    }
