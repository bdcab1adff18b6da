"""The errors that a person is meant to read: each message names the thing, the value found and the remedy."""

from __future__ import annotations

import importlib
from types import ModuleType


class EcmfError(Exception):
    """Bad input or a missing piece. Command lines print it as one line and exit with ``exit_code``."""

    exit_code = 2


class UsageError(EcmfError):
    """An option or a configuration value that makes no sense."""


class WeightError(EcmfError):
    """A weight that is unknown, missing, unreachable or not what its hash says."""


class BundleError(EcmfError):
    """A bundle whose manifest or files are missing, broken or of another format."""


class EngineError(EcmfError):
    """A backend that cannot build, load or run a bundle, or fails the parity gate."""


class SourceError(EcmfError):
    """A camera, microphone, file or address that cannot be opened or decoded."""


class DataError(EcmfError):
    """Training data that cannot be used; names the file and the row."""


class MissingExtra(EcmfError):
    """An optional package is not installed, or cannot be loaded."""


def need(module: str, extra: str) -> ModuleType:
    """Import ``module``, or raise MissingExtra naming the extra that brings it, or what its libraries lack.

    ``ecmf`` and ``realtime`` import with numpy alone; a heavy package is imported where it is first used.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        top = module.partition(".")[0]
        if error.name is None or error.name.partition(".")[0] != top:
            raise
        raise MissingExtra(
            f"{top} is not installed; install it with: pip install 'ecmf-live[{extra}]'"
        ) from None
    except ImportError as error:
        raise MissingExtra(
            f"{module} is installed but cannot be loaded ({str(error).splitlines()[0]}); is there enough memory, and "
            "are the system libraries that it needs?"
        ) from None
