"""Guess labels for unlabelled data (semi-supervised learning): python -m train.pseudo

Models of each feature, of all together and, for clips, the face, voice and text branches judge what has no label. A
guess is accepted where enough of them agree and they are as sure as it takes, for that label, to be right as often as
--precision asks (measured out of fold on the given labels). Accepted guesses train the next round.

  python -m train.pseudo --data CLIPS --out MORE     a folder whose labels.csv leaves the label of some train clips
                                                     empty; then: python -m train.fit --data MORE
  python -m train.pseudo --features MER2025 --out MORE    the candidates get labels; then: train.fit --features MORE
                                                     (guessed clips train every fold, and none is judged by them)
  python -m train.pseudo --features MER2025 --hide 0.5    what it is worth here: that share of the given labels is
                                                     hidden and guessed again; the same for --data with test clips
  python -m train.pseudo --fer DIR                   the measured cases: half of the FER+ labels hidden, and
  python -m train.pseudo --ravdess PATH              half of RAVDESS's people, judged by other people

Writes audit.csv (each guess, since which round, who was for and who against it) and summary.json into --out. A stopped
run goes on where it was.
"""

from __future__ import annotations

import argparse
import csv
import io
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ecmf.engines.cache import cache_dir
from ecmf.errors import DataError, UsageError
from train import clip_means, clip_store, command, mer_features, pseudo_cases, pseudo_gain, refinement
from train.atomic import write_whole
from train.datasets import folder, layouts, mer2025
from train.fit_mer import RECIPE, read_recipe
from train.pseudo_gain import Judges
from train.pseudo_labels import Data, Guessed, Options
from train.pseudo_rounds import rounds, write_audit

log = logging.getLogger("train.pseudo")
JUDGES = 5
"""One of so many labelled MER clips is only measured on when labels are hidden."""


def clips(
    root: Path,
    out: Path,
    cache: Path,
    options: Options,
    labels: Sequence[str] | None,
    gain: Gain | None,
    *,
    offline: bool = False,
) -> dict[str, Any]:
    """A folder of clips: guess what has no label in train; or with ``gain`` hide some and measure on test clips."""
    listed = layouts.read(root, labels, unlabelled=True)
    log.info("%s", listed.told())
    moments = clip_store.extract(listed, cache, offline=offline)
    chosen = [n for n, item in enumerate(listed.items) if item.split == "train" and moments[n]]
    given = np.array(
        [listed.labels.index(i.label) if i.label else -1 for i in (listed.items[n] for n in chosen)]
    )
    people = np.array([listed.items[n].speaker for n in chosen])
    if gain is not None:
        chosen, people = [n for n, g in zip(chosen, given, strict=True) if g >= 0], people[given >= 0]
        tested = [n for n, item in enumerate(listed.items) if item.split == "test" and moments[n]]
        if not tested:
            raise DataError(f"{listed.table}: no clip has the split test; there is nothing to measure on")
        features, outside = clip_means.means(moments, [*chosen, *tested], listed.labels)
        count = len(chosen)
        target = np.array([listed.labels.index(listed.items[n].label) for n in tested])
        judges = Judges(
            {name: values[count:] for name, values in features.items()},
            target,
            np.array([listed.items[n].speaker for n in tested]),
        )
        case = pseudo_gain.Case(
            {name: values[:count] for name, values in features.items()},
            {name: probs[:count] for name, probs in outside.items()},
            given[given >= 0],
            listed.labels,
            people,
            judges,
        )
        return gain.measure(case, options, out)
    features, outside = clip_means.means(moments, chosen, listed.labels)
    data = Data(features, outside, given, listed.labels, people)
    found = rounds(data, options, out / "rounds", log.info)
    names = [listed.items[chosen[row]].path.name for row in data.unknown]
    report = write_audit(out / "audit.csv", data, found, names)
    _write_table(
        out / folder.TABLE, listed, {chosen[row]: n for n, row in enumerate(data.unknown)}, found[-1]
    )
    return report


