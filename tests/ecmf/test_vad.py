"""Voice activity on real speech and on none, and utterances from it."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from bench.recordings import read_wave, wordless
from ecmf.errors import UsageError
from ecmf.utterances import Segmenter, UtteranceSettings
from ecmf.vad import BLOCK, SAMPLE_RATE, SpeechDetector


@pytest.fixture(scope="module")
def detector(weight: Callable[[str], Path]) -> SpeechDetector:
    return SpeechDetector(weight("silero-vad"))


@pytest.fixture(scope="module")
def reading(demo_speech_short: Path) -> NDArray[np.float32]:
    return read_wave(demo_speech_short)


@settings(max_examples=15, deadline=None)
@given(cuts=st.lists(st.integers(1, 5000), min_size=1, max_size=12))
def test_probabilities_do_not_depend_on_how_the_stream_is_cut(
    detector: SpeechDetector, reading: NDArray[np.float32], cuts: list[int]
) -> None:
    audio = reading[: 3 * SAMPLE_RATE]
    detector.reset()
    whole = detector.process(audio)

    detector.reset()
    pieces = [detector.process(piece) for piece in np.split(audio, np.cumsum(cuts))]

    np.testing.assert_allclose(np.concatenate(pieces), whole, atol=1e-5)
    assert len(whole) == len(audio) // BLOCK
    assert detector.waiting == len(audio) % BLOCK


def test_speech_is_told_from_silence(detector: SpeechDetector, reading: NDArray[np.float32]) -> None:
    detector.reset()
    assert detector.process(reading).max() > 0.95
    detector.reset()
    assert detector.process(np.zeros(SAMPLE_RATE * 3, np.float32)).max() < 0.1


def test_audio_of_another_type_is_refused(detector: SpeechDetector) -> None:
    with pytest.raises(UsageError, match="float64"):
        detector.process(np.zeros(512))  # type: ignore[arg-type]


def test_six_sentences_are_six_utterances(detector: SpeechDetector, reading: NDArray[np.float32]) -> None:
    detector.reset()
    segmenter = Segmenter(detector)

    utterances = [u for piece in np.array_split(reading, 200) for u in segmenter.push(piece)]
    utterances += [last] if (last := segmenter.close()) else []

    assert len(utterances) == 6
    assert [u.number for u in utterances] == [1, 2, 3, 4, 5, 6]
    for utterance, following in itertools.pairwise(utterances):
        assert utterance.closed is not None
        assert utterance.begin < utterance.speech_end <= utterance.closed
        assert following.begin >= utterance.speech_end


class Scripted:
    """A detector that says what it is told, so that the rules alone are tested."""

    def __init__(self, probabilities: list[float]) -> None:
        self.left = list(probabilities)

    def process(self, audio: NDArray[np.float32]) -> NDArray[np.float32]:
        said, self.left = self.left[: len(audio) // BLOCK], self.left[len(audio) // BLOCK :]
        return np.asarray(said, np.float32)

    def reset(self) -> None: ...


@given(st.lists(st.sampled_from([0.0, 0.2, 0.4, 0.6, 1.0]), max_size=120))
def test_utterances_never_overlap_and_hold_all_confident_speech(probabilities: list[float]) -> None:
    segmenter = Segmenter(Scripted(probabilities))
    audio = np.full(BLOCK, 0.1, np.float32)

    utterances = [u for _ in probabilities for u in segmenter.push(audio)]
    utterances += [last] if (last := segmenter.close()) else []

    covered = np.zeros(len(probabilities), int)
    for utterance in utterances:
        assert utterance.closed is not None
        covered[utterance.begin // BLOCK : utterance.closed // BLOCK] += 1
        told = segmenter.probabilities(utterance.begin, utterance.closed)
        assert told.tolist() == pytest.approx(
            probabilities[utterance.begin // BLOCK : utterance.closed // BLOCK]
        )
    confident = np.asarray(probabilities, np.float32) >= UtteranceSettings().onset
    assert (covered[confident] >= 1).all()
    speech = [range(u.begin, u.speech_end) for u in utterances]
    assert all(a.stop <= b.stop and a.start < b.start for a, b in itertools.pairwise(speech))


def test_what_is_too_quiet_is_no_speech() -> None:
    segmenter = Segmenter(Scripted([1.0] * 50))
    segmenter.push(np.full(50 * BLOCK, 0.001, np.float32))
    assert segmenter.current is None


def test_the_generated_noises_are_what_they_say() -> None:
    sounds = wordless(2.0, seed=0)
    assert not sounds["silence"].any()
    assert all(len(sound) == 2 * SAMPLE_RATE and sound.dtype == np.float32 for sound in sounds.values())
    assert all(0.001 < np.sqrt(np.mean(s**2)) < 0.5 for name, s in sounds.items() if name != "silence")
