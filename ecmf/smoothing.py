"""Smoothing in time: an exponential filter that works at any message rate, and a hysteresis on the label."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class SmoothingOptions:
    tau_s: float = 0.25
    """Time constant: after a step, 63 % of the way in ``tau_s`` seconds."""
    margin: float = 0.10
    """A label gives way only to one whose smoothed probability is this much higher."""


class Smoother:
    """State of one person. First-order low-pass ``y += (1 - exp(-dt / tau)) (x - y)`` with the true time step."""

    def __init__(self, labels: Sequence[str], options: SmoothingOptions | None = None) -> None:
        self._labels = tuple(labels)
        self._options = options or SmoothingOptions()
        self._state: NDArray[np.float64] | None = None
        self._t_ns = 0
        self._label: int | None = None

    def update(self, probs: NDArray[np.floating], t_ns: int) -> tuple[NDArray[np.float32], str]:
        """Take ``float[labels]`` valid at ``t_ns``; return the smoothed distribution and the held label.

        A time that lies before the last one counts as no time passed.
        """
        target = np.asarray(probs, np.float64)
        if self._state is None:
            self._state = target.copy()
        else:
            elapsed_s = max(0, t_ns - self._t_ns) * 1e-9
            self._state += (1.0 - math.exp(-elapsed_s / self._options.tau_s)) * (target - self._state)
        self._t_ns = max(t_ns, self._t_ns)
        self._state /= self._state.sum()
        best = int(self._state.argmax())
        if self._label is None or self._state[best] - self._state[self._label] >= self._options.margin:
            self._label = best
        return self._state.astype(np.float32), self._labels[self._label]

    def reset(self) -> None:
        """Forget the past: the next update starts anew."""
        self._state = None
        self._label = None
        self._t_ns = 0
