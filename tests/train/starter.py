"""Processes of train.fit that begin at their work: forked from one that has imported torch and the rest already."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import threading
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

SAVED_EVERY = 20
"""Steps between two checkpoints of a run, so that a short one has many."""
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


class Starter:
    """Starts one run after the other. What they say goes to the file ``told``."""

    def __init__(self, told: Path) -> None:
        self.told = told
        self._process = subprocess.Popen(
            [sys.executable, __file__, str(told)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            env=ENVIRONMENT,
        )

    def start(self, arguments: Sequence[str]) -> int:
        """Begin `python -m train.fit ARGUMENTS`; its process id."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{json.dumps(list(arguments))}\n".encode())
        return int(self._line())

    def over(self, within_s: float) -> bool:
        """Whether it ends within ``within_s`` seconds from now."""
        return bool(select.select([self._process.stdout], [], [], within_s)[0])

    def ended(self) -> tuple[int, float]:
        """Wait for it; its exit code, negative for a signal, and the seconds of processor time that it took."""
        code, used_s = self._line().split()
        return int(code), float(used_s)

    def close(self) -> None:
        self._process.communicate()

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the starter has ended"
        return line.decode()


def _serve(told: Path) -> None:
    import matplotlib.pyplot
    import torch
    import tqdm

    from train import descent, fit, fit_folder, fit_mer

    assert matplotlib.pyplot and fit_folder and fit_mer
    descent.MOST_STEPS = SAVED_EVERY
    # What torch imports when it first optimises and exports.
    tqdm.tqdm.monitor_interval = 0  # else a thread
    tiny = torch.nn.Linear(1, 1)
    torch.optim.AdamW(tiny.parameters())
    torch.onnx.export(tiny.eval(), (torch.zeros(1, 1),), dynamo=True, verbose=False)
    # The allocator of pyarrow has a thread, and knows of forks; any other might leave a lock behind.
    assert threading.active_count() == 1, "a process of several threads is not forked"
    for line in sys.stdin:
        child = os.fork()
        if not child:
            _run(fit.main, json.loads(line), told)
        print(child, flush=True)
        _, status, used = os.wait4(child, 0)
        print(os.waitstatus_to_exitcode(status), used.ru_utime + used.ru_stime, flush=True)


def _run(main: object, arguments: Sequence[str], told: Path) -> NoReturn:
    code = 1
    try:
        output = os.open(told, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        for standard in (1, 2):
            os.dup2(output, standard)
        assert callable(main)
        code = main(arguments)
        sys.stdout.flush()
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    _serve(Path(sys.argv[1]))
