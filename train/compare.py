"""Compare ECMF's head with its baselines and without its parts, on the same cues: python -m train.compare.

Every method is trained anew with every seed on synthetic pairs of the fitting people and measured on synthetic pairs
of other people: each allowed subset of cues, all cues with the stated share of conflicts, and muxspace's faces with
the frames they are in. Intervals are of the mean over seeds (Student's t), which vary the start, the pairs trained on
and the pairs tested; the people tested are the same.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ecmf.cue import MODALITIES, Modality
from ecmf.engines.cache import cache_dir
from ecmf.errors import EcmfError, UsageError
from ecmf.fusion import EcmfHead, HeadOptions
from ecmf.labels import EKMAN
from train import baselines
from train.descent import descend
from train.evaluate_head import CONFLICTS, DRAWS, own_priors, product_of_experts, really_paired, scores
from train.fit_head import FitOptions, start, subsets, tensors
from train.pairing import TRUST, Batch, PairingOptions, Pool, draw

log = logging.getLogger("train.compare")
CAVEAT = (
    "The pairs are synthetic: a face, a voice and a sentence of different people that share a label. Such cues are "
    "independent given the label, so the product of calibrated experts is the best that any head can do; the table "
    "exercises fusion, it cannot show a real cross-modal gain."
)
Probs = NDArray[np.float64]
Predictor = Callable[[Batch], Probs]


@dataclass(frozen=True)
class Method:
    """One row of the table."""

    name: str
    make: Callable[[Mapping[str, int], int, HeadOptions], nn.Module]
    options: Callable[[HeadOptions], HeadOptions] = lambda options: options
    everything: bool = False
    """Trained with all cues present: no modality dropout."""
    without: Modality | None = None
    """A modality hidden in training and in measuring."""


METHODS = (
    Method("ecmf", EcmfHead),
    Method("mer2025 attention", baselines.MerAttention),
    Method("concatenation", baselines.Concatenation),
    Method("ecmf, no attention", EcmfHead, lambda o: replace(o, attention=False)),
    Method("ecmf, no residual", EcmfHead, lambda o: replace(o, residual=False)),
    Method("ecmf, no modality dropout", EcmfHead, everything=True),
    *(Method(f"ecmf, without {m}", EcmfHead, without=m) for m in MODALITIES),
)
UNTRAINED = ("product of experts", "late average", *(f"{m} alone" for m in TRUST))


@dataclass(frozen=True)
class Data:
    """Pools of people to fit on and of others to measure on."""

    fit: Mapping[Modality, Pool]
    test: Mapping[Modality, Pool]
    paired_face: Pool | None = None
    """Faces in the rows of test["scene"]: the one source where two cues belong together."""


def compare(
    data: Data,
    labels: int,
    prior: NDArray[np.float64],
    fit: FitOptions,
    *,
    seeds: int = 5,
    draws: int = DRAWS,
    methods: Sequence[Method] = METHODS,
) -> dict[str, Any]:
    """Weighted F1 (and accuracy) of each method in each condition: {condition: {method: {mean, ci95, values}}}."""
    own = own_priors(data.fit, labels)
    found: dict[str, dict[str, list[float]]] = {}
    for seed in range(seeds):
        conditions = dict(_conditions(data, labels, prior, fit.pairing, seed, draws))
        rows: dict[str, Predictor] = {
            "product of experts": lambda b: product_of_experts(b, prior, own),
            "late average": lambda b: baselines.late_average(b, prior, own),
            **{f"{m} alone": _single(m, prior, own) for m in TRUST if m in own},
        }
        for method in methods:
            rows[method.name] = _trained(method, data, labels, prior, replace(fit, seed=seed))
        for condition, (batch, subset) in conditions.items():
            for name, predict in rows.items():
                if name.endswith(" alone") and name.removesuffix(" alone") not in subset:
                    continue
                if name.endswith(tuple(f"without {m}" for m in MODALITIES)):
                    left = subset - {name.rsplit(" ", 1)[1]}
                    if not left & set(TRUST):
                        continue
                score = scores(predict(batch), batch.target)["weighted_f1"]
                found.setdefault(condition, {}).setdefault(name, []).append(score)
        log.info("seed %d of %d measured", seed + 1, seeds)
    return {c: {name: summary(values) for name, values in row.items()} for c, row in found.items()}


def _single(
    modality: Modality, prior: NDArray[np.float64], own: Mapping[Modality, NDArray[np.float64]]
) -> Predictor:
    return lambda batch: baselines.single(batch, modality, prior, own)


def _trained(
    method: Method, data: Data, labels: int, prior: NDArray[np.float64], fit: FitOptions
) -> Predictor:
    dims: dict[str, int] = {m: data.fit[m].embedding.shape[1] for m in MODALITIES}
    torch.manual_seed(fit.seed)
    head = method.make(dims, labels, method.options(fit.head))
    if isinstance(head, EcmfHead):
        start(head, data.fit, prior, fit.pairing)

    def sample(rng: np.random.Generator) -> tuple[dict[str, Tensor], Tensor]:
        subset = frozenset(MODALITIES) if method.everything else None
        return tensors(
            hide(
                draw(data.fit, labels, fit.batch, rng, fit.pairing, prior=prior, subset=subset),
                method.without,
            )
        )

    descend(head, sample, fit, what=f"{method.name}, seed {fit.seed}")

    def predict(batch: Batch) -> Probs:
        inputs, _ = tensors(hide(batch, method.without, drop=False))
        with torch.no_grad():
            logits, _ = head(**inputs)
        probs: Probs = torch.softmax(logits.double(), dim=1).numpy()
        return probs

    return predict


def hide(batch: Batch, modality: Modality | None, *, drop: bool = True) -> Batch:
    """The batch without one modality; with ``drop`` also without the samples that had nothing else to go by."""
    if modality is None:
        return batch
    keep = np.array([m != modality for m in MODALITIES], np.float32)
    quality = batch.quality * keep
    rows = (quality[:, [MODALITIES.index(m) for m in TRUST]] > 0).any(axis=1) | (not drop)
    cues = {m: (cue if m != modality else np.zeros_like(cue))[rows] for m, cue in batch.cues.items()}
    log_probs = batch.log_probs * keep[:, None]
    return Batch(cues, log_probs[rows], quality[rows], batch.target[rows])


def _conditions(
    data: Data, labels: int, prior: NDArray[np.float64], pairing: PairingOptions, seed: int, draws: int
) -> list[tuple[str, tuple[Batch, frozenset[Modality]]]]:
    """What is measured: (name, (batch, modalities present))."""
    clean = PairingOptions(conflict=0.0, noise=0.0, faded=0.0, scene=1.0)
    everything = frozenset(MODALITIES)
    found = []
    for number, subset in enumerate(subsets()):
        rng = np.random.default_rng((seed, 77, number))
        batch = draw(data.test, labels, draws, rng, clean, prior=prior, subset=subset)
        found.append(("+".join(m for m in MODALITIES if m in subset), (batch, subset)))
    for number, share in enumerate(sorted({pairing.conflict, *CONFLICTS})):
        rng = np.random.default_rng((seed, 78, number))
        stated = replace(clean, conflict=share, conflict_neutral=pairing.conflict_neutral)
        batch = draw(data.test, labels, draws, rng, stated, prior=prior, subset=everything)
        found.append((f"conflict {share:.0%}", (batch, everything)))
    face, scene = data.paired_face, data.test["scene"]
    if face is not None:
        sizes = {m: data.test[m].embedding.shape[1] for m in MODALITIES}
        for name, shown in (("face", False), ("face+scene", True)):
            batch = really_paired(face, scene, sizes, labels, shown=shown)
            found.append((f"muxspace: {name}", (batch, frozenset({"face", "scene"} if shown else {"face"}))))  # type: ignore[arg-type]
    return found


def summary(values: Sequence[float]) -> dict[str, Any]:
    """Mean and half a 95 % interval of the mean (Student's t); the interval is None for a single value."""
    from scipy.stats import t

    count = len(values)
    spread = float(np.std(values, ddof=1)) if count > 1 else 0.0
    half = float(t.ppf(0.975, count - 1)) * spread / count**0.5 if count > 1 else None
    return {
        "mean": round(float(np.mean(values)), 4),
        "ci95": None if half is None else round(half, 4),
        "values": list(values),
    }


def gains(
    results: Mapping[str, Mapping[str, Mapping[str, Any]]], of: str, over: Sequence[str]
) -> dict[str, dict[str, dict[str, Any]]]:
    """How far ``of`` is ahead of each of ``over``, seed by seed, by how many of face, voice and text are missing:
    {missing: {method: summary of the differences}}. Pairing by seed leaves out what the draws have in common."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for missing in range(len(TRUST)):
        names = [c for c in results if set(c.split("+")) <= set(MODALITIES)]
        chosen = [c for c in names if len(set(TRUST) & set(c.split("+"))) == len(TRUST) - missing]
        for other in over:
            rows = [(results[c][of]["values"], results[c][other]["values"]) for c in chosen]
            differences = np.mean([np.subtract(ours, theirs) for ours, theirs in rows], axis=0)
            found.setdefault(f"{missing} missing", {})[other] = summary(differences.tolist())
    return found


def table(
    results: Mapping[str, Mapping[str, Mapping[str, Any]]], names: Sequence[str], corner: str = "cues"
) -> str:
    """For people: a line per condition, weighted F1 in percent, mean and interval."""

    def cell(row: Mapping[str, Mapping[str, Any]], name: str) -> str:
        if name not in row:
            return ""
        found = row[name]
        interval = "" if found["ci95"] is None else f" ± {100 * found['ci95']:.1f}"
        return f"{100 * found['mean']:.1f}{interval}"

    lines = [f"| {corner} | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    lines += [
        f"| {condition} | " + " | ".join(cell(row, name) for name in names) + " |"
        for condition, row in results.items()
    ]
    return "\n".join(lines)


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
    made = argparse.ArgumentParser(
        prog="python -m train.compare",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--data", type=Path, metavar="DIR", help="corpora (default: $ECMF_DATA)")
    made.add_argument(
        "--cache", type=Path, metavar="DIR", help="extracted features (default: features/ in the cache)"
    )
    made.add_argument(
        "--config", type=Path, metavar="FILE", help="recipe (default: train/recipes/default.toml)"
    )
    made.add_argument(
        "--seeds", type=int, default=5, metavar="N", help="trainings of each method (default: 5)"
    )
    made.add_argument("--steps", type=int, metavar="N", help="in place of the recipe's")
    made.add_argument(
        "--out", type=Path, default=Path("runs/compare"), metavar="DIR", help="compare.json and compare.md"
    )
    made.add_argument("--offline", action="store_true", help="never fetch weights")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    asked = parser().parse_args(arguments)
    logging.basicConfig(
        level=logging.WARNING, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr
    )
    logging.getLogger("train").setLevel(logging.INFO)
    try:
        from train.fit_default import read_recipe

        root = asked.data or (Path(os.environ["ECMF_DATA"]) if os.environ.get("ECMF_DATA") else None)
        if root is None:
            raise UsageError("where is the data? Give --data DIR or set ECMF_DATA")
        if asked.seeds < 1:
            raise UsageError(f"--seeds {asked.seeds}: at least 1; intervals need 2")
        recipe = read_recipe(asked.config or Path(__file__).parent / "recipes" / "default.toml")
        fit = recipe.fit if asked.steps is None else replace(recipe.fit, steps=asked.steps)
        data = load(root, asked.cache or cache_dir() / "features", asked.offline)
        results = compare(data, len(EKMAN), np.array(recipe.prior), fit, seeds=asked.seeds)
    except EcmfError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    counts = {m: {"fit": len(data.fit[m]), "test": len(data.test[m])} for m in MODALITIES}
    ahead = gains(results, "ecmf", [*(m.name for m in METHODS[1:3]), "product of experts"])
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
    }
    first = ["ecmf", *(m.name for m in METHODS[1:3]), *UNTRAINED]
    ablation = ["ecmf", *(m.name.removeprefix("ecmf, ") for m in METHODS[3:])]
    short = {c: {name.removeprefix("ecmf, "): v for name, v in row.items()} for c, row in results.items()}
    parts = (
        table(results, first),
        table(ahead, list(ahead["0 missing"]), "ECMF ahead of"),
        table(short, ablation),
    )
    text = "\n\n".join((CAVEAT, *parts)) + "\n"
    asked.out.mkdir(parents=True, exist_ok=True)
    (asked.out / "compare.json").write_text(json.dumps(record, indent=1) + "\n", "utf-8")
    (asked.out / "compare.md").write_text(text, "utf-8")
    print(text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
