"""Write the bundle of a run, and build its engines: python -m train.export RUN

A run is the folder that `python -m train.fit --out RUN` fills. A finished one is measured and exported again, without
any training; an unfinished one is trained to its end first, or with --unfinished exported as its last checkpoint is.

  python -m train.export runs/clips                          RUN/model
  python -m train.export runs/clips --out heads/bored        a copy elsewhere
  python -m train.export runs/clips --engines auto           with the engine that this machine takes first
  python -m train.export runs/clips --engines tensorrt-rtx --engines onnxruntime
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ecmf.bundle import Bundle, write_bundle
from ecmf.engines.choose import BACKENDS
from ecmf.errors import UsageError
from train import command, run


def engines(bundle: Bundle, backends: Sequence[str]) -> None:
    """Build, prove and record engines, as `ecmf-models engines build --bundle DIR` does.

    Raises EngineError for a backend that does not run here or fails the parity gate.
    """
    from ecmf.engines_cli import run_build

    for backend in backends:
        run_build(
            argparse.Namespace(
                bundle=[str(bundle.folder)],
                backend=backend,
                precision="fp32",
                batch="1",
                target=None,
                threads=1,
                offline=False,
                json=False,
            )
        )


def copied(bundle: Bundle, out: Path) -> Bundle:
    """The bundle in another folder, under that folder's name."""
    if out.exists() and not (out / "manifest.json").is_file():
        raise UsageError(f"--out {out} is there and is no bundle; name a new folder")
    manifest = replace(bundle.manifest, name=out.name, files={})
    return write_bundle(out, manifest, {name: bundle.folder / name for name in bundle.manifest.files})


def export(folder: Path, out: Path | None = None, *, unfinished: bool = False) -> Bundle:
    """The bundle of a run. Raises UsageError for a folder that is no run's, and what ``train.fit`` raises."""
    from train.fit import fit

    if out is not None:
        command.writable("--out", out.parent)
    bundle = fit(replace(run.load(folder), unfinished=unfinished))
    return bundle if out is None else copied(bundle, out)


def add_engines(parser: argparse.ArgumentParser) -> None:
    """The option that train.fit has too."""
    parser.add_argument(
        "--engines",
        action="append",
        default=[],
        choices=["auto", *BACKENDS],
        help="also build the bundle's engine for this backend, repeatable; auto: the first that works here",
    )


def parser() -> argparse.ArgumentParser:
    made = command.parser("export", __doc__)
    made.add_argument("run", type=Path, metavar="RUN", help="the folder that train.fit --out filled")
    made.add_argument("--out", type=Path, metavar="DIR", help="write a copy of the bundle here")
    made.add_argument(
        "--unfinished", action="store_true", help="export the last checkpoint of a run that is not done"
    )
    add_engines(made)
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    asked = parser().parse_args(arguments)

    def work() -> str:
        bundle = export(asked.run, asked.out, unfinished=asked.unfinished)
        engines(bundle, asked.engines)
        return f"{bundle.id} is in {bundle.folder}"

    return command.carried_out(work)


if __name__ == "__main__":
    raise SystemExit(main())
