"""Smoothing in time: the mean of the recent past, which keeps its calibration, and a label that doubt does not move.

The distribution is an exponential mean. The label is that of a forward filter over the hidden emotion with sticky
transitions (a hidden Markov model, Rabiner 1989, section III): clear evidence turns it within a frame or two, and
doubtful evidence only when it lasts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

DWELL = 2.0
"""How long an expressed emotion is taken to last, in time constants."""
HYSTERESIS = 0.03
"""Confidence counts as enough from this far above a threshold, and as too little from this far below."""


@dataclass(frozen=True)
class SmoothingOptions:
    tau_s: float = 0.25
    """Time constant: after a step, the mean is 63 % of the way in ``tau_s`` seconds; what is seen within it counts as
    evidence once, since neighbouring frames show nearly the same."""
    margin: float = 0.7
    """A label gives way only to one that the filter believes in this much more."""


class Smoother:
    """State of one person; works at any message rate."""

    def __init__(self, labels: Sequence[str], options: SmoothingOptions | None = None) -> None:
        self._labels = tuple(labels)
        self._options = options or SmoothingOptions()
        self._even = 1 / len(self._labels)
        self.reset()

    def reset(self) -> None:
        """Forget the past: the next update starts anew."""
        self._mean: list[float] | None = None
        self._belief = [self._even] * len(self._labels)
        self._label: int | None = None
        self._t_ns = 0
        self._sure = False
        self.certainty = 0.0
        """Mean confidence of the recent estimates: stays high while one emotion turns into another."""

    def update(self, probs: NDArray[np.floating], t_ns: int) -> tuple[NDArray[np.float32], str]:
        """Take ``float[labels]`` valid at ``t_ns``; return the mean distribution and the label.

        A time that lies before the last one counts as no time passed.
        """
        # Plain floats: for a handful of labels they take a third of the time that as many numpy calls do.
        target: list[float] = probs.tolist()
        clearest = max(target)
        tau_s = self._options.tau_s
        elapsed_s = max(0, t_ns - self._t_ns) * 1e-9
        step = 1.0 - math.exp(-elapsed_s / tau_s)
        if self._mean is None:
            self._mean, self.certainty, elapsed_s = target, clearest, tau_s
        mean = [before + step * (now - before) for before, now in zip(self._mean, target, strict=True)]
        total = sum(mean)
        self._mean = [value / total for value in mean]
        self.certainty += step * (clearest - self.certainty)
        self._t_ns = max(t_ns, self._t_ns)
        stay = math.exp(-elapsed_s / (DWELL * tau_s))
        even = (1.0 - stay) * self._even
        counts = min(1.0, elapsed_s / tau_s)
        # the estimates with the prior in them: so what leads in the mean for long also becomes the label
        believed = [
            (stay * before + even) * max(now, 1e-6) ** counts
            for before, now in zip(self._belief, target, strict=True)
        ]
        total = sum(believed)
        self._belief = [value / total for value in believed]
        if elapsed_s > DWELL * tau_s:
            self._label = None  # after such a gap nothing is held on to
        best = self._belief.index(max(self._belief))
        if self._label is None or self._belief[best] - self._belief[self._label] >= self._options.margin:
            self._label = best
        return np.array(self._mean, np.float32), self._labels[self._label]

    def sure(self, threshold: float) -> bool:
        """Whether the recent estimates are confident enough to be given a label; a threshold of 0 always is."""
        self._sure = self.certainty >= threshold + (-HYSTERESIS if self._sure else HYSTERESIS) * (
            threshold > 0
        )
        return self._sure
