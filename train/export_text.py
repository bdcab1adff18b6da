"""A trained text model as a bundle: ONNX graph, int8 weights, tokenizer, manifest."""

from __future__ import annotations

import json
import logging
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import astuple, replace
from pathlib import Path
from typing import Any

import torch

from ecmf.bundle import Bundle, Manifest, Port, write_bundle
from ecmf.errors import need
from ecmf.labels import EKMAN
from ecmf.wordpiece import MAX_TOKENS, MAX_UTTERANCE, WordPiece, pad
from train.bert import WIDTH, TextModel
from train.text_examples import HISTORY_LINES
from train.traces import remove_traces

TRAINING_DATA = (
    {"name": "GoEmotions", "licence": "Apache-2.0", "split": "train", "owner": "Google"},
    {
        "name": "MELD",
        "licence": "GPL-3 repository; TV dialogue",
        "split": "train",
        "owner": "Poria et al. 2019",
    },
)


def export_onnx(model: TextModel, path: Path) -> None:
    """Write the float32 graph with dynamic batch and length."""
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    ids = torch.randint(1000, 2000, (2, 12))
    inputs = (ids, torch.ones_like(ids), torch.zeros_like(ids), torch.zeros(2, len(EKMAN)))
    batch, tokens = torch.export.Dim("batch", max=1024), torch.export.Dim("tokens", min=3, max=MAX_TOKENS)
    sizes = {0: batch, 1: tokens}
    torch.onnx.export(
        model.eval(),
        inputs,
        str(path),
        input_names=["ids", "mask", "types", "scores"],
        output_names=["pooled", "logits"],
        dynamic_shapes=(sizes, sizes, sizes, {0: batch}),
        dynamo=True,
        external_data=False,
        verbose=False,
    )
    onnx = need("onnx", "live")
    graph = onnx.load(path)
    # The exporter leaves shapes of tensors that its optimizer rewrote; the quantizer refuses them.
    del graph.graph.value_info[:]
    # It also calls the look-up of word vectors "embedding"; that name is promised to the output.
    renamed = {"embedding": "word_vectors", "pooled": "embedding"}
    for node in graph.graph.node:
        for names in (node.input, node.output):
            names[:] = [renamed.get(name, name) for name in names]
    graph.graph.output[0].name = "embedding"
    onnx.checker.check_model(graph, full_check=True)
    onnx.save(graph, path)
    remove_traces(path)


def to_int8(source: Path, target: Path) -> None:
    """int8 weights per output channel, activations quantized at run time; embeddings and layer norms follow ORT."""
    quantization = need("onnxruntime.quantization", "live")
    quantization.quantize_dynamic(
        source, target, per_channel=True, weight_type=quantization.QuantType.QInt8,
        op_types_to_quantize=["MatMul", "Gemm", "Gather"],
        extra_options={"MatMulConstBOnly": True},
    )  # fmt: skip


GOLDEN = ("I am so happy today!", "The meeting is at nine.", "Leave me alone.")
"""Sentences whose exact outputs travel with the bundle, for the parity gate."""
TOLERANCE = 0.5
"""Of the golden logits: int8 rounding moves them by up to about 0.1, a broken engine by several."""


def write(
    model: TextModel,
    tokenizer: Path,
    folder: Path,
    *,
    version: str,
    recipe: str,
    training_data: Sequence[Mapping[str, Any]] = TRAINING_DATA,
) -> Bundle:
    """Export, quantize and write the bundle, as yet with temperature 1 and without metrics; see ``finish``."""
    wordpiece = WordPiece(tokenizer)
    lines = [wordpiece.line(sentence) for sentence in GOLDEN]
    expected = []
    with torch.no_grad():
        for line in lines:
            ids, mask, types = (torch.from_numpy(part) for part in astuple(pad([line])))
            embedding, logits = model.eval()(ids, mask, types, torch.zeros(1, len(EKMAN)))
            expected.append({"embedding": embedding[0].tolist(), "logits": logits[0].tolist()})
    golden = {"sentences": GOLDEN, "ids": [ids for ids, _ in lines], "outputs": expected}
    with tempfile.TemporaryDirectory() as scratch:
        plain, small = Path(scratch) / "float.onnx", Path(scratch) / "model.onnx"
        export_onnx(model, plain)
        to_int8(plain, small)
        files: dict[str, Path | bytes] = {
            "model.onnx": small,
            "tokenizer.json": tokenizer,
            "golden.json": (json.dumps(golden) + "\n").encode(),
            "recipe.toml": recipe.encode(),
        }
        return write_bundle(folder, _manifest(version, training_data), files)


def finish(
    bundle: Bundle, *, temperature: float, metrics: Mapping[str, Any], card: str, extra: Mapping[str, Any]
) -> Bundle:
    """The same bundle with what was measured through its own engine. ``temperature`` divides the logits."""
    merged = {**bundle.manifest.extra, **extra, "temperature": round(temperature, 4)}
    manifest = replace(bundle.manifest, metrics=metrics, extra=merged, files={})
    with tempfile.TemporaryDirectory() as scratch:
        kept: dict[str, Path | bytes] = {}
        for name in bundle.manifest.files:
            kept[name] = Path(shutil.copy(bundle.folder / name, scratch))
        return write_bundle(bundle.folder, manifest, {**kept, "README.md": card.encode()})


def _manifest(version: str, training_data: Sequence[Mapping[str, Any]]) -> Manifest:
    shape = ("batch", "tokens")
    return Manifest(
        name="text",
        version=version,
        inputs=(
            Port("ids", "int64", shape, "token id"),
            Port("mask", "int64", shape, "1 for a token, 0 for padding"),
            Port("types", "int64", shape, "0 for the utterance, 1 for cues and history"),
            Port(
                "scores", "float32", ("batch", len(EKMAN)), "log-score minus mean; 0 without a language model"
            ),
        ),
        outputs=(
            Port("embedding", "float32", ("batch", WIDTH), "mean hidden state over the utterance"),
            Port("logits", "float32", ("batch", len(EKMAN)), "logit before temperature"),
        ),
        licence="Apache-2.0 (weights trained on research data: see training_data)",
        labels=EKMAN,
        preprocessing={
            "tokenizer": "tokenizer.json",
            "layout": "[CLS] utterance [SEP] cues [SEP] last line [SEP] line before it [SEP]",
            "max_tokens": MAX_TOKENS,
            "max_utterance_tokens": MAX_UTTERANCE,
            "history_lines": HISTORY_LINES,
        },
        training_data=tuple(training_data),
        golden={"file": "golden.json", "how": "each sentence alone, scores 0", "tolerance": TOLERANCE},
        extra={
            "temperature": 1.0,
            "base": "all-MiniLM-L6-v2, sha256 53aa51172d14",
            # Which part of a language model's answer the branch uses; bench/enrichment.py decides.
            "enrichment": {"cues": False, "scores": False},
        },
    )
