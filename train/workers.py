"""Pieces of one command's work, done ahead by several processes of this machine: folds of a fit, clips to extract.

A piece leaves its result on disk. Whoever asked for it then goes through all pieces in order, finds them done, and
makes up for what a process that died has left: so nothing is handed back, and one process gives the same result.
"""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Sequence
from multiprocessing.connection import wait
from typing import Any

from ecmf.errors import EcmfError, UsageError
from train.progress import Advance, shown

log = logging.getLogger("train.workers")
POLL_S = 0.2
Piece = Callable[[Advance], Any]
"""Does its work and tells how many of its steps are done. It is pickled: a functools.partial of a module's function."""


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def add_processes(parser: argparse.ArgumentParser) -> None:
    """The option of every command whose work can be shared out here."""
    parser.add_argument(
        "--processes",
        type=_count,
        metavar="N",
        help="how many extract clips or train folds side by side on this machine, each with up to 1 GB of its own "
        f"(default: one a core, {cores()} here); they change nothing in the result",
    )


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: a whole number, at least 1")
    return int(text)


def ahead(pieces: Sequence[Piece], processes: int, steps: int, what: str) -> None:
    """Do the pieces, of ``steps`` steps together, in up to ``processes`` processes; shows their progress as one.

    Returns when no process is left; pieces of one that died are undone. Raises the first EcmfError or OSError of a
    piece, and UsageError for less than one process.
    """
    if processes < 1:
        raise UsageError(f"--processes {processes}: at least one")
    context = multiprocessing.get_context("spawn")
    following, done = context.Value("q", 0), context.Array("q", len(pieces))
    failed = context.SimpleQueue()
    started: list[Any] = []
    try:
        for _ in range(min(processes, len(pieces))):
            process = context.Process(target=_work, args=(pieces, following, done, failed), daemon=True)
            process.start()
            started.append(process)
        with shown(f"{what}, {len(started)} processes", steps) as advance:
            while (working := [p.sentinel for p in started if p.is_alive()]) and failed.empty():
                wait(working, POLL_S)
                advance(sum(done[:]), "")
        if not failed.empty():
            raise failed.get()
        for process in started:
            if process.exitcode:
                log.warning(
                    "a process ended with code %s; the others and this one do its work", process.exitcode
                )
    finally:
        for process in started:
            process.kill()  # files are written whole or not at all
            process.join()


def _work(pieces: Sequence[Piece], following: Any, done: Any, failed: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever started this decides
    threading.Thread(target=_follow, daemon=True).start()
    while True:
        with following.get_lock():
            number = following.value
            following.value += 1
        if number >= len(pieces):
            return

        def advance(steps: int, note: str, number: int = number) -> None:
            done[number] = steps

        try:
            pieces[number](advance)
        except (EcmfError, OSError) as error:
            failed.put(error)
            return


def _follow() -> None:
    """End when the process that started this one has ended, killed perhaps."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
