"""`ecmf-models engines`: build, list, prune and tune what is compiled for this machine."""

from __future__ import annotations

import argparse
import json
import logging
import re
import shutil
from dataclasses import replace
from typing import Any, get_args

from ecmf.bundle import Bundle
from ecmf.engines import cache, contest, tuned
from ecmf.engines.base import Engine, EngineSpec, Precision
from ecmf.engines.choose import BACKENDS, CPU, open_engine
from ecmf.engines.graph import INT8
from ecmf.engines.known import bundles, live_shapes
from ecmf.engines_view import bar, row_of, show, show_tuned
from ecmf.errors import EngineError, UsageError, WeightError
from ecmf.progress import bars
from ecmf.weights import pull

log = logging.getLogger("ecmf.engines")

PRECISIONS = get_args(Precision)
TUNED: tuple[Precision, ...] = ("fp32", "bf16")
"""What `tune` compares on the CPU, where backend and processor allow it. int8 runs only when asked for: it keeps the
labels, but moves the embeddings that the fusion head reads."""
ROUNDS = 60
"""`tune` lets its candidates take this many turns; the choice made on first use is content with fewer."""


def run_build(options: argparse.Namespace) -> int:
    """Build, prove and record engines."""
    batches = _batches(options.batch)
    target = _target(options.target)
    _golden_media(offline=options.offline)
    rows = []
    chosen = bundles(options.bundle, offline=options.offline)
    with bar("building", len(chosen)) as advance:
        for bundle in chosen:
            advance(bundle.manifest.name)
            sizes = {"batch": batches} if batches != (1,) else {}
            shapes = {} if sizes else live_shapes(bundle)
            spec = EngineSpec(options.precision or "fp32", options.threads, shapes, sizes, target)
            rows.append(_build(bundle, options.backend, spec, options.precision))
    show(rows, options.json)
    failed = [row for row in rows if row["error"]]
    if failed:
        raise EngineError("; ".join(f"{row['bundle']}: {row['error']}" for row in failed))
    return 0


def _build(bundle: Bundle, backend: str, spec: EngineSpec, asked: Precision | None) -> dict[str, Any]:
    """A row of what was built, or of why nothing could be. ``asked``: the precision that was named, if any."""
    try:
        if backend == "auto" and spec.target is None:
            engine = open_engine(
                bundle, precision=asked, threads=spec.threads, shapes=spec.shapes, sizes=spec.sizes
            )
            backend, spec = engine.backend, replace(spec, precision=engine.precision)
        backend = "tensorrt-rtx" if backend == "auto" else backend  # alone in building for another GPU
        if spec.target is None:
            usable, reason = BACKENDS[backend].probe()
            if not usable:
                raise EngineError(f"{backend}: {reason}")
        return {**row_of(*cache.build(BACKENDS[backend], bundle, spec)), "error": None}
    except EngineError as error:
        return {"bundle": bundle.id, "backend": backend, "error": str(error)}
    except OSError as error:
        raise EngineError(
            f"cannot keep engines in {cache.cache_dir() / 'engines'} ({error.strerror or error}); make it "
            "writable or set ECMF_CACHE to another folder"
        ) from None


def run_list(options: argparse.Namespace) -> int:
    """Show what is in the cache."""
    show([row_of(folder, record) for folder, record in cache.records()], options.json)
    return 0


def run_prune(options: argparse.Namespace) -> int:
    """Delete engines that nothing here loads any more: of another version or device, built in
    an older way, or of a model that was replaced; or all of them."""
    versions = {name: backend.identity() for name, backend in BACKENDS.items() if backend.probe()[0]}
    current = {bundle.manifest.name: bundle for bundle in bundles([], offline=True)}
    removed, freed = [], 0
    for folder, record in cache.records():
        name = record.bundle.partition("+")[0].rpartition("-")[0]
        replaced = name in current and _is_replaced(record, current[name])
        elsewhere = record.target is None and record.identity != versions.get(record.backend)
        known = BACKENDS.get(record.backend)
        older = known is None or record.revision != known.revision
        if options.all or replaced or elsewhere or older:
            freed += sum(path.stat().st_size for path in folder.glob("*"))
            removed.append(folder.name)
            shutil.rmtree(folder, ignore_errors=True)
            folder.with_name(f".{folder.name}.lock").unlink(missing_ok=True)
    if options.json:
        print(json.dumps({"removed": removed, "bytes": freed}))
    else:
        print(f"{len(removed)} engines deleted, {freed / 1e6:.0f} MB freed")
    return 0


def _is_replaced(record: cache.Record, bundle: Bundle) -> bool:
    """Whether an engine is of another graph than ``bundle`` has now; one of int8 is of the twin beside it, too."""
    if record.precision == "int8" and record.twin_sha256 is None:
        return True  # from before it was kept, so nothing says that the twin is the same
    twin = bundle.manifest.files.get(INT8) if record.precision == "int8" else None
    return (record.model_sha256, record.twin_sha256) != (bundle.sha256, twin)


