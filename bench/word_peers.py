"""Other ways to the same words with the same weights: faster-whisper on whole files, and a peer's live pipeline."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bench.listening import Heard
from bench.recordings import Recording, Spoken
from bench.word_errors import matches, normal
from bench.word_scores import Score, by_part, score
from ecmf.decoder import model_folder
from ecmf.errors import EcmfError, need
from ecmf.transcript import Partial, Settled, TranscriptEvent, Word
from ecmf.vad import SAMPLE_RATE

PEER = Path(__file__).parent / "peers" / "whisperlivekit_words.py"


class PeerError(EcmfError):
    """The peer does not run."""


def whole_file(
    model: str, recordings: Sequence[Recording], speech: Sequence[float], beam: int
) -> list[Score]:
    """faster-whisper on whole files, one thread: what streaming is measured against."""
    library = need("faster_whisper", "live")
    whisper = library.WhisperModel(str(model_folder(model)), device="cpu", compute_type="int8", cpu_threads=1)
    scores = []
    for recording, speech_s in zip(recordings, speech, strict=True):
        cpu = time.process_time()
        words: list[str] = []
        for file in recording.files:
            segments, _ = whisper.transcribe(
                file, language="en", beam_size=beam, vad_filter=True, condition_on_previous_text=False
            )
            words += normal(" ".join(segment.text for segment in segments))
        cpu = time.process_time() - cpu
        _, errors = matches(recording.words, words)
        seconds = len(recording.audio) / SAMPLE_RATE
        system = f"whole file, beam {beam}"
        scores.append(
            Score(
                system,
                model,
                recording.name,
                "",
                seconds,
                speech_s,
                by_part(recording, errors),
                (),
                (),
                cpu,
            )
        )
    return scores


def peer(
    python: Path,
    model: str,
    recordings: Sequence[Recording],
    truths: Sequence[Sequence[Spoken]],
    speech: Sequence[float],
) -> list[Score]:
    """WhisperLiveKit in the environment of ``python``, playing in real time, one thread.

    Raises PeerError when it cannot be run there.
    """
    with tempfile.TemporaryDirectory() as folder:
        files = []
        for number, recording in enumerate(recordings):
            files.append(Path(folder) / f"{number}.npy")
            np.save(files[-1], recording.audio)
        command = [str(python), str(PEER), str(model_folder(model)), *map(str, files)]
        env = os.environ | {"OMP_NUM_THREADS": "1"}
        try:
            run = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
        except OSError as error:
            raise PeerError(f"--peer {python} cannot be run: {error.strerror}") from None
    if run.returncode:
        last = (run.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise PeerError(f"--peer {python}: {last}; install whisperlivekit, faster-whisper and torch there")
    told = [json.loads(line) for line in run.stdout.splitlines() if line.startswith('{"')]
    name = next(f"{t['name']} {t['version']}" for t in told if t["kind"] == "peer")
    scores = []
    rest = iter(told)
    for recording, truth, speech_s in zip(recordings, truths, speech, strict=True):
        events: list[tuple[float, TranscriptEvent]] = []
        for entry in rest:
            if entry["kind"] == "end":
                heard = Heard(events, entry["cpu_s"])
                scores.append(score(name, model, recording, truth, heard, "paced", speech_s))
                break
            if entry["kind"] in ("settled", "partial"):
                events.append((entry["at"], _event(entry["kind"], entry["words"])))
    return scores


def _event(kind: str, entries: Sequence[tuple[str, float, float]]) -> TranscriptEvent:
    words = tuple(Word(text.strip(), round(a * 1e9), round(b * 1e9), 1.0) for text, a, b in entries)
    text = "".join(entry[0] for entry in entries)
    return Settled(1, text, words, 0, 0) if kind == "settled" else Partial(1, text, words, 0, 0)
