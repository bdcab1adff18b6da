"""Given a language model that crashes, hangs, or whose file vanishes: enrichment is off, and comes back."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ecmf import enrich
from ecmf.enrich import Enricher
from ecmf.errors import WeightError
from realtime.clock import FakeClock
from realtime.exchange import Exchange
from realtime.hearing import Said
from realtime.post_words import Enrich, Words, offer
from realtime.reading import Enriching
from realtime.workers import HANG_S, Shift, Worker

LONG_S = 60


@pytest.fixture
def gguf(weight: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A language model file of the test's own."""
    pytest.importorskip("llama_cpp", reason="the llm extra is not installed")
    path = tmp_path / "model.gguf"
    path.symlink_to(weight("smollm2-135m"))
    monkeypatch.setattr(enrich, "SHOTS", enrich.SHOTS[:3])  # fewer worked examples, so that it loads faster
    return path


def said(number: int) -> Said:
    return Said(number, "I lost my keys again.", "", (), True, 0, 1, 2, "adc", None, {})


class Post:
    """The enrichment worker with a real language model, on a fake clock."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.clock = FakeClock()
        self.exchange = Exchange()
        self.ended: Words = queue.Queue(4)
        self.built: list[Enricher] = []
        self.building = threading.Semaphore(0)
        body = Enrich(self._build, self.exchange, self.ended, queue.Queue(16))
        self.worker = Worker(
            "enrichment",
            body,
            clock=self.clock,
            pause_s=0.05,
            on_down=lambda worker: self.exchange.runs(worker.name, None),
        )

    def _build(self) -> Enriching:
        self.clock.advance(15_000_000_000)  # as if the pause before a restart had been waited
        self.building.release()
        enricher = Enricher(self.path, offline=True)
        self.built.append(enricher)
        return Enriching(enricher, deadline_s=None)

    def answer(self) -> Said:
        for _ in range(LONG_S * 10):
            found = self.exchange.take(0.1)
            if found is not None:
                assert isinstance(found, Said)
                return found
        raise AssertionError(f"no answer; {self.worker.report()}")

    def end(self) -> None:
        offer(self.ended, None)
        assert self.worker.join(LONG_S)


@pytest.fixture
def post(gguf: Path) -> Iterator[Post]:
    made = Post(gguf)
    made.worker.start()
    yield made
    made.worker.stop.set()
    assert made.worker.join(LONG_S)


def loaded(post: Post, count: int) -> None:
    """Wait until the model was loaded ``count`` times, or loading failed so often."""
    for _ in range(count):
        assert post.building.acquire(timeout=LONG_S)


def test_one_that_crashes_while_its_file_is_gone_comes_back_with_the_file(post: Post, gguf: Path) -> None:
    post.ended.put(said(1))
    assert post.answer().cues

    def crash(*arguments: object) -> object:
        raise WeightError("the language model failed (status 3); take another or switch enrichment off")

    post.built[0]._model.evaluate = crash  # type: ignore[method-assign,assignment]
    target = gguf.readlink()
    gguf.unlink()
    loaded(post, 1)
    post.ended.put(said(2))
    loaded(post, 1)
    loaded(post, 1)  # the second try, so the first has failed
    assert "enrichment" not in post.exchange.engines
    assert "model.gguf" in str(post.worker.report().reason) and not post.worker.finished
    gguf.symlink_to(target)
    post.ended.put(said(3))
    assert post.answer().utterance == 3
    assert "enrichment" in post.exchange.engines
    assert post.worker.restarts >= 2
    post.end()


def test_one_that_hangs_is_given_up_and_another_is_loaded(post: Post) -> None:
    post.ended.put(said(1))
    assert post.answer().utterance == 1
    hanging, go = threading.Event(), threading.Event()
    evaluate = post.built[0]._model.evaluate

    def hang(*arguments: object) -> object:
        hanging.set()
        assert go.wait(LONG_S)
        return evaluate(*arguments)  # type: ignore[arg-type]

    post.built[0]._model.evaluate = hang  # type: ignore[method-assign,assignment]
    post.ended.put(said(2))
    assert hanging.wait(LONG_S)
    for number in range(3, 20):
        offer(post.ended, said(number), Shift(post.worker), "too many")  # whoever speaks on never waits
    assert post.worker.drops["too many"] == 13
    for _ in range(round(HANG_S) + 2):
        post.worker.watch(1_000_000_000)
    assert post.worker.restarts == 1
    assert [post.answer().utterance for _ in range(4)] == [16, 17, 18, 19]
    old = post.built[0]
    go.set()
    post.end()
    for thread in threading.enumerate():
        if thread.name == "enrichment":
            thread.join(LONG_S)
    assert post.exchange.take(0.1) is None, "what the hung thread brought is void"
    assert old._model._model is None, "and its model is freed"


@pytest.mark.slow
def test_memory_is_back_after_each_restart(gguf: Path) -> None:
    post = Post(gguf)
    post.worker.start()
    resident = []
    for number in range(6):
        post.ended.put(said(number))
        post.answer()
        resident.append(_resident_mb())

        def crash(*arguments: object) -> object:
            raise WeightError("the language model failed")

        post.built[-1]._model.evaluate = crash  # type: ignore[method-assign,assignment]
        post.ended.put(said(100 + number))
        loaded(post, 1)  # the one that has crashed
    loaded(post, 1)
    post.end()
    assert resident[-1] < resident[1] + 40, f"the model takes 90 MB and more; {resident}"


def _resident_mb() -> float:
    return int(Path("/proc/self/statm").read_text("ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
