"""Refine noisy labels from several sources.

  python -m train.refine --data CLIPS --out BETTER     a folder with labels.csv; then: python -m train.fit --data BETTER
      Sources: the given labels; models of your clips' cues, judging clips they were not trained on; the face, voice
      and text branches' own opinions; a language model's reading of text files. BETTER gets a labels.csv with better
      labels for the train clips.
  python -m train.refine --fer DATA                    the measured case
      FER2013's own labels are the noisy source, FER+'s ten votes only the judge.

Either writes audit.csv (what changed, why, by which sources) and summary.json into --out.
"""

from __future__ import annotations

import argparse
import csv
import io
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ecmf.engines.cache import cache_dir
from ecmf.enrich import Enricher
from ecmf.errors import DataError, MissingExtra, UsageError
from ecmf.head import FLOOR
from ecmf.labels import EKMAN, FERPLUS, opinion, opinions, to_ekman
from train import clip_means, command, corpora, face_crops, picture_features, refinement
from train.atomic import write_whole
from train.clip_file import TEXT
from train.datasets import fer2013, ferplus, folder, muxspace
from train.refinement import Options, Probs, Refined
from train.scores import summary

log = logging.getLogger("train.refine")
TEXTURES = 450
"""Main directions kept of the textures, fewer where there are fewer pictures."""
SEEDS = 3
"""Trainings of the model that the labels are judged by."""


@dataclass(frozen=True)
class Faces:
    """FER's pictures and muxspace's in the same features."""

    fer: dict[str, NDArray[np.float32]]
    muxspace: dict[str, NDArray[np.float32]]
    muxspace_label: NDArray[np.int64]


def fer(data: Path, out: Path, cache: Path, options: Options, *, offline: bool = False) -> dict[str, Any]:
    """Refine FER2013's labels of the train pictures, and measure what that is worth.

    Sources: the labels themselves; models of textures and of blendshapes (which saw no FER+ vote) trained on them out
    of fold; and a model of the same features trained on muxspace's photographs, other pictures with other annotators.
    """
    source = corpora.find(data, "face", corpora.FERPLUS)
    corpus = ferplus.read(source)
    given = fer2013.read_labels(source)
    majority = np.array(
        [EKMAN.index(to_ekman(FERPLUS[m])) if m < len(FERPLUS) else -1 for m in corpus.majority]
    )
    faces = _faces(data, source, corpus.rows("train"), cache, offline=offline)
    train, test = corpus.rows("train"), corpus.rows("test")
    judge = _trained_on(
        faces.muxspace, np.eye(len(EKMAN), dtype=np.float32)[faces.muxspace_label], options, SEEDS
    )
    outside = {"muxspace": _ensemble(judge, faces.fer, train)}
    stages: dict[str, float] = {"given": _agreement(given[train], majority[train])}

    def tell(what: str, soft: Probs) -> None:
        stages[what] = _agreement(soft.argmax(axis=1), majority[train])
        log.info("%s: agrees with the FER+ majority on %.1f %%", what, 100 * stages[what])

    parts = {name: values[train] for name, values in faces.fer.items()}
    refined = refinement.refine(given[train], EKMAN, parts, outside, options, tell=tell)
    report = refinement.write_audit(out, refined, [corpus.name[row] for row in train], EKMAN)
    hard = np.eye(len(EKMAN), dtype=np.float32)
    targets = {"raw": hard[given[train]], "refined": refined.soft, "FER+ majority": hard[majority[train]]}
    accuracy = {}
    for name, target in targets.items():
        found = []
        for seed in range(SEEDS):
            models = _trained_on(parts, target, options, 1, first=100 + seed)
            found.append(_agreement(_ensemble(models, faces.fer, test).argmax(axis=1), majority[test]))
        accuracy[name] = summary(found)
        log.info("trained on %s labels: %.1f %% of the FER+ test", name, 100 * accuracy[name]["mean"])
    votes = refinement.dawid_skene(
        {k: v for k, v in refined.opinions.items() if "refined" not in k}, len(EKMAN)
    )
    report |= {
        "agreement_with_fer_plus_majority": {k: round(v, 4) for k, v in stages.items()},
        "dawid_skene_of_the_same_sources": round(_agreement(votes.argmax(axis=1), majority[train]), 4),
        "fer_plus_test_accuracy_of_the_same_model": accuracy,
        "train_pictures": len(train),
        "test_pictures": len(test),
        "protocol": (
            "7 labels, contempt as disgust; train: most voted for an emotion, no pixels of valid or test; test: one "
            "clear majority, no pixels of train or valid. FER+ votes judge, no source has seen them."
        ),
    }
    write_whole(out / "summary.json", command.results(report).encode())
    return report


