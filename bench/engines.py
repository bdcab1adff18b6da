"""Latency of every model on every backend that runs here, at batch 1, side by side in one run.

Candidates take turns, round after round, so that whatever else the machine does falls on all of them alike. Eager
torch runs the same graph with its normalizations folded, which flatters it. Each engine passed the parity gate.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import numpy as np

from bench import results
from ecmf import golden
from ecmf.bundle import Bundle
from ecmf.engines import cache, cuda
from ecmf.engines.base import Arrays, EngineSpec, Precision
from ecmf.engines.choose import BACKENDS, open_engine
from ecmf.engines.known import bundles, live_shapes
from ecmf.errors import EcmfError, EngineError, need

MODELS = (
    "face",
    "face-detector",
    "face-landmarks",
    "face-blendshapes",
    "scene",
    "voice",
    "text",
    "speech-tiny.en",
    "default",
)
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
WARM_UP = 5
SPEEDUP, SLACK = 3.0, 1.05
"""What the chosen CPU engine should reach: times faster than eager torch for scene and text; of ONNX Runtime fp32."""


@dataclass
class Candidate:
    model: str
    backend: str
    precision: str
    run: Callable[[], Any] | None
    note: str = ""
    parity_error: float | None = None
    chosen: bool = False
    ms: list[float] = field(default_factory=list)

    def figures(self) -> dict[str, Any]:
        """For JSON; times in milliseconds, null where it does not run."""
        row: dict[str, Any] = {
            "model": self.model,
            "backend": self.backend,
            "precision": self.precision,
            "chosen": self.chosen,
            "parity_error": self.parity_error,
            "note": self.note,
            "runs": len(self.ms),
        }
        quantiles = np.percentile(self.ms, [50, 95, 99]) if self.ms else [None] * 3
        for name, value in zip(("p50", "p95", "p99"), quantiles, strict=True):
            row[name] = None if value is None else round(float(value), 3)
        row["min"] = round(min(self.ms), 3) if self.ms else None
        return row


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", action="append", metavar="NAME", help=f"repeatable; {', '.join(MODELS)}")
    parser.add_argument("--backend", action="append", choices=[*BACKENDS, "torch"], help="repeatable; all")
    parser.add_argument("--precision", action="append", choices=PRECISIONS, help="repeatable; all")
    parser.add_argument(
        "--threads", type=int, default=1, help="of CPU engines and of torch (1, as ecmf-live)"
    )
    parser.add_argument("--runs", type=int, default=200, help="timed runs of each candidate (200)")
    parser.add_argument("--json", type=Path, metavar="OUT")
    options = parser.parse_args()
    try:
        candidates = prepare(options)
        measure(candidates, options.runs)
    except EcmfError as error:
        print(f"engines: {error}", file=sys.stderr)
        return error.exit_code
    found, _ = cuda.find()
    rows = [candidate.figures() for candidate in candidates]
    how = {"threads": options.threads, "batch": 1, "runs": options.runs, "warm_up": WARM_UP}
    record = results.record("engines", how, {"rows": rows, "verdicts": verdicts(rows)})
    record["machine"]["gpu"] = found.name if found else None
    show(record)
    if options.json:
        results.save(options.json, record)
    return 0


def prepare(options: argparse.Namespace) -> list[Candidate]:
    """Every model's candidates, those that cannot run with the reason. Raises EcmfError for an unknown model."""
    chosen: list[Candidate] = []
    for name in options.model or MODELS:
        try:
            (bundle,) = bundles([name], offline=False)
            sample = golden.inputs(bundle, EngineSpec(shapes=live_shapes(bundle)))[0]
        except EcmfError as error:
            if options.model:
                raise
            chosen.append(Candidate(name, "", "", None, str(error)))
            continue
        auto = open_engine(bundle, threads=options.threads, shapes=live_shapes(bundle))
        for backend in options.backend or [*BACKENDS, "torch"]:
            if backend == "torch":
                chosen.append(_eager(bundle, sample, options.threads))
                continue
            for precision in options.precision or PRECISIONS:
                candidate = _engine(bundle, sample, backend, precision, options.threads)
                candidate.chosen = (backend, precision) == (auto.backend, auto.precision)
                chosen.append(candidate)
    return chosen


def _engine(bundle: Bundle, sample: Arrays, backend: str, precision: Precision, threads: int) -> Candidate:
    candidate = Candidate(bundle.manifest.name, backend, precision, None)
    usable, candidate.note = BACKENDS[backend].probe()
    if not usable:
        return candidate
    spec = EngineSpec(precision, threads, live_shapes(bundle))
    try:
        _, record = cache.build(BACKENDS[backend], bundle, spec)
        engine = cache.build_or_load(BACKENDS[backend], bundle, spec)
    except EngineError as error:
        candidate.note = str(error)
        return candidate
    candidate.parity_error = record.parity["error"] if record.parity else None
    candidate.run = lambda: engine.run(sample)
    return candidate


