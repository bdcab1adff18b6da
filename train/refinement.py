"""Better labels from several sources (ECMF's multi-source labelling, arXiv 2508.05991, section 3.2).

The given labels, opinions from outside (models of other corpora, a language model) and models trained here on the
given labels, which judge only samples they were not trained on, are combined by what each is worth: the truth is
hidden, a source's confusion with it is estimated (Dawid & Skene 1979), and the models are trained again on the result.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from ecmf.errors import DataError, need
from train import command
from train.atomic import write_whole

Probs = NDArray[np.float32]
FLOOR = 1e-6
LEAST = 200
"""Samples below which a model trained on them says less than the sources do: no rounds then."""


@dataclass(frozen=True)
class Options:
    rounds: int = 3
    """Times that the models are trained again on the labels refined so far."""
    folds: int = 3
    epochs: int = 6
    hidden: int = 192
    trust: float = 0.6
    """Power of the outside opinions at the start: they come from other data and are less sure than they say."""
    seed: int = 0


@dataclass(frozen=True)
class Refined:
    soft: Probs
    """float32[n, labels]: how likely each label is, all sources together."""
    opinions: Mapping[str, Probs]
    """Per source float32[n, labels]; the given labels are one of them, as ones and zeros."""
    worth: NDArray[np.float64]
    """float64[labels, labels]: how often each true label (row) was given as each other one, as estimated."""
    suspicious: NDArray[np.bool_]
    """bool[n]: given labels that confident learning (cleanlab; Northcutt et al. 2021) takes for errors."""

    @property
    def label(self) -> NDArray[np.int64]:
        return self.soft.argmax(axis=1)


def refine(
    given: NDArray[np.int64],
    labels: Sequence[str],
    features: Mapping[str, NDArray[np.float32]],
    outside: Mapping[str, Probs],
    options: Options | None = None,
    groups: NDArray[np.str_] | None = None,
    tell: Callable[[str, Probs], None] = lambda what, soft: None,
) -> Refined:
    """Refine ``given`` int64[n], numbers in ``labels``.

    features: per modality float32[n, d]; they must not have been trained on better labels of these samples.
    outside: opinions float32[n, labels] of sources that did not see the given labels; rows of zeros: none.
    groups: str[n], people who must not be in two folds. ``tell(what, soft)`` hears of every stage.
    Raises DataError for features that are not finite or a label that nobody was given.
    """
    options = options or Options()
    count = len(labels)
    for name, values in features.items():
        if not np.isfinite(values).all():
            raise DataError(
                f"{name} features: row {int(np.argmin(np.isfinite(values).all(axis=1)))} is not finite"
            )
    for number in range(count):
        if not (given == number).any():
            raise DataError(f"no sample was given the label {labels[number]!r}; leave it out")
    hard = np.eye(count, dtype=np.float32)[given]
    fold = folds_of(len(given), options, groups)
    opinions: dict[str, Probs] = {"given": hard}
    for name, values in features.items():
        opinions[f"{name}, trained on the given labels"] = out_of_fold(values, hard, fold, options)
    opinions.update(outside)
    if outside:
        said = together(list(outside.values()))
        soft = posterior(said**options.trust, worth_of(said, given, count), given)
        tell("given and outside", soft)
    else:
        soft = dawid_skene(opinions, count)
        tell("Dawid-Skene over all sources", soft)
    shares = soft.mean(axis=0)
    judged = together(list(outside.values() if outside else opinions.values()))
    if len(given) >= LEAST:
        every = np.concatenate(list(features.values()), axis=1)
        for number in range(options.rounds):
            judged = out_of_fold(every, soft, fold, options)
            soft = keep_shares(posterior(judged, worth_of(soft, given, count), given), shares)
            tell(f"round {number + 1}", soft)
        opinions["all features, trained on the refined labels"] = judged
    filters = need("cleanlab.filter", "train")
    suspicious = filters.find_label_issues(given, np.maximum(judged, FLOOR), n_jobs=1)
    return Refined(soft, opinions, worth_of(soft, given, count), np.asarray(suspicious, bool))


def together(opinions: Sequence[Probs]) -> Probs:
    """Product of opinions that sum to 1 (rows of zeros say nothing), tempered to stay as sure as one of them."""
    logs = np.zeros(opinions[0].shape, np.float64)
    voices = np.zeros((len(logs), 1))
    for probs in opinions:
        speaks = probs.sum(axis=1, keepdims=True) > 0
        logs += np.where(speaks, np.log(np.maximum(probs, FLOOR)), 0)
        voices += speaks
    logs /= np.maximum(voices, 1)
    powers = np.exp(logs - logs.max(axis=1, keepdims=True))
    found: Probs = (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)
    return found


def worth_of(soft: Probs, given: NDArray[np.int64], count: int) -> NDArray[np.float64]:
    """float64[true, given]: the confusion of the given labels with the truth as ``soft`` has it."""
    table = np.ones((count, count))
    for number in range(count):
        table[number] += np.bincount(given, weights=soft[:, number], minlength=count)
    normal: NDArray[np.float64] = table / table.sum(axis=1, keepdims=True)
    return normal


def posterior(judged: Probs, worth: NDArray[np.float64], given: NDArray[np.int64]) -> Probs:
    """What an opinion becomes once the given label is known, by Bayes' rule."""
    joint = np.maximum(judged, FLOOR) * worth[:, given].T
    found: Probs = (joint / joint.sum(axis=1, keepdims=True)).astype(np.float32)
    return found


