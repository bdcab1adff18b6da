"""What the commands of this package have in common: options with one spelling and help, logging, errors, results."""

from __future__ import annotations

import argparse
import errno
import json
import logging
import math
import re
import sys
import tempfile
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from ecmf.errors import EcmfError, UsageError
from train import distributed

OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "--features": {"type": Path, "metavar": "DIR", "help": "MER2025 Track 1: csv, npz and features/"},
    "--labels": {
        "metavar": "A,B,C",
        "help": "the label set; any other label is an error (default: as found in the data)",
    },
    "--config": {
        "type": Path,
        "metavar": "FILE",
        "help": "TOML in place of the recipe in train/recipes; for MER2025 also what modality a feature is of",
    },
    "--cache": {
        "type": Path,
        "metavar": "DIR",
        "help": "where extracted features are kept (default: features/ in the cache, ~/.cache/ecmf-live)",
    },
    "--seed": {
        "type": int,
        "default": 0,
        "metavar": "N",
        "help": "of whatever is drawn at random (default: %(default)s)",
    },
    "--offline": {"action": "store_true", "help": "never fetch weights"},
}
"""The same option means the same, and says the same, wherever it stands."""


def parser(name: str, doc: str | None) -> argparse.ArgumentParser:
    """``doc``: the module's text, which is the help as it stands."""
    return argparse.ArgumentParser(
        prog=f"python -m train.{name}", description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def add(made: Any, *options: str) -> None:
    """Add some of OPTIONS to a parser or a group of one."""
    for option in options:
        made.add_argument(option, **OPTIONS[option])


def carried_out(work: Callable[[], str]) -> int:
    """Do the work and print what it says on stdout; an EcmfError, or a file or folder that cannot be read or
    written, is one line on stderr. Returns the exit code."""
    quiet_logging()
    try:
        said = work()
    except EcmfError as error:
        if not distributed.rank():
            print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        where = error.filename or ("writing" if error.errno in (errno.ENOSPC, errno.EDQUOT) else None)
        if where is None:
            raise
        print(f"error: {where}: {error.strerror}", file=sys.stderr)
        return EcmfError.exit_code
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        return 130
    if not distributed.rank():
        print(said)
    return 0


def quiet_logging() -> None:
    """What training says on stderr, of the rest warnings only."""
    logging.basicConfig(
        level=logging.WARNING, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr
    )
    logging.getLogger("train").setLevel(logging.INFO)
    # That torchvision is absent; a level would be forgotten when torch is imported.
    logging.getLogger("torch.onnx._internal.exporter._registration").addFilter(lambda record: False)
    warnings.filterwarnings("ignore", module=r"torch\.onnx")
    warnings.filterwarnings("ignore", category=FutureWarning, module="copyreg")


def results(found: Any) -> str:
    """JSON for people and machines, a list of numbers a line; a number that is none (NaN, infinite) is null."""
    text = json.dumps(_plain(found), indent=1, allow_nan=False)
    # A line break cannot be within a string, so this is a list, and one without lists, objects or strings in it.
    return re.sub(r'\[\n[^][{}"]*\]', lambda found: "[" + " ".join(found[0][1:-1].split()) + "]", text) + "\n"


def line(found: Any) -> str:
    """``results`` in one line, without the end of it."""
    return json.dumps(_plain(found), allow_nan=False)


def writable(option: str, folder: Path) -> None:
    """Find out before the work whether its results can be kept; leaves nothing behind. Raises UsageError."""
    if distributed.rank():
        return
    made: list[Path] = []
    try:
        for part in reversed([part for part in (folder, *folder.parents) if not part.exists()]):
            part.mkdir(exist_ok=True)
            made.append(part)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UsageError(
            f"{option} {folder} cannot be written to ({error.strerror}); name a folder that can"
        ) from None
    finally:
        for part in reversed(made):
            with suppress(OSError):  # another process uses it already
                part.rmdir()


def _plain(found: Any) -> Any:
    if isinstance(found, Mapping):
        return {str(key): _plain(value) for key, value in found.items()}
    if isinstance(found, list | tuple):
        return [_plain(value) for value in found]
    if isinstance(found, np.ndarray | np.generic):
        return _plain(found.tolist())
    return None if isinstance(found, float) and not math.isfinite(found) else found
