"""Whisper's log-mel spectrogram in numpy."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

SAMPLE_RATE = 16000
HOP = 160
"""Samples between frames: 100 frames a second."""

_WINDOW = 400
_TOP_MEL = 45.245640471924965  # 8 kHz on Slaney's scale


@cache
def mel_filters(mels: int) -> NDArray[np.float32]:
    """Slaney's triangular filters of equal area, float32[mels, 201] (Auditory Toolbox, 1998)."""
    centres = np.linspace(0.0, _TOP_MEL, mels + 2)
    # Linear below 1 kHz (15 mel), logarithmic above.
    hertz = np.where(centres < 15, centres * 200 / 3, 1000 * np.exp((centres - 15) * np.log(6.4) / 27))
    bins = np.linspace(0, SAMPLE_RATE / 2, _WINDOW // 2 + 1)
    rising = (bins - hertz[:-2, None]) / np.diff(hertz)[:-1, None]
    falling = (hertz[2:, None] - bins) / np.diff(hertz)[1:, None]
    triangles = np.clip(np.minimum(rising, falling), 0, None)
    filters: NDArray[np.float32] = (triangles * 2 / (hertz[2:] - hertz[:-2])[:, None]).astype(np.float32)
    return filters


@cache
def _hann() -> NDArray[np.float32]:
    return np.hanning(_WINDOW + 1)[:-1].astype(np.float32)


def log_mel(audio: NDArray[np.float32], mels: int = 80) -> NDArray[np.float32]:
    """Log-mel of 16 kHz mono ``audio`` float32[n] in [-1, 1]: float32[mels, n // 160], roughly in [-1, 2].

    Equal to faster-whisper's ``FeatureExtractor`` without its extra padding: reflected edges, floor at 8
    decades below the loudest value, then (x + 4) / 4 (Radford et al. 2022, section 2.2).
    """
    padded = np.pad(np.asarray(audio, np.float32), _WINDOW // 2, mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(padded, _WINDOW)[::HOP][: len(audio) // HOP]
    power = np.abs(np.fft.rfft(frames * _hann(), axis=-1)) ** 2
    spectrum = np.log10(np.maximum(mel_filters(mels) @ power.T.astype(np.float32), 1e-10))
    return ((np.maximum(spectrum, spectrum.max() - 8) + 4) / 4).astype(np.float32)
