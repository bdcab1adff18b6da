"""Enrichment: a small local language model reads the last lines and adds emotional cues (ECMF, arXiv 2508.05991).

Small models write poorly, so this one writes nothing: it is asked how likely each word of a fixed vocabulary is as the
next one, once per utterance. Whatever the speaker says, the answer is made of these words and of numbers.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ecmf.errors import WeightError
from ecmf.gguf import LanguageModel
from ecmf.labels import EKMAN
from ecmf.wordpiece import clean

CUE_WORDS: Mapping[str, tuple[str, ...]] = {
    "neutral": ("neutral", "calm", "casual"),
    "happiness": ("happy", "excited", "grateful", "relieved", "proud", "loving", "cheerful", "hopeful"),
    "sadness": ("sad", "disappointed", "lonely", "hurt", "guilty", "sorry"),
    "anger": ("angry", "annoyed", "furious", "frustrated", "jealous"),
    "fear": ("afraid", "scared", "worried", "nervous", "frightened"),
    "disgust": ("disgusted", "sick", "ashamed"),
    "surprise": ("surprised", "shocked", "confused", "curious", "amazed"),
}
"""What the model may answer, by label. A word whose first token another word shares is left out for that model."""
SHOTS = (
    ("I can't believe we got the house, this is wonderful!", "happy"),
    ("The meeting is at nine in the second room.", "neutral"),
    ("She's gone, and I miss her every single day.", "sad"),
    ("How dare you go through my things!", "angry"),
    ("Did you hear that? Somebody is in the house.", "afraid"),
    ("Ugh, there's hair in my food.", "disgusted"),
    ("Wait, what? You are getting married?", "surprised"),
    ("Yeah, I put it on the table.", "neutral"),
    ("Could you pass me the salt?", "neutral"),
    ("You idiot, you ruined everything!", "furious"),
    ("Oh, I'm so sorry to hear that.", "sad"),
    ("Oh my God! I don't believe it!", "shocked"),
    ("Hey, how are you? Good to see you!", "happy"),
    ("I'm not sure we should go in there.", "nervous"),
    ("Okay, so where were we?", "neutral"),
    ("That is so gross, get it away from me.", "disgusted"),
)
"""Worked examples before the line in question; they are read once and stay in the KV cache."""
CONTENT_FREE = ("N/A", "[MASK]", "...", "the")
"""Lines that say nothing: what the model answers to them is its bias (Zhao et al. 2021, arXiv 2102.09690)."""
QUESTION = "How does the speaker of the last line feel? Answer with one word."
"""For models with a chat template."""
CHAT_PARAMETERS = 5e8
"""From this size on a model is asked through its chat template. SmolLM2-135M goes on with a story far better than it
follows a request: UAR 0.29 against 0.19 on 400 and 250 lines of MELD dev."""
MAX_TOKENS, MAX_HISTORY_TOKENS = 40, 24
CUES = 2
_HERE = "\u241f"
"""Stands for the line while a chat template is filled in; SYMBOL FOR UNIT SEPARATOR is in nobody's template."""


@dataclass(frozen=True)
class Enrichment:
    """What the language model adds to one utterance."""

    cues: str
    """Words of CUE_WORDS joined by commas, likeliest first; never words of the speaker."""
    scores: NDArray[np.float32]
    """float32[7], label probabilities in the order of EKMAN corrected for the model's bias; sums to 1."""


