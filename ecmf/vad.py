"""Where somebody speaks: Silero's voice activity network, run statefully over a stream."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ecmf.errors import UsageError, need

SAMPLE_RATE = 16000
BLOCK = 512
"""Samples judged at a time: 32 ms."""
GAP_NS = 60_000_000
"""Sound stamped further than this from the end of the sound before it follows a gap; nearer is jitter."""

_CONTEXT = 64
"""Samples of the block before, which the network sees again."""


class SpeechDetector:
    """Speech probability of every 32 ms of one stream. Not thread-safe."""

    def __init__(self, path: Path | None = None, *, offline: bool = False) -> None:
        """``path``: Silero's ONNX file as faster-whisper packs it (v6); fetched when None."""
        if path is None:
            from ecmf.weights import fetch

            path = fetch("silero-vad", offline=offline)
        onnxruntime = need("onnxruntime", "live")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self.reset()

    def reset(self) -> None:
        """Forget the stream: the next sample follows on silence."""
        self._h = np.zeros((1, 1, 128), np.float32)
        self._c = np.zeros((1, 1, 128), np.float32)
        self._context = np.zeros(_CONTEXT, np.float32)
        self._rest = np.zeros(0, np.float32)

    @property
    def waiting(self) -> int:
        """Samples, fewer than a block, that were given but not judged yet."""
        return len(self._rest)

    def process(self, audio: NDArray[np.float32]) -> NDArray[np.float32]:
        """Go on with ``audio``, float32[n], 16 kHz mono in [-1, 1], any n.

        Returns float32[k], a probability for each block completed by it; a rest is kept for the next call, so that
        the result does not depend on how a stream is cut. Raises UsageError for audio of another shape or type.
        """
        if audio.ndim != 1 or audio.dtype != np.float32:
            raise UsageError(
                f"audio is {audio.dtype}{list(audio.shape)}; expected float32[n], mono, {SAMPLE_RATE} Hz"
            )
        stream = np.concatenate([self._rest, audio])
        count = len(stream) // BLOCK
        self._rest = stream[count * BLOCK :]
        if not count:
            return np.zeros(0, np.float32)
        blocks = stream[: count * BLOCK].reshape(count, BLOCK)
        contexts = np.concatenate([self._context[None], blocks[:-1, -_CONTEXT:]])
        self._context = blocks[-1, -_CONTEXT:]
        inputs = {"input": np.concatenate([contexts, blocks], axis=1), "h": self._h, "c": self._c}
        probabilities, self._h, self._c = self._session.run(None, inputs)
        return np.asarray(probabilities, np.float32).reshape(count)
