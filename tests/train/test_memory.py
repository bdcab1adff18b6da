"""Memory of a training: features are mapped from files, so three times the clips cost no memory of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ecmf.cue import Cue
from ecmf.labels import MER
from train import clip_store
from train.datasets import mer2025

SIZE = 4096
"""Numbers in a feature: 16 kB, so that features weigh much and labels and names little."""
FEW = 600
MOMENTS = 4
PEAK = """
import json, sys, threading, time
from pathlib import Path
import numpy as np

peak = 0
def watch():
    global peak
    while True:
        lines = Path("/proc/self/status").read_text().splitlines()
        peak = max(peak, *(int(line.split()[1]) for line in lines if line.startswith("RssAnon")))
        time.sleep(0.005)

from train import fit_folder, fit_mer, mer_features
from train.clip_samples import assemble
from train.clip_scores import measure
from train.clip_store import Extracted
from train.datasets import mer2025
from train.datasets.folder import Folder, Item
from train.evaluate_head import predict

root, recipe = Path(sys.argv[2]), Path(sys.argv[3])
threading.Thread(target=watch, daemon=True).start()
if sys.argv[1] == "mer":
    corpus = mer2025.read(root)
    features = mer_features.load(corpus, corpus.names, {}, root / "cache")
    target = np.array([corpus.labels.index(emotion) for emotion in corpus.emotions])
    given = np.ones(len(target), bool)
    fit_mer.fit_folds(features, target, corpus.labels, fit_mer.read_recipe(recipe), root / "out", given)
else:
    files = sorted(root.glob("*.npz"))
    items = [
        Item(Path(f.stem), ("glad", "grim")[n % 2], f"p{n % 10}", "test" if n % 10 == 9 else "train", n)
        for n, f in enumerate(files)
    ]
    listed = Folder(root, tuple(items), ("glad", "grim"))
    samples = assemble(listed, Extracted(files), cache=root / "cache")
    head, _ = fit_folder.train(samples, 2, fit_folder.read(fit_folder.Recipe, recipe), root / "head.pt")
    measure(lambda batch, rows: predict(head, batch), samples, samples.split == "test", listed.labels)
print(json.dumps({"anonymous_kb": peak}))
"""


def mer(root: Path, clips: int) -> int:
    """MER2025's layout with one feature; returns its bytes."""
    place = root / mer2025.FEATURES / f"chinese-hubert-large{mer2025.SUFFIX}"
    place.mkdir(parents=True)
    vector = np.random.default_rng(0).standard_normal(SIZE).astype(np.float32)
    lines = ["name,discrete"]
    for number in range(clips):
        np.save(place / f"s{number}.npy", vector + number % 6)
        lines.append(f"s{number},{MER[number % 6]}")
    (root / mer2025.TRAIN).write_text("\n".join(lines) + "\n")
    return clips * SIZE * 4


def cues(root: Path, clips: int) -> int:
    """Extracted clips, a quarter of MER's number with four moments each; returns the bytes of their embeddings."""
    root.mkdir()
    rng = np.random.default_rng(0)
    for number in range(clips // MOMENTS):
        said = np.full(7, 1 / 7, np.float32)
        voices = [rng.standard_normal(SIZE).astype(np.float32) + number % 2 for _ in range(MOMENTS)]
        moments = [{"voice": Cue("voice", None, voice, said, 0, 1, 0.9)} for voice in voices]
        clip_store.store(root / f"{number:05d}.npz", moments)  # type: ignore[arg-type]
    return clips // MOMENTS * MOMENTS * SIZE * 4


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
@pytest.mark.parametrize("kind", ["mer", "cues"])
def test_memory_does_not_grow_with_the_data(kind: str, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    folds = "folds = 2\n" if kind == "mer" else ""
    recipe.write_text(f"steps = 20\nbatch = 32\n{folds}[head]\nwidth = 16\nheads = 2\n")
    size, peak = {}, {}
    for times in (1, 3):
        root = tmp_path / str(times)
        size[times] = (mer if kind == "mer" else cues)(root, FEW * times * 4)
        command = [sys.executable, "-c", PEAK, kind, str(root), str(recipe)]
        ended = subprocess.run(command, capture_output=True, text=True, check=True)
        peak[times] = json.loads(ended.stdout.splitlines()[-1])["anonymous_kb"] * 1024
    grown = size[3] - size[1]
    assert grown > 60e6
    assert peak[3] - peak[1] < grown / 4