def run_tune(options: argparse.Namespace) -> int:
    """Measure backends and precisions per model on this processor, and keep the fastest."""
    _golden_media(offline=options.offline)
    choices: dict[str, tuned.Choice] = {}
    rows: list[dict[str, Any]] = []
    chosen = bundles(options.bundle, offline=options.offline)
    with bar("tuning", len(chosen)) as advance:
        for bundle in chosen:
            advance(bundle.manifest.name)
            spec = EngineSpec(threads=options.threads, shapes=live_shapes(bundle))
            measured = _tune(bundle, spec)
            rows += measured
            able = [row for row in measured if row["ms"] is not None]
            if able:
                best = min(able, key=lambda row: row["ms"])
                best["chosen"] = True
                slower = sorted({row["backend"] for row in able} - {best["backend"]})
                choices[tuned.key(bundle, spec, None)] = tuned.Choice(
                    best["backend"], best["precision"], best["ms"], _others(measured, best), slower
                )
    try:
        path = tuned.store(choices)
    except OSError as error:
        raise EngineError(
            f"cannot write {tuned.file()} ({error.strerror}); set ECMF_CACHE elsewhere"
        ) from None
    if options.json:
        print(json.dumps({"machine": tuned.fingerprint(), "threads": options.threads, "rows": rows}))
        return 0
    show_tuned(rows)
    print(f"threads {options.threads}; kept in {path}; `--engine auto` uses it on this machine")
    return 0


def _tune(bundle: Bundle, spec: EngineSpec) -> list[dict[str, Any]]:
    """One row per candidate: its time, or why it is out."""
    rows: list[dict[str, Any]] = []
    engines: list[Engine] = []
    able: list[dict[str, Any]] = []
    for name in CPU:
        for precision in TUNED:
            row: dict[str, Any] = {
                "bundle": bundle.manifest.name,
                "backend": name,
                "precision": precision,
                "ms": None,
                "reason": None,
                "chosen": False,
            }
            rows.append(row)
            try:
                usable, row["reason"] = BACKENDS[name].probe()
                if not usable:
                    continue
                engines.append(
                    cache.build_or_load(BACKENDS[name], bundle, replace(spec, precision=precision))
                )
                able.append(row)
            except EngineError as error:
                row["reason"] = str(error)
    if engines:
        spent = contest.fastest_ms(engines, contest.samples(bundle, spec), ROUNDS)
        for row, ms in zip(able, spent, strict=True):
            row["ms"] = ms
    return rows


def _others(rows: list[dict[str, Any]], best: dict[str, Any]) -> dict[str, str]:
    """Why the other backends are not chosen, for what a running engine says of itself."""
    told = {}
    for name in CPU:
        mine = [row for row in rows if row["backend"] == name]
        times = [row["ms"] for row in mine if row["ms"] is not None]
        if name != best["backend"]:
            told[name] = (
                f"slower here ({min(times):.2f} ms; {best['backend']} takes {best['ms']:.2f} ms)"
                if times
                else str(mine[0]["reason"])
            )
    return told


def _golden_media(*, offline: bool) -> None:
    """Fetch the demo media that the parity gate needs; without them engines are built unproven."""
    names = ["demo-smile", "demo-face", "demo-speech-short"]
    try:
        with bars() as progress:
            pull(names, offline=offline, progress=progress)
    except WeightError as error:
        log.warning("the parity gate has no demo media: %s", error)


def _batches(text: str) -> tuple[int, ...]:
    try:
        values = tuple(int(part) for part in text.split(","))
    except ValueError:
        values = ()
    if not values or min(values) < 1:
        raise UsageError(f"--batch is {text!r}; expected sizes such as 1,4,8")
    return values


def _target(text: str | None) -> str | None:
    if text is not None and not re.fullmatch(r"sm_\d{2,3}", text):
        raise UsageError(f"--target is {text!r}; expected a compute capability such as sm_86")
    return text


def add_parser(commands: Any, common: argparse.ArgumentParser) -> None:
    """Hang `engines` into ecmf-models' subcommands."""
    parser = commands.add_parser("engines", help="compile the models for this machine, list, prune, tune")
    actions = parser.add_subparsers(required=True, metavar="build | list | prune | tune")
    chosen = argparse.ArgumentParser(add_help=False)
    chosen.add_argument(
        "--bundle",
        action="append",
        default=[],
        metavar="B",
        help="name or folder, repeatable; all that are here otherwise",
    )
    chosen.add_argument("--threads", type=int, default=1, help="threads of a CPU engine (1, as ecmf-live)")
    chosen.add_argument("--offline", action="store_true", help="never touch the network")

    action = actions.add_parser("build", parents=[common, chosen], help="build, prove and record engines")
    action.add_argument("--backend", default="auto", choices=["auto", *BACKENDS])
    action.add_argument("--precision", choices=PRECISIONS, help="fp32 otherwise, or what tune found faster")
    action.add_argument("--batch", default="1", metavar="1,4,8", help="static batch sizes")
    action.add_argument(
        "--target", metavar="sm_86", help="build for this GPU rather than what is here (tensorrt-rtx)"
    )
    action.set_defaults(run=run_build)

    action = actions.add_parser("list", parents=[common], help="what is cached, for what, and how exact")
    action.set_defaults(run=run_list)

    action = actions.add_parser("prune", parents=[common], help="delete engines that nothing here can load")
    action.add_argument("--all", action="store_true", help="every engine")
    action.set_defaults(run=run_prune)

    action = actions.add_parser(
        "tune", parents=[common, chosen], help="measure, and keep the fastest for auto"
    )
    action.set_defaults(run=run_tune)
