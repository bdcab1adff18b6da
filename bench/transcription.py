"""Words: how right, how soon and at what cost, beside faster-whisper on whole files.

Three paces. `unpaced` takes no account of computing: latency is the algorithm's own. `simulated` is deterministic but
for the measured processor time of each pass, which is laid on a clock that runs with the audio, as on an otherwise idle
core. `--paced` really plays the audio and reads the wall clock.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from bench.machine import describe, versions
from bench.recordings import Audio, Recording, Spoken, mixed, ravdess, readings, timed, wordless
from bench.word_errors import ErrorRate, error_rate, matches, normal
from ecmf.decoder import Decoder, model_folder
from ecmf.errors import EcmfError, need
from ecmf.speech import SpeechEncoder
from ecmf.transcribe import Partial, Settled, Skipped, Transcriber, TranscriberSettings, TranscriptEvent
from ecmf.vad import BLOCK, SAMPLE_RATE, SpeechDetector

Pace = Literal["unpaced", "simulated", "paced"]
ASK_S = 0.25
"""How often the live pipeline asks for a window."""


@dataclass
class Heard:
    """What came out of one run, with the time, in seconds of audio, at which it did."""

    events: list[tuple[float, TranscriptEvent]]
    cpu_s: float
    passes: int


@dataclass(frozen=True)
class Row:
    model: str
    recording: str
    pace: str
    seconds: float
    speech_s: float
    wer: ErrorRate
    partial_ms: tuple[float, float] | None
    """Word end to first correct partial, p50 and p95."""
    settled_ms: tuple[float, float] | None
    """Word end to settled, p50 and p95, of the words that are right."""
    rtf: float
    core_s_per_minute: float
    """Processor time for a minute of speech: voice activity, encoder and decoder."""
    skipped_s: float


def listen(audio: Audio, encoder: SpeechEncoder, transcriber: Transcriber, pace: Pace) -> Heard:
    """Feed ``audio`` as the live pipeline does: all that has arrived is pushed, then what is due is transcribed."""
    events: list[tuple[float, TranscriptEvent]] = []
    began, began_cpu = time.perf_counter(), time.process_time()
    passes, pushed, clock = 0, 0, 0.0
    while pushed < len(audio):
        arrival = min(pushed / SAMPLE_RATE + ASK_S, len(audio) / SAMPLE_RATE)
        if pace == "paced":
            time.sleep(max(0.0, began + arrival - time.perf_counter()))
            clock = time.perf_counter() - began
        else:
            clock = max(clock, arrival)
        due = min(int(clock * SAMPLE_RATE), len(audio)) if pace != "unpaced" else round(arrival * SAMPLE_RATE)
        cpu = time.process_time()
        fresh = transcriber.push(audio[pushed:due], round(pushed * 1e9 / SAMPLE_RATE))
        last, pushed = pushed, due
        fresh += transcriber.flush() if pushed == len(audio) else []
        while True:
            if pace == "paced":
                clock = time.perf_counter() - began
            elif pace == "simulated":
                now = time.process_time()
                clock, cpu = clock + now - cpu, now
            events += [(clock, event) for event in fresh]
            window = transcriber.window()
            if window is None:
                break
            passes += 1
            fresh = transcriber.step(window, encoder.encode(window.audio).last_padded)
        if pushed == last:
            raise RuntimeError("no audio arrived")
    return Heard(events, time.process_time() - began_cpu, passes)


def written(heard: Heard) -> list[tuple[str, float]]:
    """The settled words, normalised, each with the time at which its last letter was settled."""
    texts: dict[int, list[tuple[str, float]]] = {}
    for at, event in heard.events:
        if isinstance(event, Settled):
            texts.setdefault(event.utterance, []).append((event.text, at))
    words: list[tuple[str, float]] = []
    for pieces in texts.values():
        letters = [(letter, at) for text, at in pieces for letter in text]
        for word in _split(letters):
            at = (
                max(at for letter, at in word if letter.isalnum())
                if any(c.isalnum() for c, _ in word)
                else 0.0
            )
            words += [(w, at) for w in normal("".join(letter for letter, _ in word))]
    return words


def _split(letters: Sequence[tuple[str, float]]) -> Iterator[list[tuple[str, float]]]:
    word: list[tuple[str, float]] = []
    for letter in letters:
        if letter[0].isspace():
            if word:
                yield word
            word = []
        else:
            word.append(letter)
    if word:
        yield word


def first_seen(heard: Heard, spoken: Spoken) -> float | None:
    """When ``spoken`` first stood in a partial or settled text, at about its own time."""
    middle = (spoken.start_s + spoken.end_s) / 2
    for at, event in heard.events:
        if isinstance(event, Partial | Settled):
            for word in event.words:
                near = abs((word.start_ns + word.end_ns) / 2e9 - middle) < 0.4
                if near and spoken.word in normal(word.text):
                    return at
    return None


def score(
    model: str, recording: Recording, truth: Sequence[Spoken], heard: Heard, pace: Pace, speech_s: float
) -> Row:
    words = written(heard)
    found, errors = matches([s.word for s in truth], [word for word, _ in words])
    settled = [words[k][1] - s.end_s for s, k in zip(truth, found, strict=True) if k is not None]
    seen = [
        at - s.end_s
        for s, k in zip(truth, found, strict=True)
        if k is not None and (at := first_seen(heard, s)) is not None
    ]
    seconds = len(recording.audio) / SAMPLE_RATE
    skipped = sum((e.end_ns - e.start_ns) / 1e9 for _, e in heard.events if isinstance(e, Skipped))
    return Row(
        model,
        recording.name,
        pace,
        round(seconds, 2),
        round(speech_s, 2),
        error_rate(_by_part(recording, errors)),
        _percentiles(seen),
        _percentiles(settled),
        heard.cpu_s / seconds,
        heard.cpu_s / speech_s * 60,
        skipped,
    )


def _by_part(recording: Recording, errors: Sequence[int]) -> list[tuple[int, int]]:
    counts, first = [], 0
    for _, text in recording.parts:
        size = len(normal(text))
        counts.append((size, sum(errors[first : first + size])))
        first += size
    return counts


def _percentiles(seconds: Sequence[float]) -> tuple[float, float] | None:
    if not seconds:
        return None
    p50, p95 = np.percentile(np.asarray(seconds) * 1e3, [50, 95])
    return round(float(p50), 1), round(float(p95), 1)


def whole_file(name: str, recordings: Sequence[Recording], speech: Sequence[float], beam: int) -> list[Row]:
    """faster-whisper with the same weights on whole files: what streaming is measured against."""
    library = need("faster_whisper", "live")
    model = library.WhisperModel(str(model_folder(name)), device="cpu", compute_type="int8", cpu_threads=1)
    rows = []
    for recording, speech_s in zip(recordings, speech, strict=True):
        cpu = time.process_time()
        words: list[str] = []
        for file in recording.files:
            segments, _ = model.transcribe(
                file, language="en", beam_size=beam, vad_filter=True, condition_on_previous_text=False
            )
            words += normal(" ".join(segment.text for segment in segments))
        cpu = time.process_time() - cpu
        _, errors = matches(recording.words, words)
        seconds = len(recording.audio) / SAMPLE_RATE
        rate = error_rate(_by_part(recording, errors))
        rows.append(
            Row(name, recording.name, f"whole file, beam {beam}", seconds, speech_s, rate, None, None,
                cpu / seconds, cpu / speech_s * 60, 0.0)
        )  # fmt: skip
    return rows


def table(rows: Sequence[Row]) -> Iterator[str]:
    yield (
        f"{'model':8} {'recording':24} {'pace':20} {'WER':>6} {'95 %':>13} {'words':>5} "
        f"{'partial p50/p95':>16} {'settled p50/p95':>16} {'RTF':>6} {'core s/min':>10} {'skipped':>7}"
    )
    for row in rows:
        partial, settled = (
            "" if pair is None else f"{pair[0]:.0f}/{pair[1]:.0f} ms"
            for pair in (row.partial_ms, row.settled_ms)
        )
        yield (
            f"{row.model:8} {row.recording:24} {row.pace:20} {row.wer.rate:6.1%} "
            f"{row.wer.low:6.1%}-{row.wer.high:6.1%} {row.wer.words:5} {partial:>16} {settled:>16} "
            f"{row.rtf:6.3f} {row.core_s_per_minute:10.1f} {row.skipped_s:6.1f}s"
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--models", nargs="+", default=["tiny.en", "base"], help="Whisper models (tiny.en base)"
    )
    parser.add_argument("--ravdess", type=Path, metavar="PARQUET", help="add sentences of this RAVDESS table")
    parser.add_argument("--clips", type=int, default=48, help="RAVDESS clips drawn (48)")
    parser.add_argument(
        "--snr", type=float, nargs="*", default=[], metavar="DB", help="add pink noise at these too"
    )
    parser.add_argument("--paced", action="store_true", help="also play in real time")
    parser.add_argument(
        "--wordless", type=float, default=0.0, metavar="S", help="S seconds of each wordless sound"
    )
    parser.add_argument(
        "--whole",
        type=int,
        nargs="*",
        default=[1, 5],
        metavar="BEAM",
        help="beams of the whole-file runs (1 5)",
    )
    parser.add_argument("--hop", type=float, help="seconds between passes")
    parser.add_argument("--margin", type=float, help="seconds behind a word before it is settled")
    parser.add_argument("--alone", type=float, help="the same for a word that the pass before did not have")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, metavar="OUT", help="write every figure to OUT")
    options = parser.parse_args()
    try:
        return run(options)
    except EcmfError as error:
        print(error, file=sys.stderr)
        return error.exit_code


def run(options: argparse.Namespace) -> int:
    recordings = readings()
    if options.ravdess:
        recordings.append(ravdess(options.ravdess, options.clips, options.seed))
    aligner = SpeechEncoder("base"), Decoder("base", language="en")
    truths = [timed(recording, *aligner) for recording in recordings]
    clean = len(recordings)
    for snr in options.snr:
        recordings += [mixed(recording, snr, options.seed) for recording in recordings[:clean]]
        truths += truths[:clean]
    speech = [_speech_s(recording) for recording in recordings[:clean]] * (1 + len(options.snr))
    wanted = {"hop_s": options.hop, "margin_s": options.margin, "alone_s": options.alone}
    changes = {name: value for name, value in wanted.items() if value is not None}
    settings = replace(TranscriberSettings(), **changes)
    rows: list[Row] = []
    false_words: list[dict[str, Any]] = []
    paces: list[Pace] = ["unpaced", "simulated", *(["paced"] if options.paced else [])]  # type: ignore[list-item]
    for name in options.models:
        encoder, decoder = SpeechEncoder(name), Decoder(name, language="en")
        for recording, truth, speech_s in zip(recordings, truths, speech, strict=True):
            for pace in paces:
                heard = listen(
                    recording.audio, encoder, Transcriber(decoder, SpeechDetector(), settings), pace
                )
                rows.append(score(name, recording, truth, heard, pace, speech_s))
                print(list(table(rows))[-1], file=sys.stderr)
        for beam in options.whole:
            rows += whole_file(name, recordings, speech, beam)
        if options.wordless:
            for sound, audio in wordless(options.wordless, options.seed).items():
                heard = listen(audio, encoder, Transcriber(decoder, SpeechDetector(), settings), "unpaced")
                words = [word for word, _ in written(heard)]
                false_words.append(
                    {
                        "model": name,
                        "sound": sound,
                        "seconds": options.wordless,
                        "words": words,
                        "passes": heard.passes,
                    }
                )
    print(*table(rows), sep="\n")
    for entry in false_words:
        heard_words = entry["words"]
        print(f"{entry['model']:8} {entry['sound']:12} {entry['passes']:4} passes, words: {heard_words}")
    if options.json:
        record = {
            "machine": describe(),
            "versions": versions(),
            "seed": options.seed,
            "settings": asdict(settings),
            "ask_s": ASK_S,
            "rows": [asdict(row) for row in rows],
            "wordless": false_words,
        }
        options.json.write_text(json.dumps(record, indent=1) + "\n", "utf-8")
    return 0


def _speech_s(recording: Recording) -> float:
    return float((SpeechDetector().process(recording.audio) >= 0.5).sum()) * BLOCK / SAMPLE_RATE


if __name__ == "__main__":
    sys.exit(main())
