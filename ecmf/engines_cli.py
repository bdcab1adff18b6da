"""`ecmf-models engines`: build, list, prune and tune what is compiled for this machine."""

from __future__ import annotations

import argparse
import json
import logging
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

from ecmf.bundle import SHIPPED, Bundle, load_bundle
from ecmf.engines import cache, parity, tuned
from ecmf.engines.base import Engine, EngineSpec, Precision, Unsuitable
from ecmf.engines.choose import BACKENDS, order
from ecmf.errors import EngineError, UsageError, WeightError, need
from ecmf.golden import inputs
from ecmf.progress import bars
from ecmf.registry import registry
from ecmf.weights import bundle_dir, imported, pull

log = logging.getLogger("ecmf.engines")

PRECISIONS = get_args(Precision)
CPU = ("openvino", "onnxruntime")
TUNED: tuple[Precision, ...] = ("fp32", "bf16")
"""What `tune` compares on the CPU, where backend and processor allow it. int8 runs only when asked for: it keeps the
labels, but moves the embeddings that the fusion head reads."""
VOICE_FRAMES_PER_SECOND = 12.5
"""Frames of the voice network a second (ecmf.branches.voice: 50 states a second, four averaged)."""
ROUNDS = 3
"""`tune` goes round its candidates this often, so that a busy moment does not decide; the best median counts."""


def bundles(names: Sequence[str], *, offline: bool) -> list[Bundle]:
    """Bundles by name or folder; without any, the shipped ones and the imported ones that are already here."""
    shipped = sorted(path.parent.name for path in SHIPPED.glob("*/manifest.json"))
    found = []
    for name in names or [*shipped, *(n for n in registry().bundles if bundle_dir(n).exists())]:
        if name in shipped:
            found.append(load_bundle(SHIPPED / name))
        elif (Path(name) / "manifest.json").is_file():
            found.append(load_bundle(Path(name)))
        elif name in registry().bundles:
            found.append(imported(name, offline=offline))
        else:
            known = ", ".join([*shipped, *registry().bundles])
            raise UsageError(f"unknown bundle {name!r}; name a bundle's folder or one of {known}")
    return found


def live_shapes(bundle: Bundle) -> dict[str, tuple[int, ...]]:
    """The shapes that the live branches ask for, so that an engine built here is the one they load."""
    sizes = {"batch": 1}
    if bundle.manifest.name == "voice":
        sizes["time"] = round(float(bundle.manifest.preprocessing["window_s"]) * VOICE_FRAMES_PER_SECOND)
    elif bundle.manifest.name not in ("face", "face-landmarks"):
        return {}
    return {
        port.name: tuple(sizes[size] if isinstance(size, str) else size for size in port.shape)
        for port in bundle.manifest.inputs
    }


def run_build(options: argparse.Namespace) -> int:
    """Build, prove and record engines."""
    batches = _batches(options.batch)
    target = _target(options.target)
    _golden_media(offline=options.offline)
    rows = []
    chosen = bundles(options.bundle, offline=options.offline)
    with _bar("building", len(chosen)) as advance:
        for bundle in chosen:
            advance(bundle.manifest.name)
            sizes = {"batch": batches} if batches != (1,) else {}
            shapes = {} if sizes else live_shapes(bundle)
            spec = EngineSpec(options.precision, options.threads, shapes, sizes, target)
            rows.append(_build(bundle, options.backend, spec))
    _show(rows, options.json)
    failed = [row for row in rows if row["error"]]
    if failed:
        raise EngineError("; ".join(f"{row['bundle']}: {row['error']}" for row in failed))
    return 0


def _build(bundle: Bundle, backend: str, spec: EngineSpec) -> dict[str, Any]:
    refusals = []
    names = order(bundle) if backend == "auto" else [backend]
    for name in names:
        candidate = BACKENDS[name]
        usable, reason = (True, "") if spec.target else candidate.probe()
        if not usable:
            refusals.append(f"{name}: {reason}")
            continue
        try:
            folder, record = cache.build(candidate, bundle, spec)
        except EngineError as error:
            refusals.append(str(error) if str(error).startswith(name) else f"{name}: {error}")
            if backend == "auto" and not isinstance(error, Unsuitable):
                log.warning("%s", error)
            continue
        except OSError as error:
            raise EngineError(
                f"cannot keep engines in {cache.cache_dir() / 'engines'} ({error.strerror or error}); make it "
                "writable or set ECMF_CACHE to another folder"
            ) from None
        return {**_row(folder, record), "error": None}
    return {"bundle": bundle.id, "backend": backend, "error": "; ".join(refusals)}


def run_list(options: argparse.Namespace) -> int:
    """Show what is in the cache."""
    _show([_row(folder, record) for folder, record in cache.records()], options.json)
    return 0


def run_prune(options: argparse.Namespace) -> int:
    """Delete engines that nothing here loads any more: of another version or device, or of
    a model that was replaced; or all of them."""
    versions = {name: backend.identity() for name, backend in BACKENDS.items() if backend.probe()[0]}
    current = {bundle.manifest.name: bundle.sha256 for bundle in bundles([], offline=True)}
    removed, freed = [], 0
    for folder, record in cache.records():
        name = record.bundle.partition("+")[0].rpartition("-")[0]
        replaced = current.get(name, record.model_sha256) != record.model_sha256
        elsewhere = record.target is None and record.identity != versions.get(record.backend)
        if options.all or replaced or elsewhere:
            freed += sum(path.stat().st_size for path in folder.glob("*"))
            removed.append(folder.name)
            shutil.rmtree(folder, ignore_errors=True)
            folder.with_name(f".{folder.name}.lock").unlink(missing_ok=True)
    if options.json:
        print(json.dumps({"removed": removed, "bytes": freed}))
    else:
        print(f"{len(removed)} engines deleted, {freed / 1e6:.0f} MB freed")
    return 0


