"""Words in the running pipeline: committed how soon, enriched how soon, and what speech costs the face.

Plays one file as a camera and a microphone would: the demo face all the time, and a reading after a stretch of silence.
Everything is on. A subscriber in another process reads the clock: from the true end of each word (forced alignment) to
the message that commits it, from an utterance's last words to its cues, and from each picture to its estimate, before
and while somebody speaks.

    python bench/live_words.py --runs 5 --json bench/results/live_words.json
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench import results
from bench.live import Usage, endpoint, messages, started
from bench.recordings import Audio, Spoken, readings, timed
from bench.word_errors import matches, normal
from ecmf.decoder import Decoder
from ecmf.errors import EcmfError, SourceError, UsageError, need
from ecmf.speech import SpeechEncoder
from ecmf.vad import SAMPLE_RATE
from ecmf.weights import fetch
from realtime.message import Estimate, Transcript

SILENCE_S = 20.0
WARM_UP_S = 4.0
"""Of the file; left out of the figures."""
RATE = 24


@dataclass
class Seen:
    """What a subscriber received of one run."""

    words: list[tuple[str, int]] = field(default_factory=list)
    """Committed words, normalised, and when they were received."""
    origin_ns: int | None = None
    """Monotonic time of the file's beginning."""
    ended: dict[int, int] = field(default_factory=dict)
    """When the end of each utterance was received."""
    enriched: dict[int, int] = field(default_factory=dict)
    """When its cues were."""
    faces: list[tuple[float, float]] = field(default_factory=list)
    """Media time of a picture in seconds, and milliseconds from its capture to its estimate."""
    usage: list[Usage] = field(default_factory=list)


def compose(path: Path, speech: Audio) -> None:
    """Write the demo face, over and over, with silence and then ``speech``, float32[n] at 16 kHz, as its sound."""
    av: Any = need("av", "live")
    sound = np.concatenate([np.zeros(round(SILENCE_S * SAMPLE_RATE), np.float32), speech])
    with av.open(str(fetch("demo-face"))) as source:
        pictures = [frame.to_ndarray(format="rgb24") for frame in source.decode(video=0)]
    with av.open(str(path), "w") as target:
        video = target.add_stream("mpeg4", rate=RATE)
        video.height, video.width = pictures[0].shape[:2]
        video.pix_fmt, video.bit_rate = "yuv420p", 4_000_000
        audio = target.add_stream("pcm_s16le", rate=SAMPLE_RATE, layout="mono")
        for number in range(round(len(sound) / SAMPLE_RATE * RATE)):
            picture = av.VideoFrame.from_ndarray(pictures[number % len(pictures)], format="rgb24")
            picture.pts, picture.time_base = number, Fraction(1, RATE)
            target.mux(video.encode(picture))
        samples = (np.clip(sound, -1, 1) * 32767).astype(np.int16)
        for first in range(0, len(samples), SAMPLE_RATE):
            piece = av.AudioFrame.from_ndarray(samples[None, first : first + SAMPLE_RATE], "s16", "mono")
            piece.sample_rate, piece.pts, piece.time_base = SAMPLE_RATE, first, Fraction(1, SAMPLE_RATE)
            target.mux(audio.encode(piece))
        target.mux(video.encode(None))
        target.mux(audio.encode(None))


def follow(media: Path, extra: Sequence[str]) -> Seen:
    """Run ``ecmf-live`` on ``media`` to its end. Raises SourceError when it says nothing."""
    seen = Seen()
    arguments = ["--source", str(media), "--transcript", *extra]
    with endpoint() as address, started("realtime.cli", [*arguments, "--bind", address]) as live:
        try:
            for received_ns, message in messages(live, address):
                if not seen.usage or received_ns - seen.usage[-1].t_ns > 1e9:
                    seen.usage.append(Usage.of(live.process.pid))
                if isinstance(message, Transcript):
                    _read(message, received_ns, seen)
                elif isinstance(message, Estimate) and message.trigger == "face":
                    delay_ms = (received_ns - message.t_capture_ns) * 1e-6
                    if message.t_media_s is not None:
                        seen.faces.append((message.t_media_s, delay_ms))
        except SourceError:
            if live.process.poll() != 0:  # otherwise the file is over
                raise
    return seen


def _read(message: Transcript, received_ns: int, seen: Seen) -> None:
    if message.t_media_s is not None:
        seen.origin_ns = message.t_capture_ns - round(message.t_media_s * 1e9)
    for word in message.words:
        seen.words += [(bare, received_ns) for bare in normal(word.text)]
    if message.final and message.cues is None:
        seen.ended.setdefault(message.utterance, received_ns)
    if message.cues is not None:
        seen.enriched.setdefault(message.utterance, received_ns)


