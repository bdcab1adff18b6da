"""Standard input, output and error, also where a program is started without them, or with few letters."""

from __future__ import annotations

import io
import os
import sys

_STREAMS = (("stdin", os.O_RDONLY, "r"), ("stdout", os.O_WRONLY, "w"), ("stderr", os.O_WRONLY, "w"))


def complete() -> None:
    """Put the null device where one is closed (``>&-``; some supervisors do it).

    Otherwise Python has None there, and the next file or socket that is opened would become standard output, which
    libraries print to. And let a letter that the locale does not know be replaced, instead of ending the program.
    To be called before anything is opened.
    """
    for number, (name, flags, mode) in enumerate(_STREAMS):
        if getattr(sys, name) is not None:
            continue
        opened = os.open(os.devnull, flags)
        if opened != number:
            os.dup2(opened, number)
            os.close(opened)
        setattr(sys, name, open(number, mode, closefd=False))  # noqa: SIM115  (for as long as the process)
    if isinstance(sys.stdout, io.TextIOWrapper):  # standard error replaces them by itself
        sys.stdout.reconfigure(errors="replace")
