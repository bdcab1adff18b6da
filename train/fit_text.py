"""Train the text branch: `python -m train.fit_text --meld PATH --goemotions PATH --out DIR`.

Fine-tunes MiniLM stage by stage as `recipes/text.toml` says, keeps the running average of the weights, tunes on
MELD's dev split only, and ends with a bundle. A run that was stopped goes on where it was.
"""

from __future__ import annotations

import copy
import hashlib
import logging
import math
import time
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ecmf.branches.text import TextBranch
from ecmf.bundle import Bundle
from ecmf.labels import EKMAN
from ecmf.weights import fetch
from ecmf.wordpiece import Tokens, WordPiece
from train import command, evaluate_text, text_card
from train.atomic import whole
from train.bert import WIDTH, TextModel, load_minilm
from train.calibrate_text import fit_temperature
from train.datasets.goemotions import read_goemotions
from train.datasets.meld import Line, read_meld
from train.export_text import finish, write
from train.progress import shown
from train.text_examples import CONTEXTS, Context, Example, Loader, batches, from_goemotions, from_meld
from train.text_recipe import RECIPE, Recipe, read_recipe

log = logging.getLogger("train.fit_text")
VERSION = 2
"""Raise it when a step changes: checkpoints of before are then not gone on from."""
SAVE_S = 60.0
"""Between two checkpoints, 240 MB each: what a kill may cost."""


@dataclass(frozen=True)
class Corpus:
    meld: dict[str, list[Example]]
    goemotions: dict[str, list[Example]]


def read_corpus(meld: Path, goemotions: Path) -> Corpus:
    lines, comments = read_meld(meld), read_goemotions(goemotions)
    return Corpus(
        {split: from_meld([x for x in lines if x.split == split]) for split in ("train", "dev", "test")},
        {
            split: from_goemotions([x for x in comments if x.split == split])
            for split in ("train", "dev", "test")
        },
    )


def tensors(tokens: Tokens) -> tuple[Tensor, Tensor, Tensor]:
    return torch.from_numpy(tokens.ids), torch.from_numpy(tokens.mask), torch.from_numpy(tokens.types)


