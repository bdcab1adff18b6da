"""Measure a text bundle on MELD: `python -m train.evaluate_text --meld PATH [--bundle DIR] [--json FILE]`.

The bundle runs as it does live: one utterance at a time, through its engine. Intervals redraw whole dialogues.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecmf.branches.text import TextBranch, softmax
from ecmf.bundle import SHIPPED, load_bundle
from ecmf.enrich import Enrichment
from ecmf.labels import EKMAN
from train import command
from train.atomic import write_whole
from train.datasets.meld import Line, read_meld
from train.scores import calibration_error
from train.text_examples import CONTEXTS, Context, Example, from_meld
from train.word_errors import corrupt, unpunctuated

log = logging.getLogger("train.evaluate_text")
ERROR_RATES = (0.1, 0.2, 0.3)


def run(
    branch: TextBranch,
    examples: Sequence[Example],
    context: Context,
    change: Callable[[str], str] = str,
    enrichments: Sequence[Enrichment | None] | None = None,
) -> tuple[NDArray[np.float32], list[float]]:
    """Logits float32[n, 7] and milliseconds per utterance. ``change`` alters the utterance and its history alike."""
    logits, times = [], []
    for number, example in enumerate(examples):
        history = [change(line) for line in example.history(context)]
        words = change(example.text)
        began = time.perf_counter()
        logits.append(branch.score(words, history, enrichments[number] if enrichments else None)[1])
        times.append((time.perf_counter() - began) * 1e3)
    return np.stack(logits), times


def weighted_f1(truth: NDArray[np.int64], predicted: NDArray[np.int64]) -> float:
    """Mean of the labels' F1, weighted by how often each label occurs: the measure MELD is reported in."""
    table = np.zeros((len(EKMAN), len(EKMAN)))
    np.add.at(table, (truth, predicted), 1)
    hits, asked, said = table.diagonal(), table.sum(1), table.sum(0)
    f1 = 2 * hits / np.maximum(asked + said, 1)
    return float((f1 * asked).sum() / asked.sum())


def interval(
    score: Callable[[NDArray[np.int64]], float], groups: Sequence[str], draws: int = 1000
) -> tuple[float, float]:
    """95 % interval of ``score(rows)`` over redrawn groups (dialogues), seed 0."""
    rng = np.random.default_rng(0)
    names, place = np.unique(np.asarray(groups), return_inverse=True)
    rows = [np.flatnonzero(place == k) for k in range(len(names))]
    drawn = (rng.integers(0, len(rows), len(rows)) for _ in range(draws))
    values = [score(np.concatenate([rows[k] for k in picks])) for picks in drawn]
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)


def measures(
    logits: NDArray[np.float32], temperature: float, lines: Sequence[Line], *, full: bool = False
) -> dict[str, Any]:
    """Weighted F1 with interval, accuracy, UAR and calibration error of logits float32[n, 7]."""
    truth = np.array([EKMAN.index(line.label) for line in lines])
    probs = softmax(logits / temperature)
    predicted = probs.argmax(1)
    recall = [float((predicted[truth == k] == k).mean()) for k in range(len(EKMAN))]
    result: dict[str, Any] = {
        "n": len(lines),
        "weighted_f1": weighted_f1(truth, predicted),
        "weighted_f1_95": interval(
            lambda r: weighted_f1(truth[r], predicted[r]), [x.dialogue for x in lines]
        ),
        "accuracy": float((predicted == truth).mean()),
        "uar": float(np.mean(recall)),
        "ece": calibration_error(probs, truth),
    }
    if full:
        table = np.zeros((len(EKMAN), len(EKMAN)), np.int64)
        np.add.at(table, (truth, predicted), 1)
        result |= {"recall": dict(zip(EKMAN, recall, strict=True)), "confusion": table.tolist()}
    return result


def evaluate(branch: TextBranch, lines: Sequence[Line], seed: int = 0) -> dict[str, Any]:
    """All settings of one split: each context, then words corrupted and unpunctuated with the speaker's own lines."""
    examples = from_meld(lines)
    temperature = float(branch.bundle.manifest.extra["temperature"])
    results: dict[str, Any] = {}
    for context in CONTEXTS:
        logits, times = run(branch, examples, context)
        results[context] = measures(logits, temperature, lines, full=True)
        results[context]["ms_p50"], results[context]["ms_p95"] = np.percentile(times, [50, 95]).tolist()
    vocabulary = [word for example in examples for word in example.text.split()]
    for rate in ERROR_RATES:
        rng = np.random.default_rng(seed)
        logits, _ = run(branch, examples, "own", lambda t, r=rate, g=rng: corrupt(t, r, vocabulary, g))  # type: ignore[misc]
        results[f"own, {rate:.0%} word errors"] = measures(logits, temperature, lines)
    logits, _ = run(branch, examples, "own", lambda text: unpunctuated(text) or text)
    results["own, no case or punctuation"] = measures(logits, temperature, lines)
    return results


def table(results: dict[str, Any]) -> str:
    """For people."""
    rows = [f"{'setting':30} {'wF1':>6} {'95 %':>15} {'acc':>6} {'UAR':>6} {'ECE':>6} {'p50 ms':>7}"]
    for name, r in results.items():
        low, high = r["weighted_f1_95"]
        ms = f"{r['ms_p50']:7.1f}" if "ms_p50" in r else ""
        rows.append(
            f"{name:30} {r['weighted_f1']:6.3f} [{low:.3f}, {high:.3f}] {r['accuracy']:6.3f} {r['uar']:6.3f} "
            f"{r['ece']:6.3f} {ms}"
        )
    return "\n".join(rows)


def main() -> int:
    parser = command.parser("evaluate_text", __doc__)
    parser.add_argument(
        "--meld", type=Path, required=True, metavar="PATH", help="MELD's folder or parquet file"
    )
    parser.add_argument(
        "--bundle", type=Path, default=SHIPPED / "text", metavar="DIR", help="default: the shipped one"
    )
    parser.add_argument(
        "--split", choices=("dev", "test"), default="test", help="of MELD (default: test, the headline)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results here, too")
    asked = parser.parse_args()

    def work() -> str:
        branch = TextBranch(load_bundle(asked.bundle))
        lines = [line for line in read_meld(asked.meld) if line.split == asked.split]
        results = evaluate(branch, lines)
        if asked.json:
            record = {"bundle": branch.bundle.id, "split": asked.split, "results": results}
            write_whole(asked.json, command.results(record).encode())
        return table(results)

    return command.carried_out(work)


if __name__ == "__main__":
    raise SystemExit(main())
