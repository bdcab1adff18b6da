"""Given stages that fail, hang or lag in the middle, the stream goes on, says so, and loses nothing it published."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from running import Camera, JumpingClock, pictures, running

from realtime import config, workers
from realtime.assemble import Inputs, Models
from realtime.clock import Clock, SystemClock
from realtime.estimator import Report
from realtime.exchange import Exchange
from realtime.hearing import Hearing, Said, Sound
from realtime.message import Estimate, Health, Transcript
from realtime.posts import Listen
from realtime.sources.base import SAMPLE_NS, Frame
from realtime.sources.file import open_media
from realtime.stages import FaceStage
from realtime.window import AudioRing

SAID: dict[str, str | bool] = {"camera": "0", "mic": "off", "offline": True}


@pytest.fixture(scope="module")
def seen(weight: Callable[[str], Path]) -> list[NDArray[np.uint8]]:
    """Pictures of one person; and the weights that reading them takes."""
    for name in ("face-landmarker", "efficientnet-lite0"):
        weight(name)
    return pictures(weight("demo-face"))


def camera(seen: list[NDArray[np.uint8]], clock: Clock | None = None) -> Inputs:
    return Inputs(Camera(seen, clock or SystemClock()), None)


class Spoiled(Models):
    """The real models; the face stage does what the test wants at each frame."""

    def __init__(self, at_frame: Callable[[int], None], *, reuse: bool = False) -> None:
        """``reuse``: a restart gets the same stage again, which saves the loading."""
        super().__init__(config.load(None, SAID))
        self.built = 0
        self._at_frame = at_frame
        self._reuse = reuse
        self._frames = 0
        self._stage: FaceStage | None = None

    def face(self) -> FaceStage:
        self.built += 1
        if self._reuse and self._stage is not None:
            return self._stage
        self._stage = stage = super().face()
        see = stage.see

        def spoiled(frame: Frame, wait_ms: float) -> Report | None:
            self._frames += 1
            self._at_frame(self._frames)
            return see(frame, wait_ms)

        stage.see = spoiled  # type: ignore[method-assign]
        return stage


def test_an_engine_that_raises_in_the_middle_is_loaded_again(seen: list[NDArray[np.uint8]]) -> None:
    def at_frame(number: int) -> None:
        if number == 5:
            raise RuntimeError("the engine lost its device")

    models = Spoiled(at_frame)
    with running(camera(seen), models, SAID) as run:
        told = run.health(lambda h: h.workers["face"].restarts == 1)
        # what was seen before may still be told for a moment
        run.kept.wait_for(lambda m: isinstance(m, Estimate) and m.person not in (None, 0), told)
        message = run.kept.messages[told]
        assert isinstance(message, Health)
        assert message.workers["face"].reason == "restarted after: the engine lost its device"
        assert any("the engine lost its device" in note for note in message.notes)
    assert models.built == 2 and run.no_gaps()
    people = [m.person for m in run.kept.messages if isinstance(m, Estimate) and m.person is not None]
    assert len(set(people)) == 2, "after the restart nobody is taken for who was there before"
    assert run.summary is not None and run.summary.labels


def test_an_engine_that_raises_for_good_is_off_and_the_others_go_on(seen: list[NDArray[np.uint8]]) -> None:
    def at_frame(number: int) -> None:
        raise RuntimeError("broken for good")

    models = Spoiled(at_frame, reuse=True)
    with running(camera(seen), models, SAID) as run:
        told = run.health(lambda h: not h.workers["face"].alive)
        after = run.health(lambda h: h.workers["scene"].alive and h.workers["scene"].rate_hz > 0, told + 1)
        message = run.kept.messages[after]
        assert isinstance(message, Health)
        assert message.workers["face"].reason == "off: broken for good"
        assert "face" not in message.engine and "scene" in message.engine
        run.kept.wait_for(lambda m: isinstance(m, Estimate) and m.modalities.face.reason == "off", told)
    assert models.built == workers.RESTARTS + 1 and run.no_gaps() and run.failure is None


def test_a_stage_that_hangs_is_replaced_and_its_late_result_is_void(
    seen: list[NDArray[np.uint8]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "HANG_S", 2.0)
    hanging, go, back = threading.Event(), threading.Event(), threading.Event()

    def at_frame(number: int) -> None:
        if number == 5:
            hanging.set()
            assert go.wait(60)
            back.set()

    with running(camera(seen), Spoiled(at_frame), SAID) as run:
        assert hanging.wait(60)
        told = run.health(lambda h: h.workers["face"].restarts == 1)
        after = run.labelled(told)
        threads = [t for t in threading.enumerate() if t.name == "face"]
        assert len(threads) == 2, "one that hangs, one that works"
        go.set()
        assert back.wait(60)
        (old, *_) = threads
        old.join(60)
        assert not old.is_alive(), "the thread that came back has ended"
        run.labelled(run.health(lambda h: h.workers["face"].alive, after) + 1)
    assert run.no_gaps()
    captures = [m.t_capture_ns for m in run.kept.messages if isinstance(m, Estimate) and m.trigger == "face"]
    assert all(before <= later for before, later in pairwise(captures)), (
        "no estimate of an older frame came late"
    )


def test_a_fusion_that_fails_once_goes_on(seen: list[NDArray[np.uint8]]) -> None:
    models = Spoiled(lambda number: None)
    head = models.head()
    fuse, calls = head.fuse, []

    def once(*arguments: object) -> object:
        calls.append(1)
        if len(calls) == 5:
            raise RuntimeError("a wrong turn")
        return fuse(*arguments)  # type: ignore[arg-type]

    head.fuse = once  # type: ignore[method-assign,assignment]
    models.head = lambda: head  # type: ignore[method-assign]
    with running(camera(seen), models, SAID) as run:
        told = run.health(lambda h: h.workers["fusion"].drops.get("failed") == 1)
        run.labelled(told)
    assert run.no_gaps() and run.failure is None


def test_a_fusion_that_keeps_failing_ends_the_run_in_one_line(seen: list[NDArray[np.uint8]]) -> None:
    models = Spoiled(lambda number: None)
    head = models.head()

    def never(*arguments: object) -> object:
        raise RuntimeError("nothing fits")

    head.fuse = never  # type: ignore[method-assign,assignment]
    models.head = lambda: head  # type: ignore[method-assign]
    with running(camera(seen), models, SAID) as run:
        assert run.join()
    assert "fusion keeps failing (RuntimeError: nothing fits)" in str(run.failure)


def test_a_clock_that_jumps_an_hour_restarts_nobody_and_old_cues_say_so(
    seen: list[NDArray[np.uint8]],
) -> None:
    clock = JumpingClock()
    with running(camera(seen, clock), Spoiled(lambda number: None), SAID, clock=clock) as run:
        before = run.labelled()
        jumped_ns = clock.monotonic_ns() + 3600 * 10**9
        clock.jump(3600)
        after = run.kept.wait_for(
            lambda m: isinstance(m, Estimate) and m.label is not None and m.t_capture_ns > jumped_ns, before
        )
        told = run.kept.messages[run.health(lambda h: h.uptime_s > 3600, after)]
        assert isinstance(told, Health)
        assert all(worker.restarts == 0 and worker.alive for worker in told.workers.values())
        assert told.load is not None and told.load.level == 0
    assert run.no_gaps()
    for message in run.kept.messages:
        if isinstance(message, Estimate) and message.label is not None:
            face = message.modalities.face
            assert face.age_ms is not None
            aged_ms = (message.t_publish_ns - message.t_capture_ns) * 1e-6
            assert not (message.trigger == "face" and aged_ms > face.age_ms + 50), "an old frame says its age"


@pytest.mark.slow
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


@pytest.mark.slow
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
