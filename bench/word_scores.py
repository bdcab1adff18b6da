"""What a run over recordings with known words is worth: errors, delays and cost, as rows of one table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bench.listening import Heard, first_seen, written
from bench.recordings import Recording, Spoken
from bench.word_errors import error_rate, matches, normal
from ecmf.transcript import Skipped
from ecmf.vad import SAMPLE_RATE


@dataclass(frozen=True)
class Score:
    """One system on one recording, in full."""

    system: str
    model: str
    recording: str
    pace: str
    seconds: float
    speech_s: float
    parts: tuple[tuple[int, int], ...]
    """Words and errors of each part of the recording."""
    settled_s: tuple[float, ...]
    """End of each true word that was found to its being settled."""
    seen_s: tuple[float, ...]
    """The same to its first standing in a partial text."""
    cpu_s: float | None
    skipped_s: float = 0.0


def score(
    system: str,
    model: str,
    recording: Recording,
    truth: Sequence[Spoken],
    heard: Heard,
    pace: str,
    speech_s: float,
) -> Score:
    """Compare with the true words: rightness by least edits, delays of the words that are right."""
    words = written(heard)
    found, errors = matches([s.word for s in truth], [word for word, _ in words])
    pairs = [(s, words[k][1]) for s, k in zip(truth, found, strict=True) if k is not None]
    firsts = [(s, first_seen(heard, s)) for s, _ in pairs]
    return Score(
        system,
        model,
        recording.name,
        pace,
        len(recording.audio) / SAMPLE_RATE,
        speech_s,
        by_part(recording, errors),
        tuple(at - s.end_s for s, at in pairs),
        tuple(at - s.end_s for s, at in firsts if at is not None),
        heard.cpu_s,
        sum((e.end_ns - e.start_ns) / 1e9 for _, e in heard.events if isinstance(e, Skipped)),
    )


def by_part(recording: Recording, errors: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """Words and errors of each part, given the errors at each true word."""
    counts, first = [], 0
    for _, text in recording.parts:
        size = len(normal(text))
        counts.append((size, sum(errors[first : first + size])))
        first += size
    return tuple(counts)


def pooled(scores: Sequence[Score], name: str) -> Score:
    """All of ``scores``, of one system, as if they were one recording called ``name``."""
    first = scores[0]
    costs = [s.cpu_s for s in scores if s.cpu_s is not None]
    return Score(
        first.system,
        first.model,
        name,
        first.pace,
        sum(s.seconds for s in scores),
        sum(s.speech_s for s in scores),
        sum((s.parts for s in scores), ()),
        sum((s.settled_s for s in scores), ()),
        sum((s.seen_s for s in scores), ()),
        sum(costs) if len(costs) == len(scores) else None,
        sum(s.skipped_s for s in scores),
    )


def row(score: Score) -> dict[str, Any]:
    """For JSON: rates as shares with the 95 % interval of a bootstrap over parts, delays in milliseconds."""
    rate = error_rate(score.parts)
    seen, settled = _percentiles(score.seen_s), _percentiles(score.settled_s)
    cost = score.cpu_s
    return {
        "system": score.system,
        "model": score.model,
        "recording": score.recording,
        "pace": score.pace,
        "seconds": round(score.seconds, 1),
        "words": rate.words,
        "errors": rate.errors,
        "wer": round(rate.rate, 4),
        "wer_low": round(rate.low, 4),
        "wer_high": round(rate.high, 4),
        "partial_p50_ms": seen[0],
        "partial_p95_ms": seen[1],
        "settled_p50_ms": settled[0],
        "settled_p95_ms": settled[1],
        "rtf": None if cost is None else round(cost / score.seconds, 3),
        "core_s_per_speech_minute": None if cost is None else round(cost / score.speech_s * 60, 1),
        "skipped_s": round(score.skipped_s, 1),
    }


def _percentiles(seconds: Sequence[float]) -> tuple[float | None, float | None]:
    if not seconds:
        return None, None
    p50, p95 = np.percentile(np.asarray(seconds) * 1e3, [50, 95])
    return round(float(p50)), round(float(p95))


HEAD = (
    f"{'system':26} {'model':8} {'recording':26} {'pace':10} {'WER':>6} {'95 %':>13} {'words':>5} "
    f"{'partial p50/p95':>16} {'settled p50/p95':>16} {'RTF':>6} {'core s/min':>10} {'skipped':>7}"
)


def table(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    """For people."""
    yield HEAD
    for r in rows:
        partial, settled = (
            "" if r[f"{kind}_p50_ms"] is None else f"{r[f'{kind}_p50_ms']:.0f}/{r[f'{kind}_p95_ms']:.0f} ms"
            for kind in ("partial", "settled")
        )
        cost = "" if r["rtf"] is None else f"{r['rtf']:6.3f} {r['core_s_per_speech_minute']:10.1f}"
        yield (
            f"{r['system']:26} {r['model']:8} {r['recording']:26} {r['pace']:10} {r['wer']:6.1%} "
            f"{r['wer_low']:6.1%}-{r['wer_high']:6.1%} {r['words']:5} {partial:>16} {settled:>16} "
            f"{cost:17} {r['skipped_s']:6.1f}s"
        )
