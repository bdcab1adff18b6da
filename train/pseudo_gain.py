"""What pseudo-labels are worth: half of the labels are hidden, guessed again, and the same model is trained with the
seen half, with the guesses too, and with all labels; other people judge."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from train import pseudo_labels, refinement
from train.pseudo_labels import Data, Guessed, Options, Tell
from train.pseudo_rounds import kept, rounds
from train.refinement import Probs
from train.scores import scores, summary

METRICS = ("accuracy", "weighted_f1", "uar")
RESAMPLED = 2000


@dataclass(frozen=True)
class Judges:
    """Samples that are only measured on."""

    features: Mapping[str, NDArray[np.floating]]
    target: NDArray[np.int64]
    groups: NDArray[np.str_]
    """People; each sample its own where nobody knows."""

    @property
    def parts(self) -> tuple[NDArray[Any], ...]:
        """All that a measurement depends on."""
        return (self.target, *(np.asarray(self.features[name]) for name in self.features))


@dataclass(frozen=True)
class Case:
    """Samples that all have a label, as ``Data`` has them, and the samples that judge."""

    features: Mapping[str, NDArray[np.floating]]
    outside: Mapping[str, Probs]
    given: NDArray[np.int64]
    labels: tuple[str, ...]
    groups: NDArray[np.str_] | None
    judges: Judges


def hide(case: Case, share: float, seed: int) -> Data:
    """The same samples without the labels of ``share`` of them, whole people at a time where they are known."""
    rng = np.random.default_rng((seed, 17))
    groups = np.arange(len(case.given)).astype(str) if case.groups is None else case.groups
    names = rng.permutation(np.unique(groups))
    hidden = np.isin(groups, names[: round(share * len(names))])
    given = np.where(hidden, -1, case.given)
    return Data(case.features, case.outside, given, case.labels, case.groups)


def measure(
    data: Case, options: Options, out: Path, *, seeds: int, share: float, tell: Tell
) -> dict[str, Any]:
    """Gain over the seen labels alone, mean and 95 % interval over ``seeds`` hidings (Student's t), and of the accuracy
    over resampled people (bootstrap). Finished seeds are kept in ``out``.
    """
    judges = data.judges
    found, right = [], []
    for time in range(seeds):
        seed = 1000 * options.training.seed + time
        with_seed = replace(options, training=replace(options.training, seed=100 * seed))
        case = hide(data, share, seed)
        folder = out / f"hidden-{time}"
        make = partial(_one, case, data.given, judges, with_seed, folder, tell)
        one = kept(folder.with_suffix(".npz"), (case, data.given, with_seed, *judges.parts), make)
        found.append({name: float(one[name]) for name in one if one[name].ndim == 0})
        right.append({name: one[f"right {name}"] for name in ("seen", "guessed", "all")})
        tell(
            f"hiding {time + 1} of {seeds}: {found[-1]['seen accuracy']:.4f} with the seen labels, "
            f"{found[-1]['guessed accuracy']:.4f} with guesses, {found[-1]['all accuracy']:.4f} with all"
        )
    report: dict[str, Any] = {"hidden": share, "seeds": seeds, "tested": len(judges.target)}
    for metric in METRICS:
        report[metric] = {
            name: summary([f[f"{name} {metric}"] for f in found]) for name in ("seen", "guessed", "all")
        }
        report[metric]["gain"] = summary([f[f"guessed {metric}"] - f[f"seen {metric}"] for f in found])
    gain = np.mean([r["guessed"].astype(float) - r["seen"] for r in right], axis=0)
    report["accuracy"]["gain"]["bootstrap95"] = _resampled(gain, judges.groups)
    for name, called in (("accepted",) * 2, ("accepted right",) * 2, ("hidden", "hidden samples")):
        known = [
            f[name] for f in found if np.isfinite(f[name])
        ]  # nothing accepted: nobody knows how often right
        report[called] = summary(known) if known else None
    return report


def _one(
    case: Data, truth: NDArray[np.int64], judges: Judges, options: Options, folder: Path, tell: Tell
) -> dict[str, Any]:
    last = rounds(case, options, folder, tell)[-1]
    count = len(case.labels)
    hard = np.eye(count, dtype=np.float32)
    known, accepted = case.known, case.unknown[last.accepted]
    everybody = np.concatenate([known, case.unknown])
    trained: Mapping[str, tuple[NDArray[np.int64], Any]] = {
        "seen": (known, hard[truth[known]]),
        "guessed": (
            np.concatenate([known, accepted]),
            np.concatenate([hard[truth[known]], last.soft[last.accepted]]),
        ),
        "all": (everybody, hard[truth[everybody]]),
    }
    found: dict[str, Any] = {
        "accepted": np.array(last.accepted.mean()),
        "accepted right": np.array(_right(last, truth[case.unknown])),
        "hidden": np.array(len(case.unknown)),
    }
    features = list(case.features.values())
    rows = np.arange(len(judges.target))
    for name, (where, target) in trained.items():
        values = pseudo_labels.rows_of(features, where)
        model = refinement.classifier(values, target, options.training, options.training.seed + 50)
        probs = pseudo_labels.judged(model, list(judges.features.values()), rows).astype(np.float64)
        row = scores(probs, judges.target)
        found |= {f"{name} {metric}": np.array(row[metric]) for metric in METRICS}
        found[f"right {name}"] = probs.argmax(axis=1) == judges.target
    return found


def _right(found: Guessed, truth: NDArray[np.int64]) -> float:
    """Share of the accepted guesses that are right; NaN without any."""
    if not found.accepted.any():
        return float("nan")
    return float((found.label == truth)[found.accepted].mean())


def _resampled(gain: NDArray[np.float64], groups: NDArray[np.str_]) -> list[float]:
    """95 % interval of the mean over people who are drawn with replacement."""
    _, inverse = np.unique(groups, return_inverse=True)
    total, size = np.bincount(inverse, gain), np.bincount(inverse)
    rng = np.random.default_rng(0)
    drawn = rng.integers(0, len(size), (RESAMPLED, len(size)))
    means = total[drawn].sum(axis=1) / size[drawn].sum(axis=1)
    return [round(float(edge), 4) for edge in np.quantile(means, (0.025, 0.975))]


def told(report: Mapping[str, Any]) -> str:
    """The report as a few lines for people."""
    lines = [
        f"{report['hidden']:.0%} of the labels hidden, {report['tested']} samples tested, 95 % intervals:"
    ]
    for metric in METRICS:
        row = report[metric]
        parts = [f"{name} {row[name]['mean']:.3f}" for name in ("seen", "guessed", "all")]
        half = row["gain"]["ci95"]
        spread = "" if half is None else f" ± {half:.4f}"
        lines.append(f"  {metric}: {', '.join(parts)}; gain {row['gain']['mean']:+.4f}{spread}")
    return "\n".join(lines)
