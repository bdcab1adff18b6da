"""Rounds of guessing on disk: a stopped run goes on with the round it was in; and the audit trail of the guesses."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from train.atomic import write_whole
from train.pseudo_labels import Data, Guessed, Options, Tell, guess

VERSION = 3
"""Raise it when sources or guesses are made otherwise: rounds of before are then made anew."""


def fingerprint(*parts: Any) -> str:
    """Hex digest of what a result depends on."""
    digest = hashlib.sha256(str(VERSION).encode())
    for part in parts:
        if isinstance(part, Data):
            digest.update(part.digest.encode())
        elif isinstance(part, np.ndarray):
            digest.update(f"{part.shape} {part.dtype}".encode() + part.tobytes())
        else:
            digest.update(repr(part).encode())
    return digest.hexdigest()


def kept(path: Path, parts: Sequence[Any], make: Callable[[], Mapping[str, Any]]) -> Mapping[str, Any]:
    """``make()``'s arrays, from ``path`` where they were made of the same parts before."""
    mark = fingerprint(*parts)
    if path.is_file():
        with np.load(path) as stored:
            if str(stored["fingerprint"]) == mark:
                return {name: stored[name] for name in stored.files if name != "fingerprint"}
    made = make()
    content = io.BytesIO()
    np.savez(content, fingerprint=np.array(mark), **made)
    write_whole(path, content.getvalue())
    return made


def rounds(data: Data, options: Options, folder: Path, tell: Tell) -> list[Guessed]:
    """All rounds, each kept in ``folder`` when it is done."""
    found: list[Guessed] = []
    for number in range(options.rounds):
        before = found[-1] if found else None

        def make(before: Guessed | None = before) -> Mapping[str, Any]:
            one = guess(data, options, before, tell)
            arrays = {f"source {name}": labels for name, labels in one.sources.items()}
            plain = ("soft", "accepted", "thresholds", "precision")
            return arrays | {name: getattr(one, name) for name in plain}

        basis = (data, options.training, options.precision, options.agree, options.most, number)
        earlier = () if before is None else (before.soft, before.accepted)
        stored = kept(folder / f"round-{number + 1}.npz", (*basis, *earlier), make)
        sources = {
            name.removeprefix("source "): stored[name] for name in stored if name.startswith("source ")
        }
        found.append(
            Guessed(stored["soft"], stored["accepted"], stored["thresholds"], stored["precision"], sources)
        )
        tell(f"round {number + 1}: {int(found[-1].accepted.sum())} of {len(data.unknown)} guesses accepted")
    return found


def write_audit(path: Path, data: Data, found: Sequence[Guessed], names: Sequence[str]) -> dict[str, Any]:
    """``audit.csv``: a row per unlabelled sample: the guess, since which round, whose opinions; and a summary."""
    last = found[-1]
    accepted = np.stack([one.accepted & (one.label == last.label) for one in found])
    since = np.where(last.accepted, accepted.argmax(axis=0) + 1, 0)
    content = io.StringIO()
    writer = csv.writer(content)
    writer.writerow(["name", "guess", "accepted", "since_round", "probability", "for_it", "against"])
    for row, name in enumerate(names):
        label = last.label[row]
        said = {who: int(labels[row]) for who, labels in last.sources.items() if labels[row] >= 0}
        against = (f"{who}: {data.labels[other]}" for who, other in said.items() if other != label)
        writer.writerow(
            [
                name,
                data.labels[label],
                int(last.accepted[row]),
                int(since[row]),
                f"{last.soft[row].max():.3f}",
                "; ".join(who for who, other in said.items() if other == label),
                "; ".join(against),
            ]
        )
    write_whole(path, content.getvalue().encode())
    each = np.bincount(last.label[last.accepted], minlength=len(data.labels))
    return {
        "given": len(data.known),
        "unlabelled": len(data.unknown),
        "accepted": int(last.accepted.sum()),
        "accepted_per_round": [int(one.accepted.sum()) for one in found],
        "labels": {
            label: {
                "accepted": int(each[number]),
                "least_confidence": None
                if not np.isfinite(last.thresholds[number])
                else round(float(last.thresholds[number]), 4),
                "right_out_of_fold": None
                if not np.isfinite(last.precision[number])
                else round(float(last.precision[number]), 4),
            }
            for number, label in enumerate(data.labels)
        },
    }