def _faces(data: Path, source: Path, train: NDArray[np.int64], cache: Path, *, offline: bool) -> Faces:
    mux_source = corpora.find(data, "face", corpora.MUXSPACE)
    size = 56

    def cropper() -> face_crops.Cropper:
        return face_crops.Cropper(offline=offline)

    crops = face_crops.corpus(cache, source, size, cropper)
    photographs = face_crops.corpus(cache, mux_source, size, cropper)
    seen = np.flatnonzero(photographs.aligned)
    label = np.array([EKMAN.index(to_ekman(FERPLUS[n])) for n in muxspace.read(mux_source).label])[seen]
    pictures = picture_features.textures(crops.face, cache, "ferplus", offline=offline)
    others = picture_features.textures(photographs.face[seen], cache, "muxspace", offline=offline)
    some = train[::3]
    how = picture_features.reduced(pictures, some, min(TEXTURES, len(some) - 1))
    return Faces(
        {"textures": picture_features.project(pictures, how), "blendshapes": np.sqrt(crops.blendshapes)},
        {
            "textures": picture_features.project(others, how),
            "blendshapes": np.sqrt(photographs.blendshapes[seen]),
        },
        label,
    )


def _trained_on(
    features: Mapping[str, NDArray[np.float32]], target: Probs, options: Options, count: int, first: int = 0
) -> list[torch.nn.Module]:
    together = np.concatenate(list(features.values()), axis=1)
    return [refinement.classifier(together, target, options, first + number) for number in range(count)]


def _ensemble(
    models: Sequence[torch.nn.Module], features: Mapping[str, NDArray[np.float32]], rows: NDArray[np.int64]
) -> Probs:
    together = np.concatenate([values[rows] for values in features.values()], axis=1)
    mean: Probs = np.mean([refinement.judge(model, together) for model in models], axis=0)
    return mean


def _agreement(one: NDArray[np.integer], other: NDArray[np.integer]) -> float:
    return float((one == other).mean())


def clips(
    data: Path,
    out: Path,
    cache: Path,
    options: Options,
    *,
    labels: Sequence[str] | None = None,
    offline: bool = False,
) -> dict[str, Any]:
    """Refine the train labels of a folder of clips; writes a labels.csv beside the audit."""
    from train.clip_store import extract

    listed = folder.read(data, labels)
    log.info("%s", listed.told())
    moments = extract(listed, cache, offline=offline)
    chosen = [n for n, item in enumerate(listed.items) if item.split == "train" and moments[n]]
    given = np.array([listed.labels.index(listed.items[n].label) for n in chosen])
    features, outside = clip_means.means(moments, chosen, listed.labels)
    if not features:
        raise DataError(f"{listed.table}: in no train clip was anything found to judge its label by")
    read = _read_by_language_model(listed, chosen, opinions(listed.labels), offline=offline)
    if read is not None:
        outside["language model"] = read
    people = np.array([listed.items[n].speaker for n in chosen])
    refined = refinement.refine(given, listed.labels, features, outside, options, people)
    report = refinement.write_audit(out, refined, [listed.items[n].path.name for n in chosen], listed.labels)
    _write_table(
        out / folder.TABLE, data, listed, dict(zip(chosen, range(len(chosen)), strict=True)), refined
    )
    return report