def _eager(bundle: Bundle, sample: Arrays, threads: int) -> Candidate:
    """Plain torch on the CPU, or on the GPU where there is one."""
    from ecmf.engines import torch_graph

    candidate = Candidate(bundle.manifest.name, "torch", "eager", None)
    try:
        torch = need("torch", "train")
        module = torch_graph.module(bundle)
    except EcmfError as error:
        candidate.note = str(error)
        return candidate
    torch.set_num_threads(threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    module = module.to(device)
    inputs = [torch.from_numpy(np.ascontiguousarray(sample[port.name])) for port in bundle.manifest.inputs]

    def run() -> Any:
        with torch.inference_mode():
            return [out.cpu().numpy() for out in module(*(tensor.to(device) for tensor in inputs))]

    candidate.run = run
    candidate.note = f"on {device}"
    return candidate


def measure(candidates: list[Candidate], runs: int) -> None:
    """Fill in ``ms``: a warm-up each, then one run of every candidate in turn."""
    able = [candidate for candidate in candidates if candidate.run]
    for candidate in able:
        for _ in range(WARM_UP):
            candidate.run()  # type: ignore[misc]
    progress = need("rich.progress", "live")
    console = need("rich.console", "live").Console(stderr=True)
    for _ in progress.track(range(runs), "measuring", console=console):
        for candidate in able:
            began = time.perf_counter()
            candidate.run()  # type: ignore[misc]
            candidate.ms.append((time.perf_counter() - began) * 1e3)


def verdicts(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """How the chosen engine compares with eager torch and with ONNX Runtime fp32, by medians of this run."""
    told = []
    for model in dict.fromkeys(row["model"] for row in rows):
        of_model = {
            (r["backend"], r["precision"]): r["p50"] for r in rows if r["model"] == model and r["p50"]
        }
        mine = next((r["p50"] for r in rows if r["model"] == model and r["chosen"] and r["p50"]), None)
        if mine is None:
            continue
        eager, plain = of_model.get(("torch", "eager")), of_model.get(("onnxruntime", "fp32"))
        times = round(eager / mine, 2) if eager else None
        share = round(mine / plain, 3) if plain else None
        told.append(
            {
                "model": model,
                "chosen": next(
                    f"{r['backend']} {r['precision']}" for r in rows if r["model"] == model and r["chosen"]
                ),
                "chosen_p50_ms": mine,
                "times_faster_than_eager_torch": times,
                "share_of_onnxruntime_fp32": share,
                "met": (share is None or share <= SLACK)
                and (model not in ("scene", "text") or times is None or times >= SPEEDUP),
            }
        )
    return told


def show(record: dict[str, Any]) -> None:
    """The table for people."""
    width = None if sys.stdout.isatty() else 140
    console, table = need("rich.console", "live").Console(width=width), need("rich.table", "live")
    machine = record["machine"]
    threads, gpu = record["options"]["threads"], machine["gpu"] or "none"
    title = f"ms at batch 1, {threads} thread(s), {machine['processor']}, GPU: {gpu}"
    view = table.Table(title=title, title_justify="left")
    for column in ("model", "backend", "", "p50", "p95", "p99", "parity", "note"):
        right = column in ("p50", "p95", "p99", "parity")
        view.add_column(
            column, justify="right" if right else "left", no_wrap=column != "note", overflow="fold"
        )
    absent: dict[str, set[str]] = {}
    for row in record["rows"]:
        if row["p50"] is None:
            if row["note"]:
                absent.setdefault(row["note"], set()).add(
                    " ".join((row["model"], row["backend"], row["precision"]))
                )
            continue
        times = (f"{row[name]:.2f}" for name in ("p50", "p95", "p99"))
        error = "" if row["parity_error"] is None else f"{row['parity_error']:.0e}"
        note = "chosen" if row["chosen"] else row["note"]
        view.add_row(row["model"], row["backend"], row["precision"], *times, error, note)
    console.print(view)
    for note, names in absent.items():
        few = sorted({name.split(" ", 1)[1] for name in names}) if len(names) > 4 else sorted(names)
        console.print(f"not run: {', '.join(few)}: {note}", soft_wrap=True, highlight=False)
    for verdict in record["verdicts"]:
        eager, plain = verdict["times_faster_than_eager_torch"], verdict["share_of_onnxruntime_fp32"]
        console.print(
            f"{verdict['model']}: {verdict['chosen_p50_ms']:.2f} ms"
            + (f", {eager:.1f} times faster than eager torch" if eager else "")
            + (f", {plain:.0%} of ONNX Runtime fp32" if plain else "")
            + ("" if verdict["met"] else ": MISSED"),
            highlight=False,
        )


if __name__ == "__main__":
    sys.exit(main())
