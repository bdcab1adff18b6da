"""What a language model adds to the text branch: `python bench/enrichment.py --meld PATH [--llm GGUF ...]`.

For each model: its answers to MELD's dev and test lines; how the scores count is fitted on dev, test is scored once.
Shown: weighted F1 of the text alone, of the model's scores alone, of both together and with the cue words in the
input, the gain with a 95 % interval over redrawn dialogues, and the time per utterance.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ecmf.branches.text import TextBranch, centred
from ecmf.bundle import SHIPPED, load_bundle, sha256_of
from ecmf.enrich import Enricher, Enrichment
from ecmf.errors import EcmfError
from ecmf.labels import EKMAN
from ecmf.weights import fetch
from train.calibrate_text import fit_scores
from train.datasets.meld import Line, read_meld, with_history
from train.evaluate_text import interval, run, weighted_f1
from train.text_examples import from_meld


def answers(
    model: Path, lines: Sequence[Line], history: int, cache: Path | None
) -> tuple[list[Enrichment], list[float]]:
    """The model's answer to each line after the speaker's last ``history`` lines, and milliseconds each."""
    stored = (
        cache / f"{sha256_of(model)[:12]}-{lines[0].split}-{len(lines)}-{history}.json" if cache else None
    )
    if stored and stored.is_file():
        record = json.loads(stored.read_text("utf-8"))
        found = [Enrichment(cues, np.array(scores, np.float32)) for cues, scores in record["answers"]]
        return found, record["ms"]
    enricher, found, times = Enricher(model), [], []
    for line, earlier in with_history(lines):
        own = [e.text for e in earlier if e.speaker == line.speaker][-history:] if history else []
        began = time.perf_counter()
        answer = enricher.enrich(line.text, own)
        times.append((time.perf_counter() - began) * 1e3)
        assert answer is not None  # nothing expires here
        found.append(answer)
    enricher.close()
    if stored:
        stored.parent.mkdir(parents=True, exist_ok=True)
        stored.write_text(
            json.dumps({"answers": [(a.cues, a.scores.tolist()) for a in found], "ms": times}), "utf-8"
        )
    return found, times


def measure(
    branch: TextBranch, model: Path, dev: list[Line], test: list[Line], history: int, cache: Path | None
) -> dict[str, Any]:
    """One model's row of the table."""
    truth = {s: np.array([EKMAN.index(x.label) for x in part]) for s, part in (("dev", dev), ("test", test))}
    base: dict[str, NDArray[np.float32]] = {}
    scores: dict[str, NDArray[np.float32]] = {}
    cued: dict[str, NDArray[np.float32]] = {}
    times: list[float] = []
    for name, part in (("dev", dev), ("test", test)):
        found, times = answers(model, part, history, cache)
        examples = from_meld(part)
        words = [Enrichment(a.cues, np.full(len(EKMAN), 1 / len(EKMAN), np.float32)) for a in found]
        base[name] = run(branch, examples, "own")[0]
        cued[name] = run(branch, examples, "own", enrichments=words)[0]
        scores[name] = np.stack([centred(a) for a in found])
    fitted = fit_scores(base["dev"], scores["dev"], truth["dev"], [line.dialogue for line in dev])
    settings = {
        "text alone": base["test"],
        "language model alone": scores["test"],
        "text + scores": base["test"] + scores["test"] @ fitted.matrix.T,
        "text + cue words in the input": cued["test"],
    }
    row: dict[str, Any] = {
        "model": model.name,
        "sha256": sha256_of(model),
        "history_lines": history,
        "ms_p50": float(np.percentile(times, 50)),
        "ms_p95": float(np.percentile(times, 95)),
        "dev_log_loss_gain": fitted.gain,
        "penalty": fitted.penalty,
        "dev_lines": len(dev),
        "test_lines": len(test),
        "test": {},
    }
    groups = [line.dialogue for line in test]
    alone = base["test"].argmax(1)
    for name, logits in settings.items():
        predicted = logits.argmax(1)

        def gain(rows: NDArray[np.int64], answer: NDArray[np.int64] = predicted) -> float:
            right = truth["test"][rows]
            return weighted_f1(right, answer[rows]) - weighted_f1(right, alone[rows])

        everything = np.arange(len(predicted))
        row["test"][name] = {
            "weighted_f1": weighted_f1(truth["test"], predicted),
            "gain": gain(everything),
            "gain_95": interval(gain, groups),
        }
    return row


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--meld", type=Path, required=True, help="MELD's folder or parquet file")
    parser.add_argument(
        "--llm", type=Path, action="append", help="a GGUF file, repeatable; SmolLM2-135M otherwise"
    )
    parser.add_argument("--bundle", type=Path, default=SHIPPED / "text")
    parser.add_argument(
        "--history", type=int, default=0, help="earlier lines of the speaker that the model reads"
    )
    parser.add_argument("--limit", type=int, help="first lines of each split only, for a quick look")
    parser.add_argument("--cache", type=Path, help="keep the models' answers in this folder")
    parser.add_argument("--json", type=Path, help="write the results here")
    arguments = parser.parse_args()
    try:
        branch = TextBranch(load_bundle(arguments.bundle))
        lines = read_meld(arguments.meld)
        dev, test = ([x for x in lines if x.split == split][: arguments.limit] for split in ("dev", "test"))
        rows = [
            measure(branch, model, dev, test, arguments.history, arguments.cache)
            for model in arguments.llm or [fetch("smollm2-135m")]
        ]
    except EcmfError as error:
        print(error)
        return error.exit_code
    for row in rows:
        print(f"{row['model']}: {row['ms_p50']:.0f} ms p50, {row['ms_p95']:.0f} ms p95 an utterance")
        print(f"  {row['dev_lines']} lines of dev to fit, {row['test_lines']} of test")
        print(f"  dev log-loss gained by the scores, held-out folds: {row['dev_log_loss_gain']:+.4f}")
        for name, result in row["test"].items():
            low, high = result["gain_95"]
            print(
                f"  {name:32} wF1 {result['weighted_f1']:.3f}  {result['gain']:+.3f} [{low:+.3f}, {high:+.3f}]"
            )
    if arguments.json:
        arguments.json.write_text(
            json.dumps({"bundle": branch.bundle.id, "rows": rows}, indent=1) + "\n", "utf-8"
        )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
