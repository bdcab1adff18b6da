"""Bundles as train.export writes them: equal to torch in every CPU engine, and alive in ecmf-live."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from ecmf.bundle import Bundle, load_bundle
from ecmf.engines.choose import BACKENDS, open_engine
from ecmf.fusion import EcmfHead, HeadOptions
from train import clip_samples, clip_store, export, fit, fit_folder
from train.datasets import folder
from train.evaluate_head import predict
from train.fit_head import tensors
from train.recipe import read as recipe_of

RECIPE = 'version = "1"\nsteps = 200\nbatch = 32\n[head]\nwidth = 16\nheads = 2\ndropout = 0.3\n'
ENGINES = [name for name in ("onnxruntime", "openvino") if BACKENDS[name].probe()[0]]
SENTENCES = {
    "glad": ("I am so happy!", "This is great.", "I love it.", "We won!", "How wonderful.", "Best day ever."),
    "grim": ("I am sad.", "He died.", "I miss her.", "All is lost.", "I feel so lonely.", "It hurts."),
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run on lines of text; clips/, cache/ and run/ beside each other."""
    root = tmp_path_factory.mktemp("export")
    (root / "clips").mkdir()
    rows = ["path,label,speaker,split"]
    for label, sentences in SENTENCES.items():
        for number, sentence in enumerate(sentences):
            (root / "clips" / f"{label}{number}.txt").write_text(sentence)
            split = ("train", "train", "train", "train", "valid", "test")[number]
            rows.append(f"{label}{number}.txt,{label},{label}{number},{split}")
    (root / "clips" / folder.TABLE).write_text("\n".join(rows) + "\n")
    (root / "recipe.toml").write_text(RECIPE)
    where = [
        "--out",
        str(root / "run"),
        "--cache",
        str(root / "cache"),
        "--config",
        str(root / "recipe.toml"),
    ]
    assert fit.main(["--data", str(root / "clips"), *where]) == 0
    return root


def torch_head(root: Path, bundle: Bundle) -> tuple[EcmfHead, fit_folder.Batch]:
    """The head as torch has it after training, with its calibration, and all moments of the clips."""
    listed = folder.read(root / "clips")
    samples = clip_samples.assemble(listed, clip_store.extract(listed, root / "cache"), cache=root / "cache")
    recipe = recipe_of(fit_folder.Recipe, root / "recipe.toml")
    head, _ = fit_folder.train(samples, 2, recipe, root / "run" / fit_folder.HEAD, unfinished=True)
    return head, samples.rows(np.arange(len(samples.clip)))


@pytest.mark.parametrize("backend", ENGINES)
def test_engines_equal_torch_on_real_cues(run: Path, backend: str) -> None:
    bundle = load_bundle(run / "run" / "model")
    head, batch = torch_head(run, bundle)
    inputs, _ = tensors(batch)
    with torch.no_grad():
        expected = dict(zip(("logits", "weights"), head(**inputs), strict=True))
    engine = open_engine(bundle, backend=backend)
    for row in range(len(batch.target)):
        found = engine.run({name: value[row : row + 1].numpy() for name, value in inputs.items()})
        for name, value in expected.items():
            np.testing.assert_allclose(found[name][0], value[row].numpy(), atol=1e-4)
    assert (predict(head, batch)[0].argmax(axis=1) == batch.target).mean() > 0.7