def _read_by_language_model(
    listed: folder.Folder,
    chosen: Sequence[int],
    matrix: NDArray[np.float32] | None,
    *,
    offline: bool = False,
) -> Probs | None:
    """The language model's opinion of the text files among the clips; None without any, or without the model."""
    texts = {
        row: listed.items[n].path
        for row, n in enumerate(chosen)
        if listed.items[n].path.suffix.lower() in TEXT
    }
    if not texts or matrix is None:
        return None
    try:
        enricher = Enricher(None, offline=offline)
    except MissingExtra as error:
        log.warning("no reading by a language model: %s", error)
        return None
    found = np.zeros((len(chosen), len(listed.labels)), np.float32)
    for row, path in texts.items():
        read = enricher.enrich(" ".join(path.read_text("utf-8").split()), (), lambda: False)
        logs = None if read is None else opinion(read.scores, matrix, FLOOR)
        if logs is not None:
            found[row] = np.exp(logs)
    enricher.close()
    return found


def _write_table(
    path: Path, data: Path, listed: folder.Folder, place: Mapping[int, int], refined: Refined
) -> None:
    """labels.csv as it was read, with the refined labels of the train clips; paths are absolute."""
    content = io.StringIO()
    writer = csv.writer(content)
    writer.writerow(["path", "label", "speaker", "split", "given", "probability"])
    for number, item in enumerate(listed.items):
        label, sure = item.label, ""
        if number in place:
            row = place[number]
            label, sure = listed.labels[refined.label[row]], f"{refined.soft[row].max():.3f}"
        writer.writerow([item.path.resolve(), label, item.speaker, item.split, item.label, sure])
    write_whole(path, content.getvalue().encode())


def parser() -> argparse.ArgumentParser:
    made = command.parser("refine", __doc__)
    what = made.add_mutually_exclusive_group(required=True)
    what.add_argument("--data", type=Path, metavar="DIR", help="clips: a folder with labels.csv")
    what.add_argument("--fer", type=Path, metavar="DIR", help="data with face/ferplus and face/muxspace")
    made.add_argument(
        "--rounds",
        type=int,
        default=Options.rounds,
        metavar="N",
        help="times that models are trained anew on the labels refined so far (default: %(default)s)",
    )
    made.add_argument(
        "--out",
        type=Path,
        default=Path("runs/refine"),
        metavar="DIR",
        help="refined labels, the audit of every change, summary.json (default: runs/refine)",
    )
    command.add(made, "--labels", "--seed", "--cache", "--offline")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    asked = parser().parse_args(arguments)

    def work() -> str:
        torch.set_num_threads(1)
        if asked.rounds < 0:
            raise UsageError(f"--rounds {asked.rounds}: none (0) or more")
        options = Options(rounds=asked.rounds, seed=asked.seed)
        cache = asked.cache or cache_dir() / "features"
        command.writable("--out", asked.out)
        command.writable("--cache", cache)
        labels = None if asked.labels is None else folder.label_set(asked.labels)
        if asked.fer is not None:
            if labels is not None:
                raise UsageError("--labels goes with --data; FER has its own labels")
            report = fer(asked.fer, asked.out, cache, options, offline=asked.offline)
        else:
            report = clips(asked.data, asked.out, cache, options, labels=labels, offline=asked.offline)
        log.info(
            "%d of %d labels changed; why: %s", report["changed"], report["samples"], asked.out / "audit.csv"
        )
        if asked.data is not None:
            log.info("next: python -m train.fit --data %s", asked.out)
        return command.results(report).rstrip()

    return command.carried_out(work)


if __name__ == "__main__":
    raise SystemExit(main())
