"""Runs a transcriber over a recording as the live pipeline does, and keeps what came out and when."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from bench.recordings import Audio, Spoken
from bench.word_errors import normal
from ecmf.speech import SpeechEncoder
from ecmf.transcribe import Transcriber
from ecmf.transcript import Partial, Settled, TranscriptEvent
from ecmf.vad import SAMPLE_RATE

Pace = Literal["unpaced", "simulated", "paced"]
"""unpaced takes no account of computing: delays are the algorithm's own. simulated lays the measured processor time of
each pass on a clock that runs with the audio, as on an otherwise idle core. paced really plays and reads the clock."""
ASK = 2048
"""New samples at which the live pipeline asks for a window, 128 ms: what its worker takes at a time."""


@dataclass
class Heard:
    """What came out of one run, with the time, in seconds of audio, at which it did."""

    events: list[tuple[float, TranscriptEvent]]
    cpu_s: float
    passes: int = 0


def listen(audio: Audio, encoder: SpeechEncoder, transcriber: Transcriber, pace: Pace) -> Heard:
    """Feed ``audio`` as the live pipeline does: all that has arrived is pushed, then what is due is transcribed."""
    events: list[tuple[float, TranscriptEvent]] = []
    began, began_cpu = time.perf_counter(), time.process_time()
    passes, pushed, clock = 0, 0, 0.0
    while pushed < len(audio):
        arrival = min(pushed + ASK, len(audio)) / SAMPLE_RATE
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
            at = max((at for letter, at in word if letter.isalnum()), default=0.0)
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