def test_a_run_is_exported_again_without_training(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = load_bundle(run / "run" / "model")
    stamp = (run / "run" / "head.pt").stat().st_mtime_ns
    assert export.main([str(run / "run"), "--out", str(tmp_path / "copy"), "--engines", "onnxruntime"]) == 0
    said = capsys.readouterr().out
    assert "onnxruntime" in said and f"is in {tmp_path / 'copy'}" in said
    copy = load_bundle(tmp_path / "copy")
    assert (copy.manifest.name, copy.sha256) == ("copy", before.sha256)
    assert copy.manifest.metrics == before.manifest.metrics
    assert (run / "run" / "head.pt").stat().st_mtime_ns == stamp


@pytest.mark.slow
def test_an_unfinished_run_is_exported_as_it_is(run: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(RECIPE.replace("steps = 200", "steps = 4000"))
    script = (
        "import sys, torch\n"
        "from train import descent, fit\n"
        "save = descent._save\n"
        "def once(*arguments):\n"
        "    save(*arguments)\n"
        "    raise KeyboardInterrupt\n"
        "descent._save = once\n"
        "sys.exit(fit.main(sys.argv[1:]))\n"
    )
    where = ["--out", str(tmp_path / "run"), "--cache", str(run / "cache"), "--config", str(recipe)]
    stopped = subprocess.run(
        [sys.executable, "-c", script, "--data", str(run / "clips"), *where], capture_output=True, check=False
    )
    assert stopped.returncode == 130, stopped.stderr[-2000:]
    assert not (tmp_path / "run" / "model").exists()
    state = torch.load(tmp_path / "run" / "head.pt", weights_only=True)
    assert 0 < state["step"] < 4000
    assert export.main([str(tmp_path / "run"), "--unfinished", "--out", str(tmp_path / "early")]) == 0
    assert load_bundle(tmp_path / "early").manifest.labels == ("glad", "grim")
    assert torch.load(tmp_path / "run" / "head.pt", weights_only=True)["step"] == state["step"]


def test_what_is_no_run_or_no_bundle_is_left_alone(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export.main([str(tmp_path)]) == 2
    assert "is no run: it holds no run.json" in capsys.readouterr().err
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    assert export.main([str(run / "run"), "--out", str(tmp_path / "mine")]) == 2
    assert "is there and is no bundle" in capsys.readouterr().err
    assert (tmp_path / "mine" / "letter.txt").is_file()


def test_heads_of_every_shape_equal_torch_in_every_engine(tmp_path: Path) -> None:
    """Ablations and sizes a recipe may ask for, on random weights: only the graph is in question here."""
    from train.fit_head import export_head
    from train.pairing import Batch

    rng = np.random.default_rng(0)
    dims = {"face": 12, "scene": 9, "voice": 7, "text": 5}
    for number, options in enumerate(
        (HeadOptions(16, 2), HeadOptions(32, 4, attention=False), HeadOptions(16, 4, residual=False))
    ):
        torch.manual_seed(number)
        head = EcmfHead(dims, 3, options).eval()
        for parameter in head.parameters():
            parameter.data += 0.3 * torch.randn_like(parameter)
        quality = (rng.random((32, 4)) < 0.7).astype(np.float32) * rng.random((32, 4)).astype(np.float32)
        quality[:, 0] = np.maximum(quality[:, 0], 0.2)
        cues = {m: rng.standard_normal((32, d)).astype(np.float32) for m, d in dims.items()}
        log_probs = np.log(rng.dirichlet(np.ones(3), (32, 4))).astype(np.float32)
        batch = Batch(cues, log_probs, quality, np.zeros(32, np.int64))  # type: ignore[arg-type]
        bundle = export_head(
            head, tmp_path / f"h{number}", ("a", "b", "c"), dims, version="1", licence="none",  # type: ignore[arg-type]
            training_data=(), metrics={}, extra={}, card="", sample=batch,
        )  # fmt: skip
        inputs, _ = tensors(batch)
        with torch.no_grad():
            logits, weights = head(**inputs)
        for backend in ENGINES:
            found = open_engine(bundle, backend=backend).run({n: v.numpy() for n, v in inputs.items()})
            np.testing.assert_allclose(found["logits"], logits.numpy(), atol=1e-4)
            np.testing.assert_allclose(found["weights"], weights.numpy(), atol=1e-4)


@pytest.mark.slow
def test_an_exported_head_runs_live(run: Path, demo_speech_short: Path) -> None:
    command = [
        sys.executable, "-m", "realtime.cli", "--source", str(demo_speech_short), "--fast", "--json", "--llm", "off",
        "--model", str(run / "run" / "model"), "--offline", "--bind", "tcp://127.0.0.1:*",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    messages = [json.loads(line) for line in done.stdout.splitlines()]
    estimates = [m for m in messages if m["type"] == "emotion" and m["label"] is not None]
    assert estimates
    bundle = load_bundle(run / "run" / "model")
    for message in estimates:
        assert message["raw"].keys() == {"glad", "grim"}
        assert bundle.id in json.dumps(message["model"])
        assert message["modalities"]["text"]["present"]