def run_tune(options: argparse.Namespace) -> int:
    """Measure backends and precisions per model on this processor, and keep the fastest."""
    _golden_media(offline=options.offline)
    choices: dict[tuple[str, int], tuned.Choice] = {}
    rows: list[dict[str, Any]] = []
    chosen = bundles(options.bundle, offline=options.offline)
    with _bar("tuning", len(chosen)) as advance:
        for bundle in chosen:
            advance(bundle.manifest.name)
            measured = _tune(bundle, options.threads)
            rows += measured
            able = [row for row in measured if row["p50_ms"] is not None]
            if able:
                best = min(able, key=lambda row: row["p50_ms"])
                best["chosen"] = True
                choices[bundle.sha256, options.threads] = tuned.Choice(
                    best["backend"], best["precision"], best["p50_ms"]
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
    table = _table("bundle", "backend", "precision", "p50 ms", "note")
    for row in rows:
        time_ms = f"{row['p50_ms']:.2f}" if row["p50_ms"] is not None else ""
        mark = "chosen" if row["chosen"] else row["reason"] or ""
        table.add_row(row["bundle"], row["backend"], row["precision"], time_ms, mark)
    _print(table)
    print(f"threads {options.threads}; kept in {path}; `--engine auto` uses it on this machine")
    return 0


def _tune(bundle: Bundle, threads: int) -> list[dict[str, Any]]:
    """One row per candidate: the best of ROUNDS medians, or why it is out."""
    rows: list[dict[str, Any]] = []
    engines: list[tuple[dict[str, Any], Engine]] = []
    sample: dict[str, Any] = {}
    for name in CPU:
        for precision in TUNED:
            row: dict[str, Any] = {
                "bundle": bundle.manifest.name,
                "backend": name,
                "precision": precision,
                "p50_ms": None,
                "reason": None,
                "chosen": False,
            }
            rows.append(row)
            spec = EngineSpec(precision, threads, live_shapes(bundle))
            try:
                usable, row["reason"] = BACKENDS[name].probe()
                if not usable:
                    continue
                sample = sample or inputs(bundle, spec)[0]
                engines.append((row, cache.build_or_load(BACKENDS[name], bundle, spec)))
            except EngineError as error:
                row["reason"] = str(error)
    for _ in range(ROUNDS):
        for row, engine in engines:
            found = parity.latency_ms(engine, sample)
            row["p50_ms"] = found if row["p50_ms"] is None else min(found, row["p50_ms"])
    return rows


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


def _row(folder: Path, record: cache.Record) -> dict[str, Any]:
    proof = record.parity or {}
    return {
        "bundle": record.bundle,
        "backend": record.backend,
        "precision": record.precision,
        "device": record.target or record.identity.rpartition(" on ")[2],
        "identity": record.identity,
        "bytes": record.size,
        "build_s": record.build_s,
        "parity_error": proof.get("error"),
        "label_agreement": proof.get("agreement"),
        "latency_ms": proof.get("latency_ms"),
        "unproven": None if record.parity else (record.unproven or "built before engines were proven"),
        "spec": json.loads(record.spec),
        "path": str(folder),
    }


def _show(rows: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        print(json.dumps(rows))
        return
    table = _table("bundle", "backend", "precision", "device", "MB", "build s", "error", "ms", "note")
    for row in rows:
        if row.get("error"):
            table.add_row(row["bundle"], row["backend"], "", "", "", "", "", "", f"failed: {row['error']}")
            continue
        error = "" if row["parity_error"] is None else f"{row['parity_error']:.1e}"
        latency = "" if row["latency_ms"] is None else f"{row['latency_ms']:.2f}"
        table.add_row(
            row["bundle"],
            row["backend"],
            row["precision"],
            row["device"],
            f"{row['bytes'] / 1e6:.1f}",
            f"{row['build_s']:.1f}",
            error,
            latency,
            f"unproven: {row['unproven']}" if row["unproven"] else "",
        )
    _print(table)


def _table(*columns: str) -> Any:
    table = need("rich.table", "live").Table(box=need("rich.box", "live").SIMPLE_HEAD, pad_edge=False)
    right = {"MB", "build s", "error", "ms", "p50 ms"}
    for column in columns:
        table.add_column(
            column,
            justify="right" if column in right else "left",
            overflow="fold",
            no_wrap=column not in ("device", "note"),
        )
    return table


def _print(table: Any) -> None:
    need("rich.console", "live").Console().print(table)


@contextmanager
def _bar(what: str, total: int) -> Iterator[Any]:
    """A progress bar on stderr; call what it gives with the name of each part as it begins."""
    progress = need("rich.progress", "live")
    console = need("rich.console", "live").Console(stderr=True)
    columns = progress.TextColumn("{task.description}"), progress.BarColumn(), progress.MofNCompleteColumn()
    with progress.Progress(*columns, progress.TimeElapsedColumn(), console=console) as bar:
        task = bar.add_task(what, total=total)
        begun = 0

        def advance(name: str) -> None:
            nonlocal begun
            bar.update(task, description=f"{what} {name}", completed=begun)
            begun += 1

        yield advance
        bar.update(task, description=what, completed=begun)


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
    action.add_argument("--precision", default="fp32", choices=PRECISIONS)
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