@torch.no_grad()
def predict(
    model: TextModel, wordpiece: WordPiece, examples: list[Example], context: Context
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Embeddings float32[n, width] and logits float32[n, labels] without enrichment."""
    model.eval()
    order = sorted(
        range(len(examples)), key=lambda i: len(examples[i].text) + len("".join(examples[i].history(context)))
    )
    embeddings = np.zeros((len(examples), WIDTH), np.float32)
    logits = np.zeros((len(examples), len(EKMAN)), np.float32)
    done = 0
    sorted_examples = [examples[i] for i in order]
    texts, histories = [e.text for e in sorted_examples], [e.history(context) for e in sorted_examples]
    for tokens in batches(wordpiece, texts, histories):
        ids, mask, types = tensors(tokens)
        rows = order[done : done + len(ids)]
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = model(ids, mask, types, torch.zeros(len(ids), len(EKMAN)))
        embeddings[rows], logits[rows] = (part.float().numpy() for part in found)
        done += len(ids)
    return embeddings, logits


def weighted_f1(examples: list[Example], logits: NDArray[np.float32]) -> float:
    truth = np.array([int(e.target.argmax()) for e in examples])
    return evaluate_text.weighted_f1(truth, logits.argmax(1))


def run_stage(
    number: int, model: TextModel, recipe: Recipe, corpus: Corpus, wordpiece: WordPiece, out: Path
) -> TextModel:
    """Train one stage from ``model``; returns the averaged model. Resumes from ``out``."""
    stage = recipe.stage[number]
    rng = np.random.default_rng((recipe.seed, number))
    examples = list(corpus.meld["train"]) if "meld" in stage.data else []
    if "goemotions" in stage.data:
        extra = corpus.goemotions["train"]
        examples += [extra[i] for i in rng.permutation(len(extra))[: round(stage.share * len(extra))]]
    loader = Loader(examples, wordpiece, stage.batch, recipe.seed + number)
    steps = stage.epochs * len(loader)
    model.embeddings.requires_grad_(False)  # words missing from small corpora keep their meaning
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, stage.learning_rate, weight_decay=recipe.weight_decay, fused=True)
    warmup = max(1, steps // 12)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warmup, 0.5 + 0.5 * math.cos(math.pi * min(1, step / steps)))
    )
    average = copy.deepcopy(model)
    saved = out / f"stage-{number}.pt"
    parts: dict[str, Any] = {"model": model, "average": average, "optimizer": optimizer, "schedule": schedule}
    mark = _fingerprint(number, recipe, examples)
    done = _resume(saved, mark, parts)
    last, kept = (stage.stop_after or stage.epochs) * len(loader), time.monotonic()
    with shown(f"stage {number + 1} of {len(recipe.stage)}", last, done) as advance:
        while done < last:
            epoch, skipped = divmod(done, len(loader))
            for tokens, target in islice(loader.epoch(epoch), skipped, None):
                torch.manual_seed((recipe.seed * 100 + number) * 1_000_003 + done)
                model.train()
                ids, mask, types = tensors(tokens)
                with torch.autocast("cpu", dtype=torch.bfloat16):
                    _, logits = model(ids, mask, types, torch.zeros(len(ids), len(EKMAN)))
                loss = torch.nn.functional.cross_entropy(
                    logits.float(), torch.from_numpy(target), label_smoothing=recipe.label_smoothing
                )
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                torch.nn.utils.clip_grad_norm_(trained, 1.0)
                optimizer.step()
                schedule.step()
                done += 1
                _blend(average, model, min(recipe.averaging, done / (done + 10)))
                advance(done, f"loss {loss.item():.3f}")
                if done == last or time.monotonic() - kept > SAVE_S:
                    _save(saved, mark, done, parts)
                    kept = time.monotonic()
            report(average, wordpiece, corpus, f"stage {number + 1}, epoch {epoch + 1}")
    return average


def _fingerprint(number: int, recipe: Recipe, examples: list[Example]) -> str:
    digest = hashlib.sha256(repr((VERSION, number, recipe)).encode())
    for example in examples:
        digest.update(repr((example.text, [example.history(context) for context in CONTEXTS])).encode())
        digest.update(example.target.tobytes())
    return digest.hexdigest()


def _save(path: Path, fingerprint: str, done: int, parts: dict[str, Any]) -> None:
    states = {name: part.state_dict() for name, part in parts.items()}
    with whole(path) as file:
        torch.save({"fingerprint": fingerprint, "step": done, **states}, file)


def _resume(path: Path, fingerprint: str, parts: dict[str, Any]) -> int:
    """Steps that are done; 0 without a checkpoint of the same recipe and data."""
    if not path.is_file():
        return 0
    state = torch.load(path, weights_only=True)
    if state.get("fingerprint") != fingerprint:
        log.info("%s belongs to another recipe or other data; training starts anew", path)
        return 0
    for name, part in parts.items():
        part.load_state_dict(state[name])
    return int(state["step"])


@torch.no_grad()
def _blend(average: TextModel, model: TextModel, keep: float) -> None:
    new: list[Tensor] = [p for p in model.parameters() if p.requires_grad]
    old: list[Tensor] = [
        a for a, p in zip(average.parameters(), model.parameters(), strict=True) if p.requires_grad
    ]
    torch._foreach_lerp_(old, new, 1 - keep)


def report(model: TextModel, wordpiece: WordPiece, corpus: Corpus, title: str) -> None:
    """Log the dev score with the speaker's own lines; the test split is not looked at while training."""
    score = weighted_f1(corpus.meld["dev"], predict(model, wordpiece, corpus.meld["dev"], "own")[1])
    log.info("%s: MELD dev weighted F1 %.4f", title, score)


def fit(recipe: Recipe, corpus: Corpus, wordpiece: WordPiece, minilm: Path, out: Path) -> TextModel:
    """All stages. ``minilm``: the published fp32 safetensors file."""
    torch.manual_seed(recipe.seed)
    model = TextModel(len(EKMAN), recipe.dropout)
    load_minilm(model, minilm)
    for number in range(len(recipe.stage)):
        model = run_stage(number, copy.deepcopy(model), recipe, corpus, wordpiece, out)
    return model


def calibrated(bundle: Bundle, lines: list[Line], recipe: Recipe) -> Bundle:
    """Fit the temperature on dev through the bundle's engine, measure test once, write both down with the card."""
    branch = TextBranch(bundle)
    dev = [line for line in lines if line.split == "dev"]
    truth = np.array([EKMAN.index(line.label) for line in dev])
    logits = [evaluate_text.run(branch, from_meld(dev), context)[0] for context in CONTEXTS]
    temperature = fit_temperature(np.concatenate(logits), np.tile(truth, len(CONTEXTS)))
    extra = {"history": "the speaker's own lines, or everybody's with OTHER before those of others"}
    ready = finish(bundle, temperature=temperature, metrics={}, card="", extra=extra)
    results = evaluate_text.evaluate(TextBranch(ready), [line for line in lines if line.split == "test"])
    log.info("MELD test\n%s", evaluate_text.table(results))
    left_out = {"confusion", "ms_p50", "ms_p95"}  # times belong to a machine, not to a bundle
    short = {name: {k: v for k, v in r.items() if k not in left_out} for name, r in results.items()}
    card = text_card.write(results, temperature=temperature, version=recipe.version)
    return finish(ready, temperature=temperature, metrics={"meld_test": short}, card=card, extra={})


def make(path: Path, out: Path, meld: Path, goemotions: Path) -> Bundle:
    """Train, quantize, calibrate and measure as the recipe at ``path`` says; the bundle is in ``out``/text."""
    recipe = read_recipe(path)
    corpus = read_corpus(meld, goemotions)
    minilm, tokenizer = fetch("minilm-fp32") / "model.safetensors", fetch("minilm-tokenizer")
    out.mkdir(parents=True, exist_ok=True)
    model = fit(recipe, corpus, WordPiece(tokenizer), minilm, out)
    text = path.read_text("utf-8")
    bundle = write(model, tokenizer, out / "text", version=recipe.version, recipe=text)
    return calibrated(bundle, read_meld(meld), recipe)


def main() -> int:
    parser = command.parser("fit_text", __doc__)
    parser.add_argument(
        "--meld", type=Path, required=True, metavar="PATH", help="MELD's folder or parquet file"
    )
    parser.add_argument(
        "--goemotions", type=Path, required=True, metavar="PATH", help="GoEmotions' folder or parquet file"
    )
    parser.add_argument(
        "--recipe",
        type=Path,
        default=RECIPE,
        metavar="FILE",
        help="stages, sizes, rates (default: train/recipes/text.toml)",
    )
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="DIR",
        help="checkpoints and, in text/, the finished bundle",
    )
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="of torch (default: 1)")
    asked = parser.parse_args()

    def work() -> str:
        torch.set_num_threads(asked.threads)
        ready = make(asked.recipe, asked.out, asked.meld, asked.goemotions)
        return f"{ready.id} is in {ready.folder}"

    return command.carried_out(work)


if __name__ == "__main__":
    raise SystemExit(main())