def keep_shares(soft: Probs, shares: NDArray[np.floating]) -> Probs:
    """Scale the columns until the labels are as frequent as ``shares`` says: repeated training would let them drift."""
    kept = soft.astype(np.float64)
    for _ in range(20):
        kept *= shares / np.maximum(kept.mean(axis=0), FLOOR)
        kept /= kept.sum(axis=1, keepdims=True)
    return kept.astype(np.float32)


def dawid_skene(opinions: Mapping[str, Probs], count: int) -> Probs:
    """Sources as annotators of different skill, combined by crowd-kit's Dawid-Skene."""
    pandas = need("pandas", "train")
    aggregation = need("crowdkit.aggregation", "train")
    votes = [
        pandas.DataFrame(
            {
                "task": np.flatnonzero(probs.sum(axis=1) > 0),
                "worker": name,
                "label": probs.argmax(axis=1)[probs.sum(axis=1) > 0],
            }
        )
        for name, probs in opinions.items()
    ]
    found = aggregation.DawidSkene(n_iter=100).fit_predict_proba(pandas.concat(votes))
    return found.sort_index().reindex(columns=range(count)).fillna(0.0).to_numpy(np.float32)


def folds_of(count: int, options: Options, groups: NDArray[np.str_] | None) -> NDArray[np.int64]:
    """Fold number of each sample; a group is in one fold."""
    rng = np.random.default_rng(options.seed)
    if groups is None:
        return rng.permutation(np.arange(count) % options.folds)
    names, inverse = np.unique(groups, return_inverse=True)
    return rng.permutation(np.arange(len(names)) % options.folds)[inverse]


def out_of_fold(
    features: NDArray[np.float32], soft: Probs, fold: NDArray[np.int64], options: Options
) -> Probs:
    """Probabilities float32[n, labels], each row from a model that was not trained on it; zeros for features that are
    all zero: a model of voices has no opinion of a clip without a voice."""
    found = np.zeros_like(soft)
    for number in np.unique(fold):
        held = fold == number
        model = classifier(features[~held], soft[~held], options, options.seed + int(number))
        found[held] = judge(model, features[held])
    found[~features.any(axis=1)] = 0
    return found


