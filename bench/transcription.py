"""Words: how right, how soon and at what cost, beside faster-whisper on whole files and other streaming.

Rows of one table: this project's transcriber; the same decoder under the published rule of LocalAgreement-2 (Macháček
et al. 2023: a word settles when two passes in a row agree); faster-whisper on whole files, the upper bound of quality;
and, with ``--peer``, WhisperLiveKit's own pipeline in an environment of its own. All with the same weights, on one
thread.

The transcriber's settings were chosen on five sentences of LibriVox (Austen, 25 s; they come with pocketsphinx's
tests), clean and at 10 dB, and on RAVDESS clips of another draw (``--seed 1``); that windows need settled sound before
their first new word was found in the words that went wrong in the longer reading, which therefore is no test of it.
RAVDESS has only two sentences, so what was said in the clip before can help to read the next or mislead.

    python bench/transcription.py --ravdess ravdess.parquet --snr 20 10 5 --wordless 300
    python bench/transcription.py --paces paced --systems ecmf --ravdess ravdess.parquet --clips 24 \\
        --peer peerenv/bin/python --json OUT --add
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, get_args

from bench import results
from bench.listening import ASK, Pace, listen, written
from bench.recordings import Recording, Spoken, mixed, ravdess, readings, timed, wordless
from bench.word_peers import peer, whole_file
from bench.word_scores import Score, pooled, row, score, table
from ecmf.decoder import Decoder
from ecmf.errors import EcmfError
from ecmf.speech import SpeechEncoder
from ecmf.transcribe import Transcriber, TranscriberSettings
from ecmf.vad import BLOCK, SAMPLE_RATE, SpeechDetector

SYSTEMS = ("ecmf", "agreement", "whole")
AGREEMENT = TranscriberSettings(hop_s=1.0, margin_s=0.0, alone_s=float("inf"), sure_s=float("inf"), doubt=0.0)
"""The rule of LocalAgreement-2 with the pace that whisper_streaming comes with, by our decoder."""


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--models", nargs="+", default=["tiny.en"], help="Whisper models (tiny.en)")
    parser.add_argument("--ravdess", type=Path, metavar="PARQUET", help="add sentences of this RAVDESS table")
    parser.add_argument("--clips", type=int, default=48, help="RAVDESS clips drawn (48)")
    parser.add_argument(
        "--snr", type=float, nargs="*", default=[], metavar="DB", help="add pink noise at these too"
    )
    parser.add_argument("--paces", nargs="*", choices=get_args(Pace), default=["unpaced", "simulated"])
    parser.add_argument(
        "--systems", nargs="*", choices=SYSTEMS, default=list(SYSTEMS), help="rows to measure (all)"
    )
    parser.add_argument("--peer", type=Path, metavar="PYTHON", help="of an environment with whisperlivekit")
    parser.add_argument(
        "--wordless", type=float, default=0.0, metavar="S", help="S seconds of each wordless sound"
    )
    parser.add_argument(
        "--whole", type=int, nargs="*", default=[1, 5], metavar="BEAM", help="beams on whole files (1 5)"
    )
    parser.add_argument("--hop", type=float, help="seconds between passes")
    parser.add_argument("--margin", type=float, help="seconds behind a word before it is settled")
    parser.add_argument("--alone", type=float, help="the same for a word that the pass before did not have")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, metavar="OUT", help="write every figure to OUT")
    parser.add_argument("--add", action="store_true", help="keep the other rows that OUT holds already")
    parser.add_argument("--no-clean", action="store_true", help="only the recordings with noise")
    options = parser.parse_args()
    try:
        return run(options)
    except EcmfError as error:
        print(error, file=sys.stderr)
        return error.exit_code


def run(options: argparse.Namespace) -> int:
    load = os.getloadavg()[0]
    recordings = readings()
    if options.ravdess:
        recordings.append(ravdess(options.ravdess, options.clips, options.seed))
    aligner = SpeechEncoder("base"), Decoder("base", language="en")
    truths = [timed(recording, *aligner) for recording in recordings]
    del aligner
    clean = len(recordings)
    speech = [_speech_s(recording) for recording in recordings] * (1 + len(options.snr))
    for snr in options.snr:
        recordings += [mixed(recording, snr, options.seed) for recording in recordings[:clean]]
        truths += truths[:clean]
    if options.no_clean:
        recordings, truths, speech, clean = recordings[clean:], truths[clean:], speech[clean:], 0
    wanted = {"hop_s": options.hop, "margin_s": options.margin, "alone_s": options.alone}
    changes = {name: value for name, value in wanted.items() if value is not None}
    settings = replace(TranscriberSettings(), **changes)
    scores: list[Score] = []
    false_words: list[dict[str, Any]] = []
    for name in options.models:
        encoder, decoder = SpeechEncoder(name), Decoder(name, language="en")
        network = encoder, decoder
        for pace in options.paces:
            for system, rule in (("ecmf", settings), ("agreement", AGREEMENT)):
                # The other rule is shown at the pace that counts its computing, too.
                if system in options.systems and (system == "ecmf" or pace == "simulated"):
                    scores += _streamed(system, name, rule, network, recordings, truths, speech, pace, clean)
        for beam in options.whole if "whole" in options.systems else ():
            scores += _with_pool(whole_file(name, recordings, speech, beam), clean)
        if options.peer:
            some = recordings[:clean], truths[:clean], speech[:clean]
            scores += _with_pool(peer(options.peer, name, *some), clean)
        if options.wordless:
            false_words += _false_words(name, encoder, decoder, settings, options)
    rows = [row(each) for each in scores]
    print(*table(rows), sep="\n")
    for entry in false_words:
        print(f"{entry['model']:8} {entry['sound']:12} {entry['passes']:4} passes, words: {entry['words']}")
    if options.json:
        before = results.load(options.json) if options.add and options.json.is_file() else {}
        rows = _kept(before.get("rows", []), rows, ("system", "model", "recording", "pace")) + rows
        false_words = _kept(before.get("wordless", []), false_words, ("model", "sound")) + false_words
        told = {"seed": options.seed, "clips": options.clips if options.ravdess else 0}
        figures = {
            "ask_s": ASK / SAMPLE_RATE,
            "load_before": round(load, 2),
            "settings": asdict(settings),
            "rows": rows,
            "wordless": false_words,
        }
        results.save(options.json, results.record("transcription", told, figures))
    return 0


def _kept(
    before: Sequence[dict[str, Any]], now: Sequence[dict[str, Any]], keys: Sequence[str]
) -> list[dict[str, Any]]:
    """The rows of ``before`` that were not measured again."""
    again = {tuple(entry[key] for key in keys) for entry in now}
    return [entry for entry in before if tuple(entry[key] for key in keys) not in again]


def _streamed(
    system: str,
    model: str,
    settings: TranscriberSettings,
    network: tuple[SpeechEncoder, Decoder],
    recordings: Sequence[Recording],
    truths: Sequence[Sequence[Spoken]],
    speech: Sequence[float],
    pace: Pace,
    clean: int,
) -> list[Score]:
    encoder, decoder = network
    encoder.prepare(settings.usual_s)  # as the live pipeline does before it listens
    scores = []
    for recording, truth, speech_s in zip(recordings, truths, speech, strict=True):
        transcriber = Transcriber(decoder, SpeechDetector(), settings)
        heard = listen(recording.audio, encoder, transcriber, pace)
        scores.append(score(system, model, recording, truth, heard, pace, speech_s))
        print(list(table([row(scores[-1])]))[-1], file=sys.stderr)
    return _with_pool(scores, clean)


def _with_pool(scores: list[Score], clean: int) -> list[Score]:
    """The rows and one of all clean recordings together."""
    return [*scores, pooled(scores[:clean], "all clean")] if clean > 1 else scores


def _false_words(
    model: str,
    encoder: SpeechEncoder,
    decoder: Decoder,
    settings: TranscriberSettings,
    options: argparse.Namespace,
) -> list[dict[str, Any]]:
    found = []
    for sound, audio in wordless(options.wordless, options.seed).items():
        heard = listen(audio, encoder, Transcriber(decoder, SpeechDetector(), settings), "unpaced")
        words = [word for word, _ in written(heard)]
        found.append(
            {
                "model": model,
                "sound": sound,
                "seconds": options.wordless,
                "passes": heard.passes,
                "words": words,
            }
        )
    return found


def _speech_s(recording: Recording) -> float:
    return float((SpeechDetector().process(recording.audio) >= 0.5).sum()) * BLOCK / SAMPLE_RATE


if __name__ == "__main__":
    sys.exit(main())
