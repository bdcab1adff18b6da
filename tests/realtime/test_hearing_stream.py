"""The hearing stage over gaps, pauses and slower hops, with models that answer as they are told."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest
from numpy.typing import NDArray

from ecmf.branches.voice import WINDOW_S, VoiceBranch
from ecmf.decoder import Decoder, Hypothesis
from ecmf.heard import Unit
from ecmf.speech import SpeechEncoder, SpeechStates
from ecmf.vad import BLOCK, GAP_NS, SpeechDetector
from realtime.degrade import LEVELS
from realtime.hearing import Hearing, Said, Sound
from realtime.posts import HOP
from realtime.sources.base import SAMPLE_NS, SAMPLE_RATE

START_NS = 5_000_000_000


class Engine:
    backend, precision, fallback, refusals = "none", "none", None, ()


class Encoder:
    engine = Engine()

    def __init__(self) -> None:
        self.prepared: list[float] = []
        self.encoded: list[float] = []

    def prepare(self, longest_s: float) -> None:
        self.prepared.append(longest_s)

    def encode(self, audio: NDArray[np.float32]) -> SpeechStates:
        seconds = len(audio) / SAMPLE_RATE
        self.encoded.append(seconds)
        return SpeechStates(np.zeros((1, 10, 8), np.float32), {}, seconds)


class Voice:
    """Remembers how long the sound was that it was given."""

    engine = Engine()

    def __init__(self) -> None:
        self.heard: list[float] = []

    def session(self) -> None: ...

    def process(self, audio: NDArray[np.float32], *_: Any, **__: Any) -> None:
        self.heard.append(len(audio) / SAMPLE_RATE)


class Detector:
    """Hears speech before a time, in seconds."""

    def __init__(self, until_s: float) -> None:
        self._until, self._judged, self.waiting, self.resets = until_s, 0, 0, 0

    def process(self, audio: NDArray[np.float32]) -> NDArray[np.float32]:
        count, self.waiting = divmod(self.waiting + len(audio), BLOCK)
        at = (self._judged + np.arange(count)) * BLOCK / SAMPLE_RATE
        self._judged += count
        return (at < self._until).astype(np.float32)

    def reset(self) -> None:
        self.waiting, self.resets = 0, self.resets + 1


class Chatter:
    """Reads a word every half second, wherever it is asked to go on."""

    language, sha256, multilingual = "en", "", False

    def __init__(self, probability: float) -> None:
        self._probability = probability

    def decode(
        self,
        states: NDArray[np.float32],
        seconds: float,
        prefix: tuple[int, ...] = (),
        from_s: float = 0.0,
        *_: Any,
        **__: Any,
    ) -> Hypothesis:
        starts = np.arange(from_s, max(seconds - 0.5, from_s), 0.5).tolist()
        units = [Unit(" so", (1,), at, at + 0.5, self._probability) for at in starts]
        return Hypothesis(tuple(units), 0.0, -0.1, "en")


def hearing(encoder: Encoder, voice: Voice, detector: Detector, decoder: object | None = None) -> Hearing:
    return Hearing(
        cast(SpeechEncoder, encoder),
        cast(VoiceBranch, voice),
        cast(SpeechDetector, detector),
        cast(Decoder | None, decoder),
    )


def hear(stage: Hearing, seconds: float, start_ns: int = START_NS) -> list[Said]:
    """What is told of that much noise in pieces."""
    rng = np.random.default_rng(0)
    told = []
    for begin in range(0, round(seconds * SAMPLE_RATE), HOP):
        noise = (0.1 * rng.standard_normal(HOP)).astype(np.float32)
        sound = Sound(noise, start_ns + begin * SAMPLE_NS, "file", None)
        told += [outcome for outcome in stage.hear(sound) if isinstance(outcome, Said)]
    return told


@pytest.mark.parametrize(("lost_ns", "fresh"), [(GAP_NS - 10_000_000, False), (GAP_NS + 10_000_000, True)])
def test_a_gap_is_the_same_for_the_voice_as_for_the_words(lost_ns: int, fresh: bool) -> None:
    voice, detector = Voice(), Detector(60.0)
    stage = hearing(Encoder(), voice, detector)
    pieces = 16
    hear(stage, pieces * HOP / SAMPLE_RATE)
    before = len(voice.heard)
    hear(stage, 1.0, START_NS + pieces * HOP * SAMPLE_NS + lost_ns)
    after = voice.heard[before:]
    assert after
    assert (max(after) <= 1.2) is fresh
    assert detector.resets == fresh


@pytest.mark.parametrize("hop_s", sorted({each.words_hop_s for each in LEVELS}))
def test_it_is_prepared_for_every_pace_of_the_words(hop_s: float) -> None:
    encoder = Encoder()
    stage = hearing(encoder, Voice(), Detector(60.0), Chatter(probability=0.6))
    stage.prepare()
    stage.words_hop_s = hop_s
    hear(stage, 20.0)
    assert max(encoder.encoded) <= encoder.prepared[0]


def test_words_and_voice_share_their_pass_at_the_slowest_pace_too() -> None:
    encoder, voice = Encoder(), Voice()
    stage = hearing(encoder, voice, Detector(60.0), Chatter(probability=0.95))
    stage.words_hop_s = max(each.words_hop_s for each in LEVELS)
    hear(stage, 20.0)
    assert len(encoder.encoded) == len(voice.heard)
    assert sum(seconds > WINDOW_S for seconds in voice.heard) >= 8


@pytest.mark.parametrize(("last", "paused"), [(".", True), (" matter", False)])
def test_a_doubtful_full_stop_does_not_keep_a_pause_open(last: str, paused: bool) -> None:
    class Doubtful(Chatter):
        def decode(
            self,
            states: NDArray[np.float32],
            seconds: float,
            prefix: tuple[int, ...] = (),
            from_s: float = 0.0,
            *_: Any,
            ended: bool = False,
            **__: Any,
        ) -> Hypothesis:
            no = Unit(" no", (1,), 0.3, 0.7, 0.95)
            doubtful = Unit(last, (2,), seconds - 0.3, seconds - 0.1, 0.4)
            units = (*(() if prefix else (no,)), *((doubtful,) if ended else ()))
            return Hypothesis(units, 0.0, -0.1, "en")

    stage = hearing(Encoder(), Voice(), Detector(1.0), Doubtful(0.0))
    told = hear(stage, 1.5)
    assert (told[-1].text, told[-1].partial) == (" no", last)
    assert told[-1].paused is paused
