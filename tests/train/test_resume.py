"""Killed at random moments train.fit ends with the same bundle; so do two processes, up to the order of additions."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import resource
import subprocess
import sys
import wave
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from ecmf import golden
from ecmf.bundle import Bundle, load_bundle
from ecmf.engines.base import EngineSpec
from ecmf.engines.choose import open_engine
from ecmf.labels import MER
from train.clip_file import open_clip
from train.datasets import folder, mer2025

pytestmark = pytest.mark.slow
KILLS = 5
FOLDER = 'version = "3"\nsteps = 1500\nbatch = 32\n[head]\nwidth = 16\nheads = 2\n'
FOLDS = 'version = "1"\nfolds = 3\nsteps = 500\nbatch = 64\n[head]\nwidth = 32\nheads = 4\n'
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def clips(demo_face: Path, demo_speech: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of the demo video, where one label is distress and the other laughter, and pieces of read speech."""
    cv2 = pytest.importorskip("cv2")
    data = tmp_path_factory.mktemp("clips")
    rows = ["path,label,speaker,split"]
    frames = [(t, frame) for t, frame in open_clip(demo_face).frames if t < 6 or t > 11]
    for number, (t, frame) in enumerate(frames[::8]):
        cv2.imwrite(str(data / f"face{number}.png"), frame)
        label, split = "distress" if t < 6 else "laughter", ("train", "train", "valid", "test")[number % 4]
        rows.append(f"face{number}.png,{label},f{number},{split}")
    sound = open_clip(demo_speech).audio
    for number in range(4):
        samples = (sound[32000 * number : 32000 * (number + 1)] * 32767).astype(np.int16)
        with wave.open(str(data / f"voice{number}.wav"), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(16000)
            file.writeframes(samples.tobytes())
        rows.append(f"voice{number}.wav,{('distress', 'laughter')[number % 2]},v{number},train")
    (data / folder.TABLE).write_text("\n".join(rows) + "\n")
    return data


@pytest.fixture(scope="module")
def mer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MER2025's layout with features around a point per label."""
    root = tmp_path_factory.mktemp("mer")
    rng = np.random.default_rng(0)
    names = [f"s{n:06d}" for n in range(400)]
    labels = [MER[n % len(MER)] for n in range(400)]
    with (root / mer2025.TRAIN).open("w", newline="") as file:
        csv.writer(file).writerows([("name", "discrete"), *zip(names[:360], labels, strict=False)])
    with (root / mer2025.CANDIDATES).open("w", newline="") as file:
        csv.writer(file).writerows([("name",), *((name,) for name in names[360:])])
    for feature, size in (("chinese-hubert-large", 256), ("clip-vit-large-patch14", 192)):
        place = root / mer2025.FEATURES / f"{feature}{mer2025.SUFFIX}"
        place.mkdir(parents=True)
        centres = rng.standard_normal((len(MER), size)) * 0.3
        for name, label in zip(names, labels, strict=True):
            vector = centres[MER.index(label)] + rng.standard_normal(size)
            np.save(place / f"{name}.npy", vector.astype(np.float32))
    return root


Command = Callable[[str], list[str]]


@pytest.fixture(params=["folder", "mer"])
def command(request: pytest.FixtureRequest, tmp_path: Path) -> Command:
    """The arguments of train.fit for a run of a given name."""
    kind = request.param
    data = request.getfixturevalue("clips" if kind == "folder" else "mer")
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(FOLDER if kind == "folder" else FOLDS)

    def made(name: str) -> list[str]:
        what = ["--data" if kind == "folder" else "--features", str(data), "--config", str(recipe)]
        return [*what, "--out", str(tmp_path / name), "--cache", str(tmp_path / f"{name}-cache")]

    return made


def train(arguments: Sequence[str], processes: int = 1) -> None:
    start = [sys.executable, "-m", "train.fit"]
    if processes > 1:
        start = [
            sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes),
            "-m", "train.fit",
        ]  # fmt: skip
    done = subprocess.run([*start, *arguments], capture_output=True, text=True, env=ENVIRONMENT, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


def outputs(bundle: Bundle) -> list[dict[str, np.ndarray]]:
    engine = open_engine(bundle, backend="onnxruntime")
    return [engine.run(sample) for sample in golden.inputs(bundle, EngineSpec())]


def assert_same(one: Path, other: Path, tolerance: float) -> None:
    a, b = load_bundle(one / "model"), load_bundle(other / "model")
    assert a.manifest.labels == b.manifest.labels and a.manifest.extra == b.manifest.extra
    assert a.manifest.training_data == b.manifest.training_data
    close(a.manifest.metrics, b.manifest.metrics, tolerance)
    for x, y in zip(outputs(a), outputs(b), strict=True):
        assert x.keys() == y.keys()
        for name in x:
            np.testing.assert_allclose(x[name], y[name], rtol=tolerance, atol=max(tolerance, 1e-6))
    submissions = [path / "submission.csv" for path in (one, other)]
    assert len({path.read_text() for path in submissions if path.is_file()}) <= 1


def close(one: object, other: object, tolerance: float) -> None:
    """Numbers of nested metrics differ by no more than ``tolerance``, all else not at all."""
    if isinstance(one, dict) and isinstance(other, dict):
        assert one.keys() == other.keys()
        for key in one:
            close(one[key], other[key], tolerance)
    elif isinstance(one, list) and isinstance(other, list):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            close(a, b, tolerance)
    elif isinstance(one, float):
        assert one == pytest.approx(other, abs=tolerance)
    else:
        assert one == other


def used_s(pid: int) -> float:
    """Processor time that a process and its children have used; 0 for one that has just ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    own = sum(int(field) for field in fields[11:15]) / os.sysconf("SC_CLK_TCK")
    return own + sum(used_s(int(child)) for child in children)


def test_killed_at_random_moments_it_ends_with_the_same_bundle(command: Command, tmp_path: Path) -> None:
    """Real SIGKILLs, anywhere from the first import over extraction and training to the export.

    The moments are of processor time, so that they fall alike on a busy machine.
    """
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    train(command("whole"))
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    whole_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    rng = np.random.default_rng(4)
    killed = 0
    for moment in rng.uniform(0.2, 0.95, KILLS):
        running = subprocess.Popen(
            [sys.executable, "-m", "train.fit", *command("broken")],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=ENVIRONMENT,
        )
        while running.poll() is None:
            if used_s(running.pid) >= moment * whole_s:
                running.kill()
                killed += 1
            with contextlib.suppress(subprocess.TimeoutExpired):
                running.wait(timeout=0.02)
    train(command("broken"))
    assert killed >= 2
    assert_same(tmp_path / "whole", tmp_path / "broken", 1e-6)
    left = [path.name for path in (tmp_path / "broken").iterdir() if path.name.startswith(".")]
    assert not left
    assert json.loads((tmp_path / "broken" / "run.json").read_text())["out"] == str(tmp_path / "broken")


def test_two_processes_give_what_one_gives(command: Command, tmp_path: Path) -> None:
    train(command("one"))
    train(command("two"), processes=2)
    # The order of additions differs, and training spreads it: a temperature by a few thousandths.
    assert_same(tmp_path / "one", tmp_path / "two", 1e-2)
