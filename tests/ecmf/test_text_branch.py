"""The shipped text bundle reads plain sentences as a person would."""

from __future__ import annotations

import numpy as np
import pytest

from ecmf.branches.text import TextBranch, text_quality
from ecmf.bundle import SHIPPED, load_bundle
from ecmf.enrich import Enrichment
from ecmf.labels import EKMAN


@pytest.fixture(scope="module")
def branch() -> TextBranch:
    return TextBranch()


@pytest.mark.parametrize(
    ("words", "label"),
    [
        ("I am so happy today!", "happiness"),
        ("The meeting is at nine.", "neutral"),
        ("Kids are talking by the door.", "neutral"),
        ("I put the keys on the table.", "neutral"),
        ("Get out of my house, you liar! I hate you!", "anger"),
        ("I'm scared, I don't want to go in there.", "fear"),
        ("My dog died yesterday and I miss him so much.", "sadness"),
        ("What? Oh my God, really?", "surprise"),
    ],
)
def test_plain_sentences(branch: TextBranch, words: str, label: str) -> None:
    cue = branch.process(words, start_ns=3, end_ns=7, person=2)
    assert cue.probs is not None
    assert EKMAN[int(cue.probs.argmax())] == label
    assert (cue.modality, cue.person, cue.start_ns, cue.end_ns, cue.words) == ("text", 2, 3, 7, words)


def test_probabilities_and_a_fixed_size_with_and_without_enrichment(branch: TextBranch) -> None:
    scores = np.array([0.1, 0.4, 0.1, 0.1, 0.1, 0.1, 0.1], np.float32)
    for enrichment in (None, Enrichment("happy, excited", scores)):
        cue = branch.process("We got the house", ["I called them yesterday."], enrichment)
        assert cue.probs is not None
        assert cue.probs.shape == (7,) and abs(cue.probs.sum() - 1) < 1e-5
        assert cue.embedding.shape == (384,) and np.isfinite(cue.embedding).all()


def test_fillers_are_no_cue_and_words_add_quality() -> None:
    assert text_quality("") == text_quality("Um, uh...") == 0.0
    growing = [text_quality("happy " * n) for n in range(1, 8)]
    assert growing == sorted(growing) and growing[-1] < 1
    assert text_quality("um happy") == text_quality("happy")


def test_empty_words_are_absent_not_an_error(branch: TextBranch) -> None:
    cue = branch.process("")
    assert cue.quality == 0.0 and np.isfinite(cue.embedding).all()


def test_history_changes_the_reading(branch: TextBranch) -> None:
    alone, after = (branch.process("Yes.", history) for history in ((), ("We won! I can't believe it!",)))
    assert not np.allclose(alone.embedding, after.embedding, atol=1e-3)


def test_the_bundle_is_small_and_names_its_data() -> None:
    bundle = load_bundle(SHIPPED / "text")
    assert sum(path.stat().st_size for path in bundle.folder.iterdir()) <= 25e6
    assert {entry["name"] for entry in bundle.manifest.training_data} == {"GoEmotions", "MELD"}
