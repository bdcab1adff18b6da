"""Training text: the encoder is the published one, and a stopped run ends where an unstopped one does."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ecmf.bundle import SHIPPED, Bundle
from ecmf.engines.choose import open_engine
from ecmf.labels import EKMAN
from ecmf.wordpiece import WordPiece, pad
from train.text_examples import Example

torch = pytest.importorskip("torch")
TOKENIZER = SHIPPED / "text" / "tokenizer.json"


def corpus() -> list[Example]:
    said = (
        "I love it",
        "The door is open",
        "He left me",
        "Get out",
        "I am scared",
        "That is gross",
        "What is that",
    )
    order = (1, 0, 2, 3, 4, 5, 6)
    return [
        Example(text, np.eye(7, dtype=np.float32)[label]) for text, label in zip(said, order, strict=True)
    ] * 3


@pytest.mark.slow
def test_the_encoder_equals_the_published_one(
    weight: Callable[[str], Path], bundle: Callable[..., Bundle]
) -> None:
    from train.bert import TextModel, load_minilm

    model = TextModel(len(EKMAN)).eval()
    load_minilm(model, weight("minilm-fp32") / "model.safetensors")
    engine = open_engine(bundle("minilm", "minilm-int8", "minilm-tokenizer"), backend="onnxruntime")
    for sentence in ("I am so happy today", "It was the worst of times, it was the winter of despair."):
        tokens = pad([WordPiece(TOKENIZER).line(sentence)])
        with torch.no_grad():
            ours = model.encode(
                *(torch.from_numpy(part) for part in (tokens.ids, tokens.mask, tokens.types))
            )[0]
        inputs = {"input_ids": tokens.ids, "attention_mask": tokens.mask, "token_type_ids": tokens.types}
        theirs = engine.run(inputs)["last_hidden_state"][0].mean(0)
        cosine = float(ours.numpy() @ theirs / np.linalg.norm(ours) / np.linalg.norm(theirs))
        assert cosine > 0.98  # their file is int8


@pytest.mark.slow
def test_a_stopped_run_ends_where_an_unstopped_one_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped in the middle of its second epoch; and a checkpoint of another recipe is not gone on from."""
    from train import fit_text
    from train.bert import TextModel
    from train.fit_text import Corpus, run_stage
    from train.text_recipe import Recipe, Stage

    monkeypatch.setattr(fit_text, "SAVE_S", 0.0)
    torch.manual_seed(0)
    start = TextModel(len(EKMAN))
    recipe = Recipe("text", "0", 1, 0.1, 0.05, 0.01, (Stage(("meld",), 2, 8, 1e-4),))
    data = Corpus({"train": corpus(), "dev": corpus()[:7]}, {"train": []})
    wordpiece = WordPiece(TOKENIZER)

    def run(folder: str, stop_after: int | None = None, recipe: Recipe = recipe) -> dict[str, Any]:
        out, save, count = tmp_path / folder, fit_text._save, 0

        def save_and_stop(*arguments: object) -> None:
            nonlocal count
            save(*arguments)  # type: ignore[arg-type]
            count += 1
            if count == stop_after:
                raise KeyboardInterrupt

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(fit_text, "_save", save_and_stop)
            return run_stage(0, copy.deepcopy(start), recipe, data, wordpiece, out).state_dict()

    whole = run("whole")
    with pytest.raises(KeyboardInterrupt):
        run("resumed", stop_after=4)
    resumed = run("resumed")
    assert not torch.equal(whole["head.weight"], start.state_dict()["head.weight"])
    for name, value in whole.items():
        torch.testing.assert_close(value, resumed[name], msg=name)
    other = run("whole", recipe=replace(recipe, label_smoothing=0.2))
    assert not torch.equal(other["head.weight"], whole["head.weight"])


def test_temperature_and_scores_are_recovered() -> None:
    from train.calibrate_text import fit_scores, fit_temperature

    rng = np.random.default_rng(0)
    logits = rng.normal(size=(3000, 7)) * 2
    probs = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    truth = np.array([rng.choice(7, p=p) for p in probs])
    assert fit_temperature(logits * 1.7, truth) == pytest.approx(1.7, rel=0.1)

    dialogues = [str(n // 10) for n in range(len(truth))]
    noise = fit_scores(logits, rng.normal(size=logits.shape), truth, dialogues)
    useful = fit_scores(np.zeros_like(logits), logits, truth, dialogues)
    assert noise.gain < 0.005 < 0.3 < useful.gain
    assert np.abs(noise.matrix).max() < 0.1 and np.diag(useful.matrix).min() > 0.5
