"""Several streams of one process load the language model at the same time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("llama_cpp", reason="pip install -e '.[llm]'")

PROGRAM = """
import sys, threading, time
from pathlib import Path
import llama_cpp
from ecmf.errors import WeightError
from ecmf.gguf import LanguageModel

plain, calls = llama_cpp.llama_log_set, []

def slow(listener, data):
    calls.append(listener)
    time.sleep(0.2)
    plain(listener, data)

llama_cpp.llama_log_set = slow
said = []

def load():
    try:
        LanguageModel(Path(sys.argv[1]))
    except WeightError as error:
        said.append(str(error))

threads = [threading.Thread(target=load) for _ in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(len(calls), len(said), len(set(said)))
"""


def test_loading_in_several_threads_sets_one_listener_and_each_hears_its_own_complaint(
    tmp_path: Path,
) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF" + bytes(64))
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(broken)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["1", "4", "1"]
