"""What is said in a language that the text branch does not know is not read for emotion."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import pytest

from ecmf.branches.text import TextBranch
from ecmf.enrich import Enricher, Enrichment
from ecmf.errors import UsageError
from ecmf.transcript import Word
from realtime.assemble import Models
from realtime.config import load
from realtime.hearing import Said
from realtime.reading import Enriching, Reading

LINE = "I am so happy for you!"


def said(language: str, text: str = LINE) -> Said:
    word = Word(text.split()[-1], 1_000_000_000, 1_300_000_000, 0.9)
    return Said(
        1, text, "", (word,), True, 0, 1_300_000_000, 1_500_000_000, "file", 1.5, {}, language=language
    )


def test_english_is_read_and_another_language_is_said_to_be_left(caplog: pytest.LogCaptureFixture) -> None:
    reading = Reading(TextBranch())
    (report,) = reading.read(said("en"))
    assert [cue.modality for cue in report.cues] == ["text"]
    with caplog.at_level(logging.WARNING):
        assert list(reading.read(said("de"))) == []
        assert list(reading.read(said("de"))) == []
    assert [record.getMessage() for record in caplog.records if "'de'" in record.getMessage()] == [
        "words in 'de' are written down, but not read for emotion"
    ]


def test_an_english_recognizer_refuses_another_language_and_names_one_that_knows_it(
    weight: Callable[[str], Path],
) -> None:
    weight("whisper-tiny.en")
    with pytest.raises(UsageError, match=r"English alone.*--asr base"):
        Models(load(said={"language": "de"})).hearing()


def test_the_language_model_is_asked_about_english_that_has_ended(weight: Callable[[str], Path]) -> None:
    pytest.importorskip("llama_cpp", reason="needs the llm extra")
    enriching = Enriching(Enricher(weight("smollm2-135m")), deadline_s=None)
    assert enriching.enrich(said("de")) is None
    assert enriching.enrich(replace(said("en"), final=False)) is None
    found = enriching.enrich(said("en"))
    assert found is not None
    assert found.cues
    assert found.enrichment is not None
    paused = replace(said("en", "We lost everything."), final=False, paused=True)
    assert enriching.enrich(paused) is None  # read ahead, given back when it has ended
    ended = enriching.enrich(replace(paused, final=True))
    assert ended is not None
    assert "enrichment" not in ended.stage_ms
    assert ended.cues
    late = Enriching(Enricher(weight("smollm2-135m")), deadline_s=0.0)
    assert late.enrich(said("en")) is None
    enriching.close()
    late.close()


def test_the_language_model_reads_at_a_pause_what_the_utterance_will_be() -> None:
    class Model:
        path = Path("model.gguf")

        def __init__(self) -> None:
            self.read: list[str] = []

        def enrich(self, text: str, *, expired: Callable[[], bool]) -> Enrichment:
            self.read.append(text)
            return Enrichment("sad", np.full(7, 1 / 7, np.float32))

    model = Model()
    enriching = Enriching(cast(Enricher, model), deadline_s=None)
    paused = replace(said("en", " No matter"), partial=".", final=False, paused=True)
    assert enriching.enrich(paused) is None
    ended = enriching.enrich(said("en", " No matter."))
    assert ended is not None and ended.cues
    assert model.read == ["No matter."]
    assert enriching.enrich(replace(paused, text="")) is None and len(model.read) == 1
