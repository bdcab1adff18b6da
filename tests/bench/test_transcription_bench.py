"""What the word benchmarks make of events whose answer is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bench.listening import Heard, written
from bench.recordings import Recording, Spoken
from bench.word_peers import PeerError, _event, peer
from bench.word_scores import pooled, row, score, table
from ecmf.transcript import Settled, Skipped, TranscriptEvent

AUDIO = np.zeros(32000, np.float32)
TRUTH = (Spoken("fail", 0.1, 0.5), Spoken("better", 0.6, 1.0))


def recording(name: str = "one") -> Recording:
    return Recording(name, AUDIO, ((2.0, "Fail better."),), (AUDIO,))


def words(kind: str, *texts: str) -> TranscriptEvent:
    times = {spoken.word: (spoken.start_s, spoken.end_s) for spoken in TRUTH}
    bare = [text.strip(" .").lower() for text in texts]
    return _event(kind, [(t, *times.get(b, (0.0, 0.1))) for t, b in zip(texts, bare, strict=True)])


def test_delays_count_from_the_true_end_of_a_word_to_its_last_letter() -> None:
    heard = Heard(
        [
            (0.8, words("partial", " Fail")),
            (1.0, words("settled", " Fail")),
            (2.0, words("settled", " better.")),
        ],
        cpu_s=0.5,
    )
    assert written(heard) == [("fail", 1.0), ("better", 2.0)]
    result = score("ours", "tiny.en", recording(), TRUTH, heard, "paced", 1.5)
    assert result.settled_s == pytest.approx((0.5, 1.0))
    assert result.seen_s == pytest.approx((0.3, 1.0))
    assert (row(result)["wer"], row(result)["rtf"], row(result)["core_s_per_speech_minute"]) == (
        0.0,
        0.25,
        20.0,
    )


def test_wrong_words_cost_and_have_no_delay_and_what_was_skipped_is_told() -> None:
    heard = Heard([(1.0, words("settled", " Fail")), (1.5, Skipped(0, 2_000_000_000, "overload"))], 0.1)
    result = score("ours", "tiny.en", recording(), TRUTH, heard, "unpaced", 1.5)
    assert result.parts == ((2, 1),)
    assert result.skipped_s == 2.0
    assert len(result.settled_s) == 1


def test_recordings_are_pooled_by_their_words() -> None:
    right = Heard([(1.0, words("settled", " Fail", " better."))], 0.2)
    wrong = Heard([(1.0, words("settled", " Sail"))], 0.2)
    scores = [score("s", "m", recording(n), TRUTH, h, "paced", 1.0) for n, h in (("a", right), ("b", wrong))]
    both = row(pooled(scores, "both"))
    assert (both["words"], both["errors"], both["recording"]) == (4, 2, "both")
    assert both["wer_low"] <= both["wer"] <= both["wer_high"]
    assert "both" in list(table([both]))[1]


def test_a_word_in_two_pieces_is_settled_with_its_last_letter() -> None:
    pieces: list[tuple[float, TranscriptEvent]] = [
        (1.0, Settled(1, " bet", (), 0, 0)),
        (3.0, Settled(1, "ter", (), 0, 0)),
        (4.0, Settled(1, ".", (), 0, 0)),
    ]
    assert written(Heard(pieces, 0.0)) == [("better", 3.0)]


def test_a_peer_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(PeerError, match=r"--peer .*python"):
        peer(tmp_path / "python", "tiny.en", [recording()], [TRUTH], [1.0])
