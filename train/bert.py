"""A small BERT encoder in plain torch, with the emotion head of the text branch on top.

Devlin et al. 2019, "BERT" (arXiv 1810.04805), section 3; sizes of MiniLM-L6-H384 (Wang et al. 2020, arXiv
2002.10957). Parameter names follow the published checkpoint, so its tensors load as they are.
"""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

from torch import Tensor, nn
from torch.nn import functional as F

from ecmf.errors import WeightError

WIDTH, HEADS, INNER, LAYERS = 384, 12, 1536, 6
VOCABULARY, POSITIONS = 30522, 512


class SelfAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(WIDTH, WIDTH) for _ in range(3))

    def forward(self, x: Tensor, allowed: Tensor) -> Tensor:
        """``x`` float[batch, tokens, width]; ``allowed`` bool[batch, 1, 1, tokens]."""
        q, k, v = (
            part(x).unflatten(-1, (HEADS, WIDTH // HEADS)).transpose(1, 2)
            for part in (self.query, self.key, self.value)
        )
        scores = q @ k.transpose(-1, -2) * (WIDTH // HEADS) ** -0.5
        weights = scores.masked_fill(~allowed, -1e4).softmax(-1)
        return (weights @ v).transpose(1, 2).flatten(2)


class Residual(nn.Module):
    """Projection, dropout, residual connection and normalisation: the end of both halves of a layer."""

    def __init__(self, inside: int, dropout: float) -> None:
        super().__init__()
        self.dense = nn.Linear(inside, WIDTH)
        self.LayerNorm = nn.LayerNorm(WIDTH, eps=1e-12)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, residual: Tensor) -> Tensor:
        return self.LayerNorm(residual + self.dropout(self.dense(x)))


class Layer(nn.Module):
    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.attention = nn.ModuleDict({"self": SelfAttention(), "output": Residual(WIDTH, dropout)})
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(WIDTH, INNER)})
        self.output = Residual(INNER, dropout)

    def forward(self, x: Tensor, allowed: Tensor) -> Tensor:
        x = self.attention["output"](self.attention["self"](x, allowed), x)
        return self.output(F.gelu(self.intermediate["dense"](x)), x)


class Embeddings(nn.Module):
    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(VOCABULARY, WIDTH)
        self.position_embeddings = nn.Embedding(POSITIONS, WIDTH)
        self.token_type_embeddings = nn.Embedding(2, WIDTH)
        self.LayerNorm = nn.LayerNorm(WIDTH, eps=1e-12)
        self.dropout = nn.Dropout(dropout)

    def forward(self, ids: Tensor, types: Tensor) -> Tensor:
        positions = self.position_embeddings.weight[: ids.shape[1]]
        words = self.word_embeddings(ids) + self.token_type_embeddings(types) + positions
        return self.dropout(self.LayerNorm(words))


class TextModel(nn.Module):
    """Encoder, mean over the tokens of the utterance itself (its history only informs them), linear head."""

    def __init__(self, labels: int, dropout: float = 0.1) -> None:
        super().__init__()
        self.embeddings = Embeddings(dropout)
        self.encoder = nn.ModuleDict({"layer": nn.ModuleList(Layer(dropout) for _ in range(LAYERS))})
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(WIDTH, labels)
        self.enrichment = nn.Linear(labels, labels, bias=False)
        nn.init.zeros_(self.enrichment.weight)

    def encode(self, ids: Tensor, mask: Tensor, types: Tensor) -> Tensor:
        """int64[batch, tokens] three times -> float32[batch, width]. ``types`` is 0 for the utterance."""
        x = self.embeddings(ids, types)
        allowed = mask.bool()[:, None, None, :]
        layers = self.encoder["layer"]
        assert isinstance(layers, nn.ModuleList)
        for layer in layers:
            x = layer(x, allowed)
        own = (mask * (1 - types)).to(x.dtype).unsqueeze(-1)
        return (x * own).sum(1) / own.sum(1)

    def forward(self, ids: Tensor, mask: Tensor, types: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
        """``scores`` float32[batch, labels]: centred log-scores of the language model, zeros when there are none.

        Returns embedding float32[batch, width] and logits float32[batch, labels].
        """
        embedding = self.encode(ids, mask, types)
        return embedding, self.head(self.dropout(embedding)) + self.enrichment(scores)


def load_minilm(model: TextModel, path: Path) -> None:
    """Fill the encoder from the published safetensors file. Raises WeightError when a tensor is missing."""
    from safetensors.torch import load_file

    stored = load_file(path)
    wanted = [name for name in model.state_dict() if name.startswith(("embeddings.", "encoder."))]
    missing = [name for name in wanted if name not in stored]
    if missing:
        raise WeightError(f"{path} lacks {missing[0]}; it is not MiniLM-L6-H384, fetch it again")
    model.load_state_dict(OrderedDict((name, stored[name]) for name in wanted), strict=False)
