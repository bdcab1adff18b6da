"""Which sizes a compiler with static profiles prepares for: from the spec, the manifest and the kind of model."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

from ecmf.bundle import Bundle
from ecmf.engines.base import EngineSpec
from ecmf.errors import BundleError

Shape = tuple[int, ...]
Profile = Mapping[str, tuple[Shape, Shape, Shape]]
"""Input -> smallest, usual and largest shape; all the same in a static profile."""

USUAL = {
    "batch": (1, 1, 1),
    "batch_size": (1, 1, 1),
    "height": (32, 384, 640),
    "width": (32, 640, 640),
    "time": (2, 40, 400),
}
"""Smallest, usual and largest value of a dynamic size that the manifest does not limit. A picture's longer side is
640 at most: what the face finder shrinks it to."""


def profiles(bundle: Bundle, spec: EngineSpec) -> list[Profile]:
    """The profiles to build, one for every combination of the spec's ``sizes``.

    Raises BundleError for a dynamic size of which nothing is known.
    """
    sizes = dict(spec.sizes)
    if bundle.manifest.extra.get("architecture") == "whisper-encoder":
        sizes.setdefault("frames", speech_frames())
    free = {d for port in bundle.manifest.inputs for d in port.shape if isinstance(d, str)}
    listed = {name: values for name, values in sizes.items() if name in free}
    result: list[Profile] = []
    for chosen in itertools.product(*listed.values()):
        known = {name: (value,) * 3 for name, value in zip(listed, chosen, strict=True)}
        profile = {}
        for port in bundle.manifest.inputs:
            if port.name in spec.shapes:
                profile[port.name] = (spec.shapes[port.name],) * 3
                continue
            rows = [
                (d, d, d) if isinstance(d, int) else known.get(d) or limits(bundle, d) for d in port.shape
            ]
            low, usual, high = (tuple(row[k] for row in rows) for k in range(3))
            profile[port.name] = (low, usual, high)
        result.append(profile)
    return result


def speech_frames() -> tuple[int, ...]:
    """Log-mel frames of the lengths that the speech encoder rounds audio up to."""
    from ecmf.speech import BUCKETS_S

    return tuple(100 * seconds for seconds in BUCKETS_S)


def limits(bundle: Bundle, size: str) -> tuple[int, int, int]:
    """Smallest, usual and largest value of a dynamic size."""
    if size in USUAL:
        return USUAL[size]
    how = bundle.manifest.preprocessing
    for key in (f"max_{size}", "max_tokens" if size == "sequence" else ""):
        if key in how:
            return 1, min(24, int(how[key])), int(how[key])
    if size == "sequence":
        return 1, 24, 96
    raise BundleError(
        f"{bundle.id} has a dynamic size {size!r} without limits; state preprocessing.max_{size} in its manifest, "
        "or name its values when building"
    )


def is_static(profile: Profile) -> bool:
    """Whether every shape is fixed."""
    return all(low == high for low, _, high in profile.values())


def fitting(wanted: Mapping[str, Shape], choices: list[Profile]) -> int | None:
    """Index of the first profile that takes these input shapes, static ones first; None when none does."""

    def fits(profile: Profile) -> bool:
        return all(
            len(shape) == len(profile[name][0])
            and all(
                low <= n <= high
                for low, n, high in zip(profile[name][0], shape, profile[name][2], strict=True)
            )
            for name, shape in wanted.items()
        )

    able = [index for index, profile in enumerate(choices) if fits(profile)]
    return min(able, key=lambda index: not is_static(choices[index]), default=None)
