"""all-MiniLM-L6-v2 (int8 ONNX) and its tokenizer in one bundle."""

from __future__ import annotations

from pathlib import Path

from ecmf.bundle import Bundle, Manifest, Port, write_bundle


def build(model: Path, tokenizer: Path, folder: Path) -> Bundle:
    """The sentence embedding is the mean of ``last_hidden_state`` over the attention mask, then divided by its norm.

    Source: the model card of sentence-transformers/all-MiniLM-L6-v2.
    """
    shape = ("batch", "sequence")
    manifest = Manifest(
        name="minilm",
        version="1",
        inputs=(
            Port("input_ids", "int64", shape, "token id, [CLS] first and [SEP] last"),
            Port("attention_mask", "int64", shape, "1 for a token, 0 for padding"),
            Port("token_type_ids", "int64", shape, "0"),
        ),
        outputs=(Port("last_hidden_state", "float32", (*shape, 384), "hidden state per token"),),
        licence="Apache-2.0",
        preprocessing={
            "tokenizer": "tokenizer.json",
            "max_tokens": 256,
            "pooling": "mean over the mask, l2 norm",
        },
    )
    return write_bundle(folder, manifest, {"model.onnx": model, "tokenizer.json": tokenizer})