def figures(runs: Sequence[Seen], truth: Sequence[Spoken]) -> dict[str, Any]:
    """Delays of all ``runs`` together in milliseconds; of words, those that are right.

    Raises SourceError when a run published no word.
    """
    errors = 0
    committed: list[float] = []
    enriched: list[float] = []
    for seen in runs:
        if seen.origin_ns is None:
            raise SourceError("no word was published; is transcription on?")
        found, wrong = matches([s.word for s in truth], [word for word, _ in seen.words])
        errors += sum(wrong)
        committed += [
            (seen.words[k][1] - seen.origin_ns) * 1e-6 - (SILENCE_S + s.end_s) * 1e3
            for s, k in zip(truth, found, strict=True)
            if k is not None
        ]
        enriched += [(at - seen.ended[n]) * 1e-6 for n, at in seen.enriched.items() if n in seen.ended]
    begins, ends = SILENCE_S + truth[0].start_s, SILENCE_S + truth[-1].end_s
    quiet = [[ms for at, ms in seen.faces if WARM_UP_S <= at < begins] for seen in runs]
    spoken = [[ms for at, ms in seen.faces if begins <= at <= ends] for seen in runs]
    span_s = sum(seen.usage[-1].t_ns - seen.usage[0].t_ns for seen in runs) * 1e-9
    own = sum(seen.usage[-1].cpu_s - seen.usage[0].cpu_s for seen in runs)
    machine = sum(seen.usage[-1].machine_s - seen.usage[0].machine_s for seen in runs)
    ratio = _p95_ratio(np.concatenate(spoken), np.concatenate(quiet))
    return {
        "runs": len(runs),
        "words": len(truth) * len(runs),
        "wrong": errors,
        "committed_ms": _percentiles(committed),
        "utterances": sum(len(seen.ended) for seen in runs),
        "enriched": len(enriched),
        "cues_after_end_ms": _percentiles(enriched),
        "face_silent_ms": _percentiles(np.concatenate(quiet)),
        "face_speech_ms": _percentiles(np.concatenate(spoken)),
        "face_p95_ratio": ratio,
        "face_p95_ratio_of_runs": [
            _p95_ratio(np.array(s), np.array(q)) for s, q in zip(spoken, quiet, strict=True)
        ],
        "cores": round(own / span_s, 2),
        "other_cores": round((machine - own) / span_s, 2),
    }


def _p95_ratio(spoken: NDArray[np.float64], quiet: NDArray[np.float64]) -> float | None:
    if not len(spoken) or not len(quiet):
        return None
    return round(float(np.percentile(spoken, 95) / np.percentile(quiet, 95)), 3)


def _percentiles(values: Sequence[float] | NDArray[np.float64]) -> dict[str, float]:
    if not len(values):
        return {"n": 0}
    p50, p95, p99 = np.percentile(values, [50, 95, 99])
    return {
        "n": len(values),
        "p50": round(float(p50), 1),
        "p95": round(float(p95), 1),
        "p99": round(float(p99), 1),
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").splitlines()[0], epilog="What follows -- goes to ecmf-live."
    )
    parser.add_argument(
        "--media", type=Path, help="keep the composed file here, and take it when it is there"
    )
    parser.add_argument(
        "--runs", type=int, default=1, metavar="N", help="play it N times, for steadier figures (1)"
    )
    parser.add_argument("--compose-only", action="store_true", help="make the file and stop")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write every figure to OUT")
    parser.add_argument("live", nargs="*", help="further options of ecmf-live, after --")
    options = parser.parse_args()
    try:
        if options.compose_only and options.media is None:
            raise UsageError("--compose-only needs --media FILE, to keep what it makes")
        if options.runs < 1:
            raise UsageError(f"--runs is {options.runs}; it must be 1 or more")
        reading = readings()[0]
        with tempfile.TemporaryDirectory() as folder:
            media = options.media or Path(folder) / "words.mkv"
            if not media.is_file():
                compose(media, reading.audio)
            if options.compose_only:
                return 0
            load = os.getloadavg()[0]
            runs = [follow(media, options.live) for _ in range(options.runs)]
        truth = timed(reading, SpeechEncoder("base"), Decoder("base", language="en"))
        found = {"load_before": round(load, 2), **figures(runs, truth)}
    except EcmfError as error:
        print(f"live_words: {error}", file=sys.stderr)
        return error.exit_code
    for name, value in found.items():
        print(f"{name:20} {value}")
    if options.json:
        results.save(
            options.json, results.record("live_words", {"live": options.live, "runs": options.runs}, found)
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
