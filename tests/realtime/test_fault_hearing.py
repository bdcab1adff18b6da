"""A hearing that dies or lags: utterances keep their numbers, words are read less often, no sound is lost."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from running import running

from realtime import config, workers
from realtime.assemble import Inputs, Models
from realtime.clock import SystemClock
from realtime.estimator import Report
from realtime.exchange import Exchange
from realtime.hearing import Hearing, Said, Sound
from realtime.message import Estimate, Health, Transcript
from realtime.posts import Listen
from realtime.sources.base import SAMPLE_NS
from realtime.sources.file import open_media
from realtime.window import AudioRing

pytestmark = pytest.mark.slow


def test_utterances_keep_their_numbers_when_the_hearing_dies(
    weight: Callable[[str], Path], demo_speech_short: Path
) -> None:
    for name in ("silero-vad", "whisper-tiny.en"):
        weight(name)
    models = Models(config.load(None, {"camera": "off", "llm": "off", "offline": True}))
    stage = models.hearing()
    exchange, ring, told = Exchange(), AudioRing(30.0), threading.Event()
    lives = []

    def build() -> Hearing:
        lives.append(1)
        told.set()
        return stage if len(lives) == 1 else models.hearing()

    post = Listen(build, exchange, ring, None)
    worker = workers.Worker(
        "speech", post, clock=SystemClock(), pause_s=0.0, on_down=lambda w: exchange.runs(w.name, None)
    )
    media = open_media(demo_speech_short, video=False, pace=None)
    assert media.audio is not None
    blocks = list(media.audio.blocks(threading.Event()))

    def hear_all() -> set[int]:
        """All of it at once; the utterances that end in it."""
        last_ns = blocks[-1].end_ns
        for block in blocks:
            ring.write(replace(block, start_ns=block.start_ns + shift_ns, end_ns=block.end_ns + shift_ns))
        found: set[int] = set()
        while not found:
            outcome = exchange.take(60)
            assert outcome is not None, worker.report()
            if isinstance(outcome, Said) and outcome.final and outcome.heard_ns <= last_ns + shift_ns:
                found.add(outcome.utterance)
        return found

    shift_ns = 0
    worker.start()
    assert told.wait(60)
    while not exchange.engines:
        exchange.take(0.01)
    before = hear_all()
    hear, told = stage.hear, threading.Event()

    def die(sound: Sound) -> Iterator[Report | Said]:
        raise RuntimeError("the encoder lost its device")
        yield from hear(sound)

    stage.hear = die  # type: ignore[method-assign]
    shift_ns = blocks[-1].end_ns + 10**9
    for number in range(10):
        ring.write(
            replace(
                blocks[number], start_ns=shift_ns, end_ns=shift_ns + len(blocks[number].samples) * SAMPLE_NS
            )
        )
        shift_ns = ring.end_ns
    while worker.restarts == 0 or not exchange.engines:
        exchange.take(0.05)
    shift_ns = ring.end_ns + 10**9
    after = hear_all()
    worker.stop.set()
    assert worker.join(60)
    assert min(after) > max(before) and len(lives) == 2


class Slow(Models):
    """The real models; reading words takes a second and a half for half a second of sound while ``on`` is set."""

    def __init__(self, said: dict[str, str | bool]) -> None:
        super().__init__(config.load(None, said))
        self.on = threading.Event()
        self.on.set()
        self.hops: list[float] = []

    def hearing(self) -> Hearing:
        stage = super().hearing()
        assert stage._transcriber is not None
        decoder = stage._transcriber._decoder
        decode = decoder.decode

        def slowly(*arguments: Any, **named: Any) -> Any:
            self.hops.append(stage.words_hop_s)
            if self.on.is_set():
                threading.Event().wait(1.5)  # an engine that takes so long
            return decode(*arguments, **named)

        decoder.decode = slowly  # type: ignore[method-assign]
        return stage


def test_transcription_three_times_too_slow_is_asked_less_often_and_loses_no_sound(
    weight: Callable[[str], Path], demo_speech: Path
) -> None:
    for name in ("silero-vad", "whisper-tiny.en"):
        weight(name)
    said: dict[str, str | bool] = {"camera": "off", "llm": "off", "offline": True}
    sound = open_media(demo_speech, video=False, loop=True, pace=SystemClock())
    models = Slow(said)
    with running(Inputs(None, sound.audio), models, said) as run:
        told = run.health(lambda h: h.load is not None and h.load.level >= 3)
        message = run.kept.messages[told]
        assert isinstance(message, Health)
        assert any("words read" in note for note in message.notes)
        run.kept.wait_for(lambda m: isinstance(m, Estimate) and m.trigger == "voice", told)
        run.kept.wait_for(lambda m: isinstance(m, Transcript) and bool(m.words), told)
        models.on.clear()
        eased = run.health(lambda h: (h.workers["speech"].queue_age_ms or 0) < 1000, told)
        after = run.kept.messages[run.health(lambda h: True, eased + 1)]
        assert isinstance(after, Health)
        assert after.workers["speech"].restarts == 0
        assert not after.workers["speech"].drops.get("overrun samples"), "no sound was lost"
    assert run.no_gaps()
    assert models.hops[0] == 0.5 and max(models.hops) >= 1.0
