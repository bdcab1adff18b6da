"""Compare ECMF's head with its baselines and without its parts, on the same cues: python -m train.compare --data DIR

Every method is trained anew with every seed on synthetic pairs of the fitting people and measured on synthetic pairs
of other people: each allowed subset of cues, all cues with the stated share of conflicts, and muxspace's faces with
the frames they are in. Intervals are of the mean over seeds (Student's t), which vary the start, the pairs trained on
and the pairs tested; the people tested are the same.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecmf.cue import MODALITIES
from ecmf.engines.cache import cache_dir
from ecmf.errors import UsageError
from ecmf.labels import EKMAN
from train import command, corpora
from train.atomic import write_whole
from train.comparison import gains, table
from train.conditions import Data, conditions
from train.fit_head import FitOptions, contents, fingerprint
from train.methods import BASELINES, METHODS, UNTRAINED, Method, Predictor, serves, trained, untrained
from train.scores import scores, summary

log = logging.getLogger("train.compare")
VERSION = 1
"""Raise it when a method or what it is measured on changes, so that old figures are not gone on from."""
DRAWS = 4000
"""Synthetic pairs per condition and seed."""
CAVEAT = (
    "The pairs are synthetic: a face, a voice and a sentence of different people that share a label. Such cues are "
    "independent given the label, so the product of calibrated experts is the best that can be made of the branches' "
    "opinions; the head also reads embeddings. The table exercises fusion, it cannot show a real cross-modal gain."
)


def compare(
    data: Data,
    labels: int,
    prior: NDArray[np.float64],
    fit: FitOptions,
    *,
    seeds: int = 5,
    draws: int = DRAWS,
    methods: Sequence[Method] = METHODS,
    keep: Path | None = None,
) -> dict[str, Any]:
    """Weighted F1 of each method in each condition: {condition: {method: {mean, ci95, values}}}.

    keep: folder for what each seed gave, so that a killed comparison goes on with the next one.
    """
    found: dict[str, dict[str, list[float]]] = {}
    for seed in range(seeds):
        chosen = replace(fit, seed=seed)
        asked = [VERSION, fingerprint(data.fit, prior, chosen), fingerprint(data.test, prior, chosen), draws]
        asked.append(None if data.paired_face is None else contents(data.paired_face).hex())
        asked.append([method.name for method in methods])
        path = None if keep is None else keep / f"seed-{seed}.json"
        row = _kept(path, asked)
        if row is None:
            row = _measured(data, labels, prior, chosen, draws, methods)
            if path is not None:
                write_whole(path, json.dumps({"asked": asked, "found": row}).encode())
        for condition, values in row.items():
            for name, value in values.items():
                found.setdefault(condition, {}).setdefault(name, []).append(value)
        log.info("seed %d of %d measured", seed + 1, seeds)
    return {c: {name: summary(values) for name, values in row.items()} for c, row in found.items()}


def _kept(path: Path | None, asked: list[Any]) -> dict[str, dict[str, float]] | None:
    """What an earlier run measured, if it was asked the same."""
    if path is None or not path.is_file():
        return None
    try:
        stored = json.loads(path.read_text("utf-8"))
        return stored["found"] if stored["asked"] == asked else None
    except (ValueError, KeyError, TypeError):
        return None  # not ours: measured anew


def _measured(
    data: Data,
    labels: int,
    prior: NDArray[np.float64],
    fit: FitOptions,
    draws: int,
    methods: Sequence[Method],
) -> dict[str, dict[str, float]]:
    """One seed's scores."""
    rows: dict[str, Predictor] = untrained(data.fit, labels, prior)
    for method in methods:
        rows[method.name] = trained(method, data.fit, labels, prior, fit)
    return {
        condition: {
            name: float(scores(predict(batch), batch.target)["weighted_f1"])
            for name, predict in rows.items()
            if serves(name, subset)
        }
        for condition, (batch, subset) in conditions(
            data, labels, prior, fit.pairing, fit.seed, draws
        ).items()
    }


def load(data: Path, cache: Path, offline: bool) -> Data:
    """The pools that the shipped head is trained and measured on."""
    from train.fit_default import extract
    from train.pools import Extraction

    splits, muxspace_face = extract(Extraction(data, cache, offline))
    return Data(
        {m: split.fit for m, split in splits.items()},
        {m: split.test for m, split in splits.items()},
        muxspace_face.test,
    )


def parser() -> argparse.ArgumentParser:
    made = command.parser("compare", __doc__)
    made.add_argument("--data", type=Path, metavar="DIR", help="corpora (default: $ECMF_DATA)")
    made.add_argument(
        "--seeds", type=int, default=5, metavar="N", help="trainings of each method (default: 5)"
    )
    made.add_argument("--steps", type=int, metavar="N", help="in place of the recipe's")
    made.add_argument(
        "--out",
        type=Path,
        default=Path("runs/compare"),
        metavar="DIR",
        help="for compare.json, compare.md and what each seed gave; a killed comparison goes on there",
    )
    command.add(made, "--config", "--cache", "--offline")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    asked = parser().parse_args(arguments)

    def work() -> str:
        from train.fit_default import read_recipe

        root = corpora.root(asked.data)
        if asked.seeds < 1:
            raise UsageError(f"--seeds {asked.seeds}: at least 1; intervals need 2")
        recipe = read_recipe(asked.config or Path(__file__).parent / "recipes" / "default.toml")
        fit = recipe.fit if asked.steps is None else replace(recipe.fit, steps=asked.steps)
        command.writable("--out", asked.out)
        data = load(root, asked.cache or cache_dir() / "features", asked.offline)
        results = compare(data, len(EKMAN), np.array(recipe.prior), fit, seeds=asked.seeds, keep=asked.out)
        counts = {m: {"fit": len(data.fit[m]), "test": len(data.test[m])} for m in MODALITIES}
        others = [*BASELINES, "late average", "product of experts"]
        ahead, each = gains(results, "ecmf", others), gains(results, "ecmf", others, each=True)
        record = {
            "measure": "weighted F1",
            "seeds": asked.seeds,
            "steps": fit.steps,
            "pairs per condition": DRAWS,
            "cues": counts,
            "caveat": CAVEAT,
            "protocol": " ".join((__doc__ or "").split("\n\n")[1].split()),
            "results": results,
            "ecmf ahead of": ahead,
            "ecmf ahead of, each": each,
        }
        ablation = ["ecmf", *(m.name.removeprefix("ecmf, ") for m in METHODS[1 + len(BASELINES) :])]
        short = {c: {name.removeprefix("ecmf, "): v for name, v in row.items()} for c, row in results.items()}
        parts = (
            table(results, ["ecmf", *BASELINES, *UNTRAINED]),
            table(ahead, others, "ECMF ahead of, cues"),
            table(each, others, "ECMF ahead of"),
            table(short, ablation),
        )
        text = "\n\n".join((CAVEAT, *parts)) + "\n"
        write_whole(asked.out / "compare.json", (json.dumps(record, indent=1) + "\n").encode())
        write_whole(asked.out / "compare.md", text.encode())
        return text

    return command.carried_out(work)


if __name__ == "__main__":
    raise SystemExit(main())