def classifier(features: NDArray[np.float32], soft: Probs, options: Options, seed: int) -> nn.Module:
    """A small network fitted to soft labels; features are scaled by what it sees of them."""
    torch.manual_seed(seed)
    mean, scale = features.mean(0), 1 / np.maximum(features.std(0), 1e-3 * features.std() + 1e-8)
    model = nn.Sequential(
        _Scale(mean, scale),
        nn.Dropout(0.2),
        nn.Linear(features.shape[1], options.hidden),
        nn.GELU(),
        nn.Dropout(0.4),
        nn.Linear(options.hidden, soft.shape[1]),
    )
    batch = min(256, max(8, len(features) // 8))
    steps = max(200, options.epochs * (len(features) // batch))
    optimiser = torch.optim.AdamW(model.parameters(), 3e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, steps)
    rng = np.random.default_rng(seed)
    x, y = torch.from_numpy(np.ascontiguousarray(features)), torch.from_numpy(soft)
    order = np.zeros(0, np.int64)
    model.train()
    for _ in range(steps):
        if len(order) < batch:
            order = np.concatenate([order, rng.permutation(len(features))])
        rows, order = torch.from_numpy(order[:batch]), order[batch:]
        loss = functional.cross_entropy(model(x[rows]), y[rows])
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
    return model.eval()


class _Scale(nn.Module):
    def __init__(self, mean: NDArray[np.float32], scale: NDArray[np.float32]) -> None:
        super().__init__()
        self.mean, self.scale = torch.from_numpy(mean), torch.from_numpy(scale.astype(np.float32))

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return (values - self.mean) * self.scale


@torch.no_grad()
def judge(model: nn.Module, features: NDArray[np.float32]) -> Probs:
    """float32[n, labels]."""
    parts = [
        torch.softmax(model(torch.from_numpy(np.ascontiguousarray(features[i : i + 4096]))), dim=1)
        for i in range(0, len(features), 4096)
    ]
    return torch.cat(parts).numpy()


def write_audit(
    folder: Path, refined: Refined, names: Sequence[str], labels: Sequence[str]
) -> dict[str, Any]:
    """``audit.csv``, a row per sample: what it was, what it is, whose opinions led there; ``summary.json``."""
    given, label = refined.opinions["given"].argmax(axis=1), refined.label
    others = {name: probs for name, probs in refined.opinions.items() if name != "given"}
    content = io.StringIO()
    writer = csv.writer(content)
    writer.writerow(["name", "given", "refined", "changed", "probability", "suspicious", "why", *labels])
    for row, name in enumerate(names):
        for_it = [
            f"{who} ({p[row, label[row]]:.2f})"
            for who, p in others.items()
            if p[row].any() and p[row].argmax() == label[row]
        ]
        against = [
            f"{who}: {labels[p[row].argmax()]}"
            for who, p in others.items()
            if p[row].any() and p[row].argmax() != label[row]
        ]
        changed = bool(given[row] != label[row])
        why = "; ".join(
            (["for it: " + ", ".join(for_it)] if for_it else [])
            + (["against: " + ", ".join(against)] if against else [])
        )
        writer.writerow([
            name, labels[given[row]], labels[label[row]], int(changed), f"{refined.soft[row].max():.3f}",
            int(refined.suspicious[row]), why, *(f"{p:.4f}" for p in refined.soft[row]),
        ])  # fmt: skip
    write_whole(folder / "audit.csv", content.getvalue().encode())
    moved = np.zeros((len(labels), len(labels)), np.int64)
    np.add.at(moved, (given, label), 1)
    summary: dict[str, Any] = {
        "samples": len(names),
        "changed": int((given != label).sum()),
        "suspicious": int(refined.suspicious.sum()),
        "labels": list(labels),
        "from_given_to_refined": moved.tolist(),
        "given_by_truth": refined.worth.round(3).tolist(),
        "agreement_with_refined": {
            who: round(float((p.argmax(axis=1) == label).mean()), 4) for who, p in refined.opinions.items()
        },
    }
    write_whole(folder / "summary.json", command.results(summary).encode())
    return summary
