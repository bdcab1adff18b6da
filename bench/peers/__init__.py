"""What a user would pick instead, each in an environment of its own; never a dependency of this project."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ecmf.errors import EcmfError

HERE = Path(__file__).parent
LIMIT_S = 1800.0
"""Longest run of one of them."""

FER = "fer==25.10.*"
FER_NEEDS = ("tensorflow-cpu<2.22", "opencv-python-headless<5", "setuptools<81", "requests", "pillow")
"""What it imports for faces found by its default finder; all that it declares would be gigabytes of torch and CUDA."""
FACE_API = (
    "@vladmandic/face-api@1.7.15",
    "@tensorflow/tfjs@4.22.0",
    "@tensorflow/tfjs-backend-wasm@4.22.0",
)


class Absent(EcmfError):
    """It could not be run here, and why."""


@dataclass(frozen=True)
class Peer:
    """A package that reads expressions from pictures."""

    name: str
    command: Callable[[Path], list[str]]
    """Given the folder of environments; raises Absent."""

    def run(self, environments: Path | None, pictures: Path, tasks: Sequence[str]) -> dict[str, Any]:
        """``version``, ``backend``, and per task ``labels`` (None: no face found) and ``ms``. Raises Absent."""
        if environments is None:
            raise Absent("not installed: give its folder with --peers, and --install once")
        command = [*self.command(environments), str(pictures), *tasks]
        one = dict.fromkeys(("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"), "1")
        try:
            done = subprocess.run(
                command,
                capture_output=True,
                text=True,
                timeout=LIMIT_S,
                env={**os.environ, **one},
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise Absent(f"it took longer than {LIMIT_S:.0f} s") from None
        if done.returncode != 0 or not done.stdout.strip():
            said = done.stderr.strip().splitlines()
            raise Absent(f"it ended with code {done.returncode}: {said[-1] if said else 'without a word'}")
        told: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
        return told


def _fer(environments: Path) -> list[str]:
    python = environments / "fer" / "bin" / "python"
    if not python.is_file():
        raise Absent(f"not installed in {environments.name}; --install does that")
    return [str(python), str(HERE / "fer_package.py")]


def _face_api(finder: str) -> Callable[[Path], list[str]]:
    def command(environments: Path) -> list[str]:
        node = shutil.which("node")
        if node is None:
            raise Absent("node is not installed")
        modules = environments / "face-api"
        if not (modules / "node_modules" / "@vladmandic" / "face-api").is_dir():
            raise Absent(f"not installed in {environments.name}; --install does that")
        return [node, str(HERE / "face_api.mjs"), finder, str(modules)]

    return command


PEERS = (
    Peer("fer", _fer),
    Peer("face-api, SSD finder", _face_api("ssd")),
    Peer("face-api, tiny finder", _face_api("tiny")),
)


def install(environments: Path) -> dict[str, str]:
    """Make the environments that are missing; what failed, by package, with its reason."""
    failed: dict[str, str] = {}
    fer, face_api = environments / "fer", environments / "face-api"
    pip = [str(fer / "bin" / "python"), "-m", "pip", "install", "--quiet"]
    jobs: list[tuple[str, Path, list[list[str]]]] = [
        (
            "fer",
            fer / "installed",
            [[sys.executable, "-m", "venv", str(fer)], [*pip, "--no-deps", FER], [*pip, *FER_NEEDS]],
        ),
        (
            "face-api",
            face_api / "installed",
            [["npm", "install", "--prefix", str(face_api), "--ignore-scripts", "--no-audit", *FACE_API]],
        ),
    ]
    for name, mark, commands in jobs:
        if mark.exists():
            continue
        mark.parent.mkdir(parents=True, exist_ok=True)
        for command in commands:
            try:
                done = subprocess.run(command, capture_output=True, text=True, check=False)
            except FileNotFoundError:
                failed[name] = f"{command[0]} is not installed"
                break
            if done.returncode != 0:
                failed[name] = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
                break
        else:
            mark.touch()
    return failed