def _write_table(path: Path, listed: folder.Folder, place: dict[int, int], last: Guessed) -> None:
    """labels.csv as it was read, with the accepted guesses, without what has no label; paths are absolute."""
    content = io.StringIO()
    writer = csv.writer(content)
    writer.writerow(["path", "label", "speaker", "split", mer2025.PSEUDO, "probability"])
    for number, item in enumerate(listed.items):
        if item.label:
            writer.writerow([item.path.resolve(), item.label, item.speaker, item.split, "", ""])
        elif number in place and last.accepted[place[number]]:
            row = place[number]
            label, sure = listed.labels[last.label[row]], f"{last.soft[row].max():.3f}"
            writer.writerow([item.path.resolve(), label, item.speaker, item.split, 1, sure])
    write_whole(path, content.getvalue().encode())


def mer(
    root: Path,
    out: Path,
    cache: Path,
    options: Options,
    labels: Sequence[str] | None,
    gain: Gain | None,
    config: Path | None = None,
) -> dict[str, Any]:
    """MER2025's layout: guess the candidates; or with ``gain`` hide some of the given labels.

    ``config``: the recipe that says of which modality a feature is, or leaves it out.
    """
    corpus = mer2025.read(root, labels)
    known = set(corpus.names)
    unlabelled = [name for name in corpus.candidates if name not in known]
    names = [*corpus.names, *unlabelled]
    found = mer_features.load(corpus, names, read_recipe(config or RECIPE).features, cache)
    features = {feature.name: feature.values for feature in found}
    given = np.array([corpus.labels.index(emotion) for emotion in corpus.emotions])
    if gain is not None:
        order = np.random.default_rng(options.training.seed).permutation(len(given))
        tested, rest = np.sort(order[: len(given) // JUDGES]), np.sort(order[len(given) // JUDGES :])
        judges = Judges(
            {n: v[tested] for n, v in features.items()}, given[tested], np.array(corpus.names)[tested]
        )
        case = pseudo_gain.Case(
            {n: v[rest] for n, v in features.items()}, {}, given[rest], corpus.labels, None, judges
        )
        return gain.measure(case, options, out)
    if not unlabelled:
        raise DataError(f"{root} lists no candidates without a label in {mer2025.CANDIDATES}")
    data = Data(features, {}, np.concatenate([given, np.full(len(unlabelled), -1)]), corpus.labels)
    guessed = rounds(data, options, out / "rounds", log.info)
    report = write_audit(out / "audit.csv", data, guessed, unlabelled)
    content = io.StringIO()
    writer = csv.writer(content)
    writer.writerow(["name", "discrete", mer2025.PSEUDO])
    writer.writerows((name, emotion, "") for name, emotion in zip(corpus.names, corpus.emotions, strict=True))
    for row, name in enumerate(unlabelled):
        if guessed[-1].accepted[row]:
            writer.writerow([name, corpus.labels[guessed[-1].label[row]], 1])
    write_whole(out / mer2025.TRAIN, content.getvalue().encode())
    listing = io.StringIO()
    csv.writer(listing).writerows([("name",), *((name,) for name in corpus.candidates)])
    write_whole(out / mer2025.CANDIDATES, listing.getvalue().encode())
    link = out / mer2025.FEATURES
    if not link.exists():
        link.symlink_to((root / mer2025.FEATURES).resolve(), target_is_directory=True)
    return report


class Gain:
    """How much to hide, and how often."""

    def __init__(self, share: float, seeds: int) -> None:
        if not 0 < share < 1 or seeds < 1:
            raise UsageError(f"--hide {share} --seeds {seeds}: hide a share between 0 and 1, at least once")
        self.share, self.seeds = share, seeds

    def measure(self, case: pseudo_gain.Case, options: Options, out: Path) -> dict[str, Any]:
        """Hide, guess, train and judge."""
        report = pseudo_gain.measure(
            case, options, out / "rounds", seeds=self.seeds, share=self.share, tell=log.info
        )
        print(pseudo_gain.told(report), file=sys.stderr)
        return report


def parser() -> argparse.ArgumentParser:
    made = command.parser("pseudo", __doc__)
    what = made.add_mutually_exclusive_group(required=True)
    what.add_argument("--data", type=Path, metavar="DIR", help="clips, some of them without a label")
    command.add(what, "--features")
    what.add_argument("--fer", type=Path, metavar="DIR", help="data with face/ferplus and face/muxspace")
    what.add_argument("--ravdess", type=Path, metavar="PATH", help="RAVDESS, a folder or a parquet file")
    numbers: tuple[tuple[str, str, Any, str], ...] = (
        ("--precision", "P", Options.precision, "share of right guesses asked of each label, out of fold"),
        ("--agree", "S", Options.agree, "share of the sources that must name the same label"),
        ("--rounds", "N", Options.rounds, "times to guess, from the second on with the guesses so far"),
        ("--seeds", "N", 5, "with --hide: times that labels are hidden"),
    )
    for name, shown, default, meaning in numbers:
        made.add_argument(
            name,
            type=type(default),
            default=default,
            metavar=shown,
            help=f"{meaning} (default: %(default)s)",
        )
    made.add_argument(
        "--hide", type=float, metavar="S", help="measure: hide this share of the labels, guess them again"
    )
    made.add_argument(
        "--out",
        type=Path,
        default=Path("runs/pseudo"),
        metavar="DIR",
        help="the guesses, audit.csv, summary.json and finished rounds (default: runs/pseudo)",
    )
    command.add(made, "--labels", "--config", "--seed", "--cache", "--offline")
    return made


def options_of(asked: argparse.Namespace) -> Options:
    """Raises UsageError for a value that makes no sense."""
    for name in ("precision", "agree"):
        if not 0 < getattr(asked, name) <= 1:
            raise UsageError(f"--{name} {getattr(asked, name)}: expected a share above 0, at most 1")
    if asked.rounds < 1:
        raise UsageError(f"--rounds {asked.rounds}: at least one")
    return Options(
        rounds=asked.rounds,
        precision=asked.precision,
        agree=asked.agree,
        training=refinement.Options(seed=asked.seed),
    )


def main(arguments: Sequence[str] | None = None) -> int:
    asked = parser().parse_args(arguments)

    def work() -> str:
        torch.set_num_threads(1)
        cache = asked.cache or cache_dir() / "features"
        command.writable("--out", asked.out)
        command.writable("--cache", cache)
        options = options_of(asked)
        labels = None if asked.labels is None else folder.label_set(asked.labels)
        gain = None if asked.hide is None else Gain(asked.hide, asked.seeds)
        if asked.fer is not None or asked.ravdess is not None:
            case = (
                pseudo_cases.fer(asked.fer, cache, offline=asked.offline)
                if asked.fer is not None
                else pseudo_cases.ravdess(asked.ravdess, cache, offline=asked.offline)
            )
            report = (gain or Gain(0.5, asked.seeds)).measure(case, options, asked.out)
        elif asked.features is not None:
            report = mer(asked.features, asked.out, cache, options, labels, gain, asked.config)
        else:
            report = clips(asked.data, asked.out, cache, options, labels, gain, offline=asked.offline)
        if report.get("accepted") == 0:
            log.warning(
                "no guess was accepted: the sources did not agree, or were not right as often as --precision %g asks; "
                "more labels help, and a lower --precision or --agree accepts more", asked.precision,
            )  # fmt: skip
        found = command.results(report)
        write_whole(asked.out / "summary.json", found.encode())
        return found.rstrip()

    return command.carried_out(work)


if __name__ == "__main__":
    raise SystemExit(main())
