"""Killed at random moments train.fit ends with the same bundle; so do two processes, up to the order of additions."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import wave
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from mer_layout import corpus
from starter import ENVIRONMENT, Starter

from ecmf import golden
from ecmf.bundle import Bundle, load_bundle
from ecmf.engines.base import EngineSpec
from ecmf.engines.choose import open_engine
from train.clip_file import open_clip
from train.datasets import folder

pytestmark = pytest.mark.slow
FOLDER = 'version = "3"\nsteps = 300\nbatch = 16\n[head]\nwidth = 16\nheads = 2\n'
FOLDS = 'version = "1"\nfolds = 3\nsteps = 120\nbatch = 32\n[head]\nwidth = 16\nheads = 2\n'
AT_CHECKPOINT = -1.0
"""Not after a share of the processor time, but when the next checkpoint is written."""
SIZES = {"chinese-hubert-large": 64, "clip-vit-large-patch14": 48}
LINES = {
    "distress": ("I feel so lonely.", "All is lost."),
    "laughter": ("We won!", "How wonderful."),
}


@pytest.fixture(scope="module")
def clips(demo_face: Path, demo_speech: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of the demo video, where one label is distress and the other laughter, pieces of read speech, lines."""
    cv2 = pytest.importorskip("cv2")
    data = tmp_path_factory.mktemp("clips")
    rows = ["path,label,speaker,split"]
    frames = [(t, frame) for t, frame in open_clip(demo_face).frames if t < 6 or t > 11]
    for number, (t, frame) in enumerate(frames[::8]):
        cv2.imwrite(str(data / f"face{number}.png"), frame)
        label, split = "distress" if t < 6 else "laughter", ("train", "train", "valid", "test")[number % 4]
        rows.append(f"face{number}.png,{label},f{number},{split}")
    sound = open_clip(demo_speech).audio
    for number in range(3):
        samples = (sound[32000 * number : 32000 * (number + 1)] * 32767).astype(np.int16)
        with wave.open(str(data / f"voice{number}.wav"), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(16000)
            file.writeframes(samples.tobytes())
        rows.append(f"voice{number}.wav,{('distress', 'laughter')[number % 2]},v{number},train")
    for label, lines in LINES.items():
        for number, line in enumerate(lines):
            (data / f"{label}{number}.txt").write_text(line)
            rows.append(f"{label}{number}.txt,{label},{label}{number},train")
    (data / folder.TABLE).write_text("\n".join(rows) + "\n")
    return data


@pytest.fixture(scope="module")
def starter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Starter]:
    made = Starter(tmp_path_factory.mktemp("starter") / "told.txt")
    yield made
    made.close()


@dataclass(frozen=True)
class Task:
    """What is to be trained, in a place of its own, and an unbroken run of it."""

    place: Path
    arguments: tuple[str, ...]
    whole_s: float = 0.0
    """Processor time of the unbroken run."""

    def command(self, name: str, processes: int = 1) -> list[str]:
        """The arguments of train.fit for a run of that name."""
        kept = ["--out", str(self.place / name), "--cache", str(self.place / f"{name}-cache")]
        return [*self.arguments, *kept, "--processes", str(processes)]


@pytest.fixture(scope="module", params=["folder", "mer"])
def task(request: pytest.FixtureRequest, starter: Starter, tmp_path_factory: pytest.TempPathFactory) -> Task:
    """Clips, or MER2025's layout; its unbroken run is there, named whole."""
    place = tmp_path_factory.mktemp(request.param)
    recipe = place / "recipe.toml"
    if request.param == "folder":
        recipe.write_text(FOLDER)
        data = ("--data", str(request.getfixturevalue("clips")))
    else:
        recipe.write_text(FOLDS)
        corpus(place / "mer", 360, 40, sizes=SIZES, distance=0.6)
        data = ("--features", str(place / "mer"))
    task = Task(place, (*data, "--config", str(recipe)))
    starter.start(task.command("whole"))
    return Task(task.place, task.arguments, whole_s=finished(starter))


def finished(starter: Starter) -> float:
    """The processor time of a run that ends well."""
    code, used_s = starter.ended()
    assert code == 0, starter.told.read_text()[-3000:]
    return used_s


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


def checkpoints(out: Path) -> dict[Path, int]:
    """When each was written."""
    return {path: path.stat().st_mtime_ns for path in out.glob("*.pt")}


def used_s(pid: int) -> float:
    """Processor time that a process and its children have used; 0 for one that has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    own = sum(int(field) for field in fields[11:15]) / os.sysconf("SC_CLK_TCK")
    return own + sum(used_s(int(child)) for child in children)


def test_killed_at_random_moments_it_ends_with_the_same_bundle(task: Task, starter: Starter) -> None:
    """Real SIGKILLs, anywhere from the first clip to the export: before there is anything, as soon as one of the folds
    that are trained side by side is done, amid a training, and at two moments of which nothing is known.

    The moments are of processor time, so that they fall alike on a busy machine.
    """
    out, rng = task.place / "broken", np.random.default_rng(4)
    killed = 0
    moments = [rng.uniform(0.05, 0.15), AT_CHECKPOINT, AT_CHECKPOINT, *rng.uniform(0.1, 0.6, 2)]
    for processes, moment in zip((1, 2, 1, 1, 1), moments, strict=True):
        before = checkpoints(out)
        running = starter.start(task.command("broken", processes))
        while not starter.over(within_s=0.02):
            if (
                checkpoints(out) != before
                if moment == AT_CHECKPOINT
                else used_s(running) >= moment * task.whole_s
            ):
                os.kill(running, signal.SIGKILL)
                break
        killed += starter.ended()[0] == -signal.SIGKILL
    starter.start(task.command("broken"))
    finished(starter)
    assert killed >= 3
    assert_same(task.place / "whole", out, 1e-6)
    assert not [path.name for path in out.iterdir() if path.name.startswith(".")]
    assert json.loads((out / "run.json").read_text())["out"] == str(out)


def test_two_processes_give_what_one_gives(task: Task) -> None:
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*start, "-m", "train.fit", *task.command("two")],
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    # The order of additions differs, and training spreads it: a temperature by a few thousandths.
    assert_same(task.place / "whole", task.place / "two", 1e-2)
