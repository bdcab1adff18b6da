"""Runs WhisperLiveKit on recordings in real time, for `bench/transcription.py --peer PYTHON`.

Started by the Python of an environment of the peer's own, where this project is not installed: it imports nothing of
it. In: a CTranslate2 model folder and files of float32 samples, 16 kHz mono. Out: one JSON line an event on stdout.
The peer's own pipeline runs, voice activity included, with its defaults but for the policy (LocalAgreement, the one
that takes CTranslate2 weights), the model and the language.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

RATE = 16000
CHUNK_S = 0.25
"""As our own pipeline is fed."""
LOOK_S = 0.01
"""Between two looks at what was committed."""


def say(**event: Any) -> None:
    print(json.dumps(event), flush=True)


def words_of(tokens: Any) -> list[tuple[str, float, float]]:
    return [(token.text, float(token.start), float(token.end)) for token in tokens]


async def listen(engine: Any, samples: np.ndarray, processor_class: Any) -> None:
    """Play ``samples`` in real time and say what is committed and what is guessed, with the time since the start."""
    processor = processor_class(transcription_engine=engine)
    results = await processor.create_tasks()
    told, guessed = 0, None
    began, cpu = time.perf_counter(), time.process_time()

    def look() -> None:
        nonlocal told, guessed
        tokens = list(processor.state.tokens)
        if len(tokens) > told:
            say(at=time.perf_counter() - began, kind="settled", words=words_of(tokens[told:]))
            told = len(tokens)
        guess = words_of(processor.transcription.transcript_buffer.buffer)
        if guess != guessed:
            guessed = guess
            say(at=time.perf_counter() - began, kind="partial", words=guess)

    async def drain() -> None:
        async for _ in results:
            look()

    async def watch() -> None:
        while True:
            look()
            await asyncio.sleep(LOOK_S)

    draining, watching = asyncio.create_task(drain()), asyncio.create_task(watch())
    whole = (np.clip(samples, -1, 1) * 32767).astype(np.int16)
    size = round(CHUNK_S * RATE)
    for first in range(0, len(whole), size):
        piece = whole[first : first + size]
        await asyncio.sleep(max(0.0, began + (first + len(piece)) / RATE - time.perf_counter()))
        await processor.process_audio(piece.tobytes())
    await processor.process_audio(b"")
    # It may wait for more sound for ever; what it has not said a minute after the end, it does not say.
    await asyncio.wait([draining], timeout=60)
    look()
    watching.cancel()
    draining.cancel()
    await processor.cleanup()
    say(kind="end", cpu_s=time.process_time() - cpu)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", type=Path, help="folder of a CTranslate2 Whisper model")
    parser.add_argument("samples", type=Path, nargs="+", help="float32 samples as numpy saves them")
    options = parser.parse_args()
    import torch
    from whisperlivekit.audio_processor import AudioProcessor
    from whisperlivekit.core import TranscriptionEngine

    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    engine = TranscriptionEngine(
        backend_policy="localagreement",
        backend="faster-whisper",
        model_path=str(options.model),
        lan="en",
        pcm_input=True,
    )
    engine.asr.transcribe(np.zeros(RATE, np.float32))
    say(kind="peer", name="whisperlivekit", version=metadata.version("whisperlivekit"))
    for path in options.samples:
        asyncio.run(listen(engine, np.load(path), AudioProcessor))
    return 0


if __name__ == "__main__":
    sys.exit(main())
