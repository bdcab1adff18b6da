"""What a language model adds to the text branch: `python bench/enrichment.py --meld PATH [--llm GGUF ...]`.

For each model: its answers to MELD's dev and test lines. How much context the model reads and how its scores count is
chosen on dev, by log-loss over held-out folds of dialogues; test is scored once. Shown: weighted F1, log-loss and
calibration of the text alone, of the model's scores alone, of both together and with the cue words in the input, the
gains with 95 % intervals over redrawn dialogues, and the processor time per utterance.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench import results
from ecmf.branches.text import TextBranch, centred, softmax
from ecmf.bundle import SHIPPED, load_bundle, sha256_of
from ecmf.enrich import Enricher, Enrichment
from ecmf.errors import EcmfError
from ecmf.labels import EKMAN
from ecmf.weights import fetch
from train.calibrate_text import fit_scores
from train.datasets.meld import Line, read_meld, with_history
from train.evaluate_text import interval, run, weighted_f1
from train.scores import calibration_error
from train.text_examples import from_meld


class OutOfTime(EcmfError):
    """The run stops where it is; with the same ``--cache`` the next one goes on from there."""


def answers(
    model: Path, lines: Sequence[Line], history: int, cache: Path | None, until: float = math.inf
) -> tuple[list[Enrichment], list[float]]:
    """The model's answer to each line after the speaker's last ``history`` lines, and milliseconds each.

    With ``cache``, a folder, every answer is kept there as it comes. Raises OutOfTime at ``until`` (perf_counter).
    """
    kept = cache / f"{sha256_of(model)[:12]}-{lines[0].split}-{history}.jsonl" if cache else None
    if kept:
        kept.parent.mkdir(parents=True, exist_ok=True)
    stored = kept.read_text("utf-8").splitlines() if kept and kept.is_file() else []
    rows = [json.loads(row) for row in stored[: len(lines)]]
    if len(rows) < len(lines):
        enricher = Enricher(model)
        for line, earlier in itertools.islice(with_history(lines), len(rows), None):
            if time.perf_counter() > until:
                raise OutOfTime(
                    f"{len(rows)} of {len(lines)} lines of {line.split} are read; run it again with the same "
                    "--cache to go on"
                )
            own = [e.text for e in earlier if e.speaker == line.speaker][-history:] if history else []
            began, began_cpu = time.perf_counter(), time.process_time()
            answer = enricher.enrich(line.text, own)
            spent = time.perf_counter() - began, time.process_time() - began_cpu
            assert answer is not None  # nothing expires here
            rows.append([answer.cues, answer.scores.tolist(), *(seconds * 1e3 for seconds in spent)])
            if kept:
                with kept.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(rows[-1]) + "\n")
        enricher.close()
    found = [Enrichment(cues, np.array(scores, np.float32)) for cues, scores, _, _ in rows]
    return found, [cpu for _, _, _, cpu in rows]


def measure(
    branch: TextBranch,
    model: Path,
    dev: list[Line],
    test: list[Line],
    histories: Sequence[int],
    cache: Path | None,
    until: float,
) -> dict[str, Any]:
    """One model's part of the table: everything is chosen on dev, test is scored once with the choice."""
    truth = {s: np.array([EKMAN.index(x.label) for x in part]) for s, part in (("dev", dev), ("test", test))}
    temperature = float(branch.bundle.manifest.extra["temperature"])
    base = {
        s: run(branch, from_meld(part), "own")[0] / temperature for s, part in (("dev", dev), ("test", test))
    }
    dialogues = [line.dialogue for line in dev]
    fits, found, cued = {}, {}, {}
    for history in histories:
        found[history], _ = answers(model, dev, history, cache, until)
        scores = np.stack([centred(a) for a in found[history]])
        fits[history] = fit_scores(base["dev"], scores, truth["dev"], dialogues)
        logits = _with_cues(branch, dev, found[history]) / temperature
        cued[history] = log_loss(base["dev"], truth["dev"]) - log_loss(logits, truth["dev"])
    history = max(fits, key=lambda h: (fits[h].gain, -h))
    fit = fits[history]
    told, times = answers(model, test, history, cache, until)
    scores = np.stack([centred(a) for a in told])
    settings = {
        "text alone": base["test"],
        "language model alone": scores,
        "text + scores": base["test"] + scores @ fit.matrix.T,
        "text + cue words in the input": _with_cues(branch, test, told) / temperature,
    }
    groups = [line.dialogue for line in test]
    return {
        "model": model.name,
        "sha256": sha256_of(model),
        "dev_lines": len(dev),
        "test_lines": len(test),
        "dev_log_loss_gain_scores": {str(h): f.gain for h, f in fits.items()},
        "dev_log_loss_gain_cues": {str(h): gain for h, gain in cued.items()},
        "history_lines": history,
        "penalty": fit.penalty,
        "cpu_ms_p50": float(np.percentile(times, 50)),
        "cpu_ms_p95": float(np.percentile(times, 95)),
        "test": {
            name: compared(base["test"], logits, truth["test"], groups) for name, logits in settings.items()
        },
    }


