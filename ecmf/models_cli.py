"""`ecmf-models`: pull, list and verify the weights, what is made of them, and the engines that run it."""

from __future__ import annotations

import argparse
import importlib.util
import json
import logging
import os
import sys
from collections.abc import Sequence
from typing import Any

from ecmf import engines_cli
from ecmf.errors import EcmfError, WeightError, need
from ecmf.progress import bars
from ecmf.registry import GROUPS, Weight, registry, unknown
from ecmf.weights import bundle_dir, imported, locate, pull, verify, verify_model, weights_dir

DESCRIPTION = """\
Third-party weights: each file is checked by sha256 and kept in the cache ($ECMF_CACHE, else ~/.cache/ecmf-live).
$ECMF_WEIGHTS_DIR may name a folder that has them already, as <name>/<file>; $HF_ENDPOINT a mirror of the hub.
"""


def _default_groups() -> list[str]:
    """What `ecmf-live`, also with --demo, needs here: the language model only where it can be run."""
    return ["live", "demo", *(["llm"] if importlib.util.find_spec("llama_cpp") is not None else [])]


def run_pull(options: argparse.Namespace) -> int:
    """Fetch what is missing, and make the models that it allows."""
    table = registry()
    groups = options.group or ([] if options.names or options.all else _default_groups())
    names = [weight.name for group in groups for weight in table.group(group)]
    names += table.weights if options.all else []
    for name in options.names:
        if name not in table.weights and name not in table.bundles:
            raise unknown(name, [*table.weights, *table.bundles], "weight or model")
        names += table.bundles[name].weights if name in table.bundles else [name]
    with bars() as progress:
        paths = pull(names, offline=options.offline, progress=progress)
        allowed = [name for name, recipe in table.bundles.items() if paths.keys() >= set(recipe.weights)]
        folders = {name: imported(name, offline=True).folder for name in allowed}
    if options.json:
        ready = {"weights": paths, "models": folders}
        print(
            json.dumps(
                {key: {name: str(path) for name, path in value.items()} for key, value in ready.items()}
            )
        )
    else:
        size = sum(table.weight(name).size for name in paths) / 1e6
        print(
            f"{len(paths)} weights ({size:.0f} MB) and {len(folders)} models ready in {weights_dir().parent}"
        )
    return 0


def run_list(options: argparse.Namespace) -> int:
    """Show every weight, its licence, and whether it is here."""
    weights = [_row(weight) for weight in registry().weights.values()]
    models: list[dict[str, Any]] = [
        {"name": name, "weights": list(recipe.weights), "path": str(folder) if folder.exists() else None}
        for name, recipe in registry().bundles.items()
        if (folder := bundle_dir(name))
    ]
    if options.json:
        print(json.dumps({"cache": str(weights_dir()), "weights": weights, "models": models}))
        return 0
    table = need("rich.table", "live").Table(box=need("rich.box", "live").SIMPLE_HEAD, pad_edge=False)
    for column in ("weight", "licence", "MB", "for", "here"):
        table.add_column(column, justify="right" if column == "MB" else "left", no_wrap=True)
    table.add_column("role", overflow="fold")
    for row in weights:
        here = "yes" if row["path"] else "no"
        table.add_row(
            row["name"],
            row["licence"],
            f"{row['bytes'] / 1e6:.1f}",
            " ".join(row["groups"]),
            here,
            row["role"],
        )
    console = need("rich.console", "live").Console()
    console.print(table)
    console.print(f"kept in {weights_dir()}", soft_wrap=True, highlight=False)
    ready = [model["name"] for model in models if model["path"]]
    console.print(f"models made of them: {', '.join(ready) or 'none yet'}", soft_wrap=True, highlight=False)
    return 0


def _row(weight: Weight) -> dict[str, Any]:
    path = locate(weight)
    return {
        "name": weight.name,
        "role": weight.role,
        "licence": weight.licence,
        "groups": list(weight.groups),
        "bytes": weight.size,
        "sha256": {file.name: file.sha256 for file in weight.files},
        "path": None if path is None else str(path),
    }


def run_verify(options: argparse.Namespace) -> int:
    """Hash again whatever is here; a wrong file, or a named one that is missing, is an error."""
    chosen = [registry().weight(name) for name in options.names] or list(registry().weights.values())
    results = [(weight.name, *verify(weight)) for weight in chosen]
    if not options.names:
        results += [(f"model {name}", *verify_model(name)) for name in registry().bundles]
    if options.json:
        print(
            json.dumps([{"name": name, "state": state, "path": str(path)} for name, state, path in results])
        )
    else:
        for name, state, path in results:
            print(f"{state:8}  {name:23} {path}")
    wrong = [name.removeprefix("model ") for name, state, _ in results if state == "wrong"]
    missing = [name for name, state, _ in results if state == "missing" and options.names]
    if wrong or missing:
        what = [f"{', '.join(wrong)}: not the bytes that were expected"] if wrong else []
        what += [f"{', '.join(missing)}: not here"] if missing else []
        raise WeightError(f"{'; '.join(what)}; run `ecmf-models pull {' '.join(wrong + missing)}`")
    return 0


def _parser() -> argparse.ArgumentParser:
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("ecmf-models", description=DESCRIPTION, formatter_class=form)
    commands = parser.add_subparsers(required=True, metavar="pull | list | verify | engines")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--json", action="store_true", help="one JSON document on stdout")
    common.add_argument(
        "--weights-dir", metavar="DIR", help="a folder to look in first; same as $ECMF_WEIGHTS_DIR"
    )
    common.add_argument("-v", "--verbose", action="store_true", help="say which sources were tried")

    command = commands.add_parser("pull", parents=[common], help="fetch weights and make models of them")
    command.add_argument("names", nargs="*", help="weights or models; without any: what ecmf-live needs here")
    command.add_argument("--group", action="append", default=[], metavar="GROUP", help=" | ".join(GROUPS))
    command.add_argument("--all", action="store_true", help="every weight there is")
    command.add_argument("--offline", action="store_true", help="never touch the network")
    command.set_defaults(run=run_pull)

    command = commands.add_parser("list", parents=[common], help="what there is, its licence and size")
    command.set_defaults(run=run_list)

    command = commands.add_parser("verify", parents=[common], help="hash the files on this machine again")
    command.add_argument("names", nargs="*", help="weights; without any: all that are here")
    command.set_defaults(run=run_verify)

    engines_cli.add_parser(commands, common)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """The console script; returns the exit code."""
    options = _parser().parse_args(arguments)
    level = logging.INFO if options.verbose else logging.WARNING
    logging.basicConfig(level=level, format="ecmf-models: %(message)s", stream=sys.stderr, force=True)
    if options.weights_dir:
        os.environ["ECMF_WEIGHTS_DIR"] = options.weights_dir
    try:
        code: int = options.run(options)
        sys.stdout.flush()
    except EcmfError as error:
        print(f"ecmf-models: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:  # the reader, e.g. `head`, has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print("ecmf-models: interrupted; a pull goes on where it stopped", file=sys.stderr)
        return 130
    return code


if __name__ == "__main__":
    sys.exit(main())