class Enricher:
    """Holds a language model that has read the worked examples. Not thread-safe."""

    def __init__(
        self, model: Path | None = None, *, threads: int = 1, gpu_layers: int = 0, offline: bool = False
    ) -> None:
        """Loads ``model``, a GGUF file, or the registered SmolLM2; then reads the prompt (a second or two).

        Raises WeightError for a file that is missing, broken or unable to tell the labels apart, MissingExtra.
        """
        if model is None:
            from ecmf.weights import fetch

            model = fetch("smollm2-135m", offline=offline)
        self.path = model
        self._model = LanguageModel(model, threads=threads, gpu_layers=gpu_layers)
        head, tail, glue = _prompt(self._model)
        self._tail = self._model.tokenize(tail, markers=True)
        self._answers = _answers(self._model, tail, glue, model)
        prefix = self._model.tokenize(head, markers=True, start=self._model.wants_start)
        self._model.evaluate(prefix, 0)
        self._prefix = len(prefix)
        free = [self._ask(line, (), lambda: False) for line in CONTENT_FREE]
        self._bias = np.mean([f for f in free if f is not None], axis=0)

    def enrich(
        self, utterance: str, history: Sequence[str] = (), expired: Callable[[], bool] = lambda: False
    ) -> Enrichment | None:
        """Read ``utterance`` after the last lines of ``history`` (oldest first).

        ``expired`` is asked every few tokens whether a deadline has passed or the answer is no longer wanted; then
        the result is None and the model stays usable. Raises WeightError when the model fails.
        """
        found = self._ask(utterance, history, expired)
        if found is None:
            return None
        gain = found - self._bias
        labels = [label for label, _, _ in self._answers]
        scores = np.array([_mean_power(gain[[k == label for k in labels]]) for label in EKMAN])
        best = np.argsort(-gain)[:CUES]
        return Enrichment(
            ", ".join(self._answers[index][1] for index in best), (scores / scores.sum()).astype(np.float32)
        )

    def close(self) -> None:
        """Free the model's memory."""
        self._model.close()

    def _ask(
        self, utterance: str, history: Sequence[str], expired: Callable[[], bool]
    ) -> NDArray[np.float64] | None:
        """Log-probability of each answer, float64[answers], relative to one another."""
        line = self._model.tokenize(clean(utterance))[-MAX_TOKENS:]
        before: list[int] = []
        for earlier in reversed(history):
            more = self._model.tokenize(clean(earlier) + " ")
            if len(before) + len(more) > MAX_HISTORY_TOKENS:
                break
            before = more + before
        logits = self._model.evaluate([*before, *line, *self._tail], self._prefix, expired)
        if logits is None:
            return None
        chosen = logits[[token for _, _, token in self._answers]].astype(np.float64)
        top = chosen.max()
        return chosen - top - np.log(np.exp(chosen - top).sum())


def _mean_power(gain: NDArray[np.float64]) -> float:
    return float(np.exp(gain).mean())


def _prompt(model: LanguageModel) -> tuple[str, str, str]:
    """Text before the line, text after it, and what stands between that and the answer (a blank or nothing)."""
    if model.template is None or model.parameters < CHAT_PARAMETERS:
        head = "".join(f'"{line}" she said. She was {feeling}.\n\n' for line, feeling in SHOTS)
        return head + '"', '" she said. She was', " "
    formatting = importlib.import_module("llama_cpp.llama_chat_format")
    template = formatting.Jinja2ChatFormatter(
        template=model.template, eos_token=model.special("eos"), bos_token="", add_generation_prompt=True
    )
    messages = []
    for number, (line, feeling) in enumerate((*SHOTS, (_HERE, ""))):
        ask = f"{QUESTION}\n\n{line}" if number == 0 else line
        messages.append({"role": "user", "content": ask})
        if feeling:
            messages.append({"role": "assistant", "content": feeling})
    head, _, tail = template(messages=messages).prompt.partition(_HERE)
    return head, tail, ""


def _answers(model: LanguageModel, tail: str, glue: str, path: Path) -> list[tuple[str, str, int]]:
    """Label, word and first token of each answer; only words whose first token is theirs alone."""
    start = model.tokenize(tail, markers=True)
    found: dict[int, tuple[str, str]] = {}
    for label, words in CUE_WORDS.items():
        for word in words:
            whole = model.tokenize(tail + glue + word, markers=True)
            if len(whole) > len(start) and whole[: len(start)] == start:
                found.setdefault(whole[len(start)], (label, word))
    lost = [label for label in EKMAN if label not in {name for name, _ in found.values()}]
    if lost:
        raise WeightError(f"language model {path} has no token of its own for {lost[0]}; take another")
    return [(label, word, token) for token, (label, word) in found.items()]