def _with_cues(branch: TextBranch, lines: Sequence[Line], found: Sequence[Enrichment]) -> NDArray[np.float32]:
    """Logits with the cue words before the context, the scores left out."""
    even = np.full(len(EKMAN), 1 / len(EKMAN), np.float32)
    words = [Enrichment(a.cues, even) for a in found]
    return run(branch, from_meld(lines), "own", enrichments=words)[0]


def log_loss(logits: NDArray[np.floating], truth: NDArray[np.int64]) -> float:
    """Mean over the rows of logits float[n, labels]."""
    return float(-np.log(softmax(np.asarray(logits, np.float32))[np.arange(len(truth)), truth]).mean())


def compared(
    base: NDArray[np.floating], logits: NDArray[np.floating], truth: NDArray[np.int64], groups: Sequence[str]
) -> dict[str, Any]:
    """Figures of ``logits``, and their gains over ``base`` with 95 % intervals of a paired bootstrap over dialogues."""
    alone, predicted = base.argmax(1), logits.argmax(1)

    def gain(rows: NDArray[np.int64]) -> float:
        return weighted_f1(truth[rows], predicted[rows]) - weighted_f1(truth[rows], alone[rows])

    def loss_gain(rows: NDArray[np.int64]) -> float:
        return log_loss(base[rows], truth[rows]) - log_loss(logits[rows], truth[rows])

    everything = np.arange(len(truth))
    return {
        "weighted_f1": weighted_f1(truth, predicted),
        "gain": gain(everything),
        "gain_95": interval(gain, groups),
        "log_loss": log_loss(logits, truth),
        "log_loss_gain": loss_gain(everything),
        "log_loss_gain_95": interval(loss_gain, groups),
        "ece": calibration_error(softmax(np.asarray(logits, np.float32)), truth),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--meld", type=Path, required=True, help="MELD's folder or parquet file")
    parser.add_argument(
        "--llm", type=Path, action="append", help="a GGUF file, repeatable; SmolLM2-135M otherwise"
    )
    parser.add_argument("--bundle", type=Path, default=SHIPPED / "text")
    parser.add_argument(
        "--history",
        type=int,
        nargs="+",
        default=[0, 4],
        metavar="N",
        help="earlier lines of the speaker that the model reads; the best on dev is taken (0 4)",
    )
    parser.add_argument("--limit", type=int, help="first lines of each split only, for a quick look")
    parser.add_argument("--cache", type=Path, help="keep the models' answers in this folder")
    parser.add_argument(
        "--seconds", type=float, default=math.inf, help="stop asking after that long; --cache lets it go on"
    )
    parser.add_argument("--json", type=Path, help="write the results here")
    options = parser.parse_args()
    until = time.perf_counter() + options.seconds
    try:
        branch = TextBranch(load_bundle(options.bundle))
        lines = read_meld(options.meld)
        dev, test = ([x for x in lines if x.split == split][: options.limit] for split in ("dev", "test"))
        rows = [
            measure(branch, model, dev, test, options.history, options.cache, until)
            for model in options.llm or [fetch("smollm2-135m")]
        ]
    except EcmfError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print(*table(rows), sep="\n")
    if options.json:
        told = {"history": options.history, "limit": options.limit}
        figures = {"bundle": branch.bundle.id, **flat(rows)}
        results.save(options.json, results.record("enrichment", told, figures))
    return 0


def flat(rows: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """The same as tables: one row a model, and one a model and setting."""
    models: list[dict[str, Any]] = []
    settings: list[dict[str, Any]] = []
    for row in rows:
        model = {key: value for key, value in row.items() if not isinstance(value, dict)}
        for kind in ("scores", "cues"):
            for history, gain in row[f"dev_log_loss_gain_{kind}"].items():
                model[f"dev_log_loss_gain_{kind}_{history}_lines"] = round(gain, 5)
        models.append(model)
        for name, result in row["test"].items():
            flattened: dict[str, Any] = {"model": row["model"], "setting": name}
            for key, value in result.items():
                if isinstance(value, tuple | list):
                    key = key.removesuffix("_95")
                    flattened[f"{key}_low"], flattened[f"{key}_high"] = (round(v, 5) for v in value)
                else:
                    flattened[key] = round(value, 5)
            settings.append(flattened)
    return {"models": models, "test": settings}


def table(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    """For people."""
    for row in rows:
        yield f"{row['model']}: {row['cpu_ms_p50']:.0f} ms p50, {row['cpu_ms_p95']:.0f} ms p95 of one core an utterance"
        yield f"  chosen on {row['dev_lines']} lines of dev: {row['history_lines']} lines of history"
        for kind in ("scores", "cues"):
            gains = ", ".join(f"{g:+.4f} ({h})" for h, g in row[f"dev_log_loss_gain_{kind}"].items())
            yield f"  log-loss gained on dev by {kind} (lines of history): {gains}"
        for name, result in row["test"].items():
            low, high = result["gain_95"]
            less, more = result["log_loss_gain_95"]
            yield (
                f"  {name:30} wF1 {result['weighted_f1']:.3f}  {result['gain']:+.3f} [{low:+.3f}, {high:+.3f}]"
                f"  log-loss gain {result['log_loss_gain']:+.4f} [{less:+.4f}, {more:+.4f}]  ECE {result['ece']:.3f}"
            )


if __name__ == "__main__":
    raise SystemExit(main())
