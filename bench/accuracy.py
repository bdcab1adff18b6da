"""The default face branch beside what a user would pick instead: the same pictures, one run, one core, one thread.

Four tasks. `network`: the tight 48 x 48 faces of the FER+ test, to the network alone. `found`: some of them, four
times enlarged in the middle of a plain 640 x 360 picture, where each package finds the face itself. `photographs`:
portraits of muxspace's unseen people, framed likewise (noisy labels, and the branch was trained on other people of the
same collection). `frame`: frames of the demo video, for the time from picture to label. A face not found is wrong.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench import plots, results
from bench.console import console
from bench.face_pictures import Pictures, Truth, read
from bench.peers import PEERS, Absent, install
from ecmf.errors import EcmfError, need
from ecmf.labels import EKMAN, to_ekman

TASKS = ("network", "found", "photographs", "frame")
WARM_UP = 3
TIMES = ("p50_ms", "p95_ms", "core_ms")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with FER+ and muxspace")
    parser.add_argument(
        "--peers", type=Path, metavar="DIR", help="folder of the other packages' environments"
    )
    parser.add_argument("--install", action="store_true", help="install what is missing in --peers first")
    parser.add_argument("--pictures", type=int, default=300, help="of each task but network, at most (300)")
    parser.add_argument("--quick", action="store_true", help="300 faces to the networks, 40 of the others")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, metavar="OUT", help="write every figure to OUT")
    parser.add_argument("--plot", type=Path, metavar="OUT.png")
    options = parser.parse_args()
    load = os.getloadavg()[0]
    allowed = os.sched_getaffinity(0)
    try:
        failed = install(options.peers) if options.peers and options.install else {}
        for name, reason in failed.items():
            print(f"accuracy: {name} could not be installed: {reason}", file=sys.stderr)
        few = 40 if options.quick else options.pictures
        pictures, truth = read(options.data, 300 if options.quick else None, few, options.seed)
        os.sched_setaffinity(0, {min(allowed)})  # inherited by the other packages' processes
        rows = measure(pictures, truth, options.peers)
        os.sched_setaffinity(0, allowed)
        how = {"data": options.data.name, "seed": options.seed, "pictures": few, "quick": options.quick}
        how["load before"] = round(load, 2)
        counts = {task: len(pictures[task]) for task in TASKS}
        record = results.record("accuracy", how, {"n": counts, "rows": rows, "times_faster": faster(rows)})
        show(record)
        if options.json:
            results.save(options.json, record)
        if options.plot:
            plots.accuracy(record, options.plot)
    except EcmfError as error:
        print(f"accuracy: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def measure(
    pictures: Pictures, truth: Truth, environments: Path | None, tasks: Sequence[str] = TASKS
) -> list[dict[str, Any]]:
    """A row for this project, one for every other package, and one for the majority class."""
    rows = ours(pictures, truth)
    with tempfile.TemporaryDirectory(prefix="ecmf-accuracy-") as temporary:
        for task in tasks:
            np.save(Path(temporary) / f"{task}.npy", pictures[task])
        for peer in PEERS:
            print(f"accuracy: {peer.name}", file=sys.stderr, flush=True)
            try:
                told = peer.run(environments, Path(temporary), tasks)
            except Absent as reason:
                rows.append({"name": peer.name, "reason": str(reason), **dict.fromkeys(tasks)})
                continue
            cells = {
                task: cell(
                    [None if label is None else EKMAN.index(to_ekman(label)) for label in found["labels"]],
                    found["ms"],
                    found["core_ms"],
                    truth.get(task),
                )
                for task, found in told["tasks"].items()
            }
            rows.append({"name": f"{peer.name} {told['version']}", "backend": told["backend"], **cells})
    rows.append({"name": "majority class", **{task: majority(truth[task]) for task in truth}, "frame": None})
    return rows


def ours(pictures: Pictures, truth: Truth) -> list[dict[str, Any]]:
    """The default face branch; `network` with landmarks counts the time that they take, too."""
    from ecmf.branches.face import FaceBranch
    from train.face_crops import FER_VIEW, Cropper

    cv2: Any = need("cv2", "live")
    cv2.setNumThreads(1)
    branch, cropper = FaceBranch(max_faces=1), Cropper()
    unknown = np.zeros(52, np.float32)

    def pixels(picture: NDArray[np.uint8], number: int) -> int | None:
        face = cv2.resize(picture, (branch.size, branch.size), interpolation=cv2.INTER_LINEAR)
        return int(branch.read(face, unknown)[1].argmax())

    def aligned(picture: NDArray[np.uint8], number: int) -> int | None:
        face, shapes, _ = cropper.crop(picture, branch.size, FER_VIEW.spread, FER_VIEW.fixed)
        return int(branch.read(face, shapes)[1].argmax())

    def anew(picture: NDArray[np.uint8], number: int) -> int | None:
        return _largest(branch, picture, -number * 10**9)  # an older frame makes the tracker start afresh

    def following(picture: NDArray[np.uint8], number: int) -> int | None:
        return _largest(branch, picture, (number + 10) * 41_708_333)

    print("accuracy: the default face branch", file=sys.stderr, flush=True)
    backend = f"{branch.engine.backend} {branch.engine.precision}"
    cells = {
        task: cell(*_timed(anew, pictures[task]), truth.get(task))
        for task in ("found", "photographs", "frame")
    }
    plain = cell(*_timed(pixels, pictures["network"]), truth["network"])
    whole = cell(*_timed(aligned, pictures["network"]), truth["network"])
    video = cell(*_timed(following, pictures["frame"]), None)
    name = f"ecmf {branch.bundle.id}"
    empty: dict[str, Any] = dict.fromkeys(TASKS)
    return [
        {"name": name, "backend": backend, **cells, "network": whole},
        {"name": f"{name}, network alone", "backend": backend, **empty, "network": plain},
        {"name": f"{name}, following", "backend": backend, **empty, "frame": video},
    ]


def _largest(branch: Any, picture: NDArray[np.uint8], time_ns: int) -> int | None:
    cues = branch.process(picture, time_ns, time_ns)
    return int(cues[0].probs.argmax()) if cues else None


def _timed(answer: Any, pictures: NDArray[np.uint8]) -> tuple[list[int | None], list[float], float]:
    for number in range(WARM_UP):
        answer(pictures[0], number - WARM_UP)
    answers, spent = [], []
    cpu = process_time()
    for number, picture in enumerate(pictures):
        began = perf_counter()
        answers.append(answer(picture, number))
        spent.append((perf_counter() - began) * 1e3)
    return answers, spent, (process_time() - cpu) * 1e3 / len(pictures)


def cell(
    answers: Sequence[int | None], ms: Sequence[float], core_ms: float, truth: NDArray[np.int64] | None
) -> dict[str, Any]:
    """Times, mean processor time, share of faces found, and with ``truth`` accuracy and UAR over seven labels.

    An answer of None is a face that was not found, and counts as wrong.
    """
    from train.evaluate_face import bootstrap, wilson

    found = np.array([answer is not None for answer in answers])
    figures: dict[str, Any] = {
        "n": len(answers),
        "found": round(float(found.mean()), 4),
        "p50_ms": round(float(np.percentile(ms, 50)), 3),
        "p95_ms": round(float(np.percentile(ms, 95)), 3),
        "core_ms": round(core_ms, 3),
    }
    if truth is None:
        return figures
    predicted = np.array([-1 if answer is None else answer for answer in answers])
    right = predicted == truth

    def mean_recall(rows: NDArray[np.int64]) -> float:
        return uar(predicted[rows], truth[rows])

    return figures | {
        "accuracy": round(float(right.mean()), 4),
        "accuracy_95": [round(edge, 4) for edge in wilson(int(right.sum()), len(right))],
        "accuracy_where_found": round(float(right[found].mean()), 4) if found.any() else None,
        "uar": round(mean_recall(np.arange(len(truth))), 4),
        "uar_95": [round(edge, 4) for edge in bootstrap(mean_recall, len(truth))],
    }


def uar(predicted: NDArray[np.int64], truth: NDArray[np.int64]) -> float:
    """Mean recall of the labels that occur."""
    return float(np.mean([(predicted[truth == label] == label).mean() for label in np.unique(truth)]))


def majority(truth: NDArray[np.int64]) -> dict[str, Any]:
    """Always the most frequent label."""
    return {
        "n": len(truth),
        "accuracy": round(float(np.bincount(truth).max() / len(truth)), 4),
        "uar": round(1 / len(np.unique(truth)), 4),
    }


def faster(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """How many times as long the other packages take for a frame, picture to label, and how much processor time.

    They search every frame anew; so does the first row, while "followed" is the branch as it runs live.
    """
    own = {row["name"].rpartition(", ")[2]: row["frame"] for row in rows if row["name"].startswith("ecmf")}
    anew, followed = rows[0]["frame"], own.get("following")
    times: dict[str, dict[str, float]] = {}
    for row in rows:
        if not row.get("frame") or row["name"].startswith("ecmf"):
            continue
        frame = row["frame"]
        times[row["name"]] = {
            "searched anew": round(frame["p50_ms"] / anew["p50_ms"], 2),
            "searched anew, processor time": round(frame["core_ms"] / anew["core_ms"], 2),
        }
        if followed:
            times[row["name"]] |= {
                "followed": round(frame["p50_ms"] / followed["p50_ms"], 2),
                "followed, processor time": round(frame["core_ms"] / followed["core_ms"], 2),
            }
    return times


def show(record: Mapping[str, Any]) -> None:
    """The table for people."""
    screen, table = console(), need("rich.table", "live")
    for task in TASKS:
        view = table.Table(title=f"{task}, n = {record['n'][task]}", title_justify="left")
        for column in ("", "accuracy", "UAR", "found", "p50 ms", "p95 ms", "core ms"):
            view.add_column(column, justify="right" if column else "left")
        for row in record["rows"]:
            if row.get(task) is not None:
                view.add_row(row["name"], *numbers(row[task]))
            elif "reason" in row:
                view.add_row(row["name"], row["reason"])
        screen.print(view)
    for name, times in record["times_faster"].items():
        told = ", ".join(f"{value:g} ({how})" for how, value in times.items())
        screen.print(f"picture to label, times as fast as {name}: {told}", highlight=False)


def numbers(figures: Mapping[str, Any]) -> list[str]:
    """Accuracy, UAR, found and the three times as text; empty where nothing was measured."""
    texts = []
    for name in ("accuracy", "uar"):
        low, high = figures.get(f"{name}_95", (None, None))
        spread = "" if low is None else f" [{low:.3f}, {high:.3f}]"
        texts.append(f"{figures[name]:.3f}{spread}" if name in figures else "")
    texts.append(f"{figures['found']:.1%}" if "found" in figures else "")
    return texts + [f"{figures[name]:.2f}" if name in figures else "" for name in TIMES]


if __name__ == "__main__":
    sys.exit(main())
