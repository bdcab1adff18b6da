"""Sound in, voice reports and transcripts out, as the live pipeline gives it: in pieces of an eighth of a second."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.recordings import WORSTWARD, read_wave
from bench.word_errors import normal
from ecmf.branches.voice import VoiceBranch
from ecmf.bundle import SHIPPED, load_bundle
from ecmf.decoder import Decoder
from ecmf.speech import SpeechEncoder
from ecmf.vad import SpeechDetector
from realtime.estimator import Report
from realtime.hearing import HOP_S, Hearing, Said, Sound
from realtime.posts import HOP
from realtime.sources.base import SAMPLE_NS, SAMPLE_RATE

START_NS = 5_000_000_000


@pytest.fixture(scope="module")
def told(weight: Callable[[str], Path], demo_speech_short: Path) -> list[tuple[int, Report | Said]]:
    """Everything that came out, with the number of the piece after which it did."""
    bundle = load_bundle(SHIPPED / "voice")
    name = str(bundle.manifest.extra["encoder"]["name"])
    weight(f"whisper-{name}")
    encoder = SpeechEncoder(name)
    voice = VoiceBranch(bundle, encoder=encoder)
    hearing = Hearing(encoder, voice, SpeechDetector(weight("silero-vad")), Decoder(name, language="en"))
    audio = read_wave(demo_speech_short)
    out: list[tuple[int, Report | Said]] = []
    for number, begin in enumerate(range(0, len(audio), HOP)):
        sound = Sound(audio[begin : begin + HOP], START_NS + begin * SAMPLE_NS, "file", None)
        out += [(number, outcome) for outcome in hearing.hear(sound)]
    out += [(number, outcome) for outcome in hearing.finish(sound)]
    return out


def test_all_that_was_said_ends_and_nothing_changes(told: list[tuple[int, Report | Said]]) -> None:
    texts: dict[int, str] = {}
    for _, said in told:
        if isinstance(said, Said):
            assert said.text.startswith(texts.get(said.utterance, ""))
            texts[said.utterance] = said.text
    finals = [said for _, said in told if isinstance(said, Said) and said.final]
    assert normal(" ".join(said.text for said in finals)) == normal(" ".join(t for _, t in WORSTWARD))
    assert {said.utterance: said.text for said in finals} == texts


def test_a_pause_in_which_something_is_open_is_none(told: list[tuple[int, Report | Said]]) -> None:
    pauses = [said for _, said in told if isinstance(said, Said) and said.paused]
    assert pauses
    assert all(said.text and said.partial in ("", *".,?!") for said in pauses)


def test_the_voice_is_heard_at_least_every_hop(told: list[tuple[int, Report | Said]]) -> None:
    voice = [number for number, outcome in told if isinstance(outcome, Report)]
    step = HOP / SAMPLE_RATE
    assert max(b - a for a, b in itertools.pairwise(voice)) * step <= HOP_S + step
    assert len(set(voice)) == len(voice)  # and once for one piece of sound
