"""Whisper's decoder: encoder states in, words with their times and probabilities out.

The decoder runs in CTranslate2; the encoder runs elsewhere (`ecmf.speech`), once for words and voice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ecmf.bundle import sha256_of
from ecmf.errors import UsageError, WeightError, need
from ecmf.heard import SECONDS_PER_STATE, Unit, heard, is_punctuation

TOKENS_PER_SECOND = 7
"""More than anybody speaks for long: bounds the tokens, and so the time, that a decoding may take."""
_SPARE_TOKENS = 6
_MAX_TOKENS = 224
"""What Whisper's decoder can generate after a prompt of the same length."""
_SPACELESS = frozenset({"zh", "ja", "th", "lo", "my", "yue"})


@dataclass(frozen=True)
class Hypothesis:
    """What the decoder makes of one stretch of audio, after the given prefix."""

    units: tuple[Unit, ...]
    no_speech: float
    """Probability that there is no speech, [0, 1]."""
    log_probability: float
    """Mean over the tokens of the units, or over all new ones where none of them was heard; 0 without any."""
    language: str


def model_folder(name: str, *, offline: bool = False) -> Path:
    """The folder of a Whisper model in CTranslate2 layout.

    ``name``: a folder, a registered weight ("tiny.en", "base"), or any model that faster-whisper can name.
    Raises UsageError for what is none of them, WeightError when it cannot be fetched.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        missing = [f for f in ("model.bin", "tokenizer.json", "config.json") if not (folder / f).is_file()]
        if missing:
            raise UsageError(
                f"{folder} has no {missing[0]}; name a folder in faster-whisper (CTranslate2) layout"
            )
        return folder
    from ecmf.registry import registry
    from ecmf.weights import fetch

    if f"whisper-{name}" in registry().weights:
        return fetch(f"whisper-{name}", offline=offline)
    library = need("faster_whisper.utils", "live")
    if name not in library.available_models():
        raise UsageError(
            f"unknown Whisper model {name!r}; name a folder or one of {', '.join(library.available_models())}"
        )
    try:
        return Path(library.download_model(name, local_files_only=offline))
    except (OSError, ValueError, RuntimeError) as error:  # the hub client's own errors are OSErrors
        reason = str(error).splitlines()[0]
        raise WeightError(
            f"Whisper {name} cannot be fetched ({reason}); use tiny.en or base, or a folder"
        ) from None


class Decoder:
    """A Whisper decoder on one CPU thread by default. Not thread-safe."""

    def __init__(
        self,
        name: str = "tiny.en",
        *,
        language: str | None = None,
        threads: int = 1,
        device: str = "cpu",
        offline: bool = False,
    ) -> None:
        """``language``: a code such as "de", or None to detect it (an English-only model speaks English).

        Raises UsageError for a model or language that does not exist, WeightError, MissingExtra.
        """
        folder = model_folder(name, offline=offline)
        self.name = name
        self.sha256 = sha256_of(folder / "model.bin")
        """Of the weights file; equal to the encoder's when both are of one model."""
        ctranslate2 = need("ctranslate2", "live")
        tokenizers = need("tokenizers", "live")
        self._storage = ctranslate2.StorageView
        self._model = ctranslate2.models.Whisper(
            str(folder), device=device, compute_type="int8", intra_threads=threads, inter_threads=1
        )
        self._tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.multilingual = bool(self._model.is_multilingual)
        if not self.multilingual and language not in (None, "en"):
            raise UsageError(
                f"Whisper {name} knows English alone, not {language!r}; take base or another model (--asr base)"
            )
        if self.multilingual and language is not None and self._id(f"<|{language}|>") is None:
            raise UsageError(
                f"Whisper knows no language {language!r}; use a code such as en, de or fr, or auto"
            )
        self.language = language if self.multilingual else "en"
        self._end = self._require("<|endoftext|>")

    def languages(self, states: NDArray[np.float32]) -> dict[str, float]:
        """Probability of each language the model knows, by what is heard in ``states``."""
        if not self.multilingual:
            return {"en": 1.0}
        found = self._model.detect_language(self._view(states))[0]
        return {code.strip("<|>"): float(probability) for code, probability in found}

    def detect(self, states: NDArray[np.float32]) -> tuple[str, float]:
        """The likeliest language and its probability."""
        return max(self.languages(states).items(), key=lambda item: item[1])

    def decode(
        self,
        states: NDArray[np.float32],
        seconds: float,
        prefix: Sequence[int] = (),
        from_s: float = 0.0,
        language: str | None = None,
        *,
        known: Sequence[str] = (),
        ended: bool = False,
    ) -> Hypothesis:
        """Words after ``prefix``, the tokens already settled for this audio.

        ``states`` float32[1, T, d]: the encoder's last output with its padding; ``seconds``: the audio without;
        ``from_s``: where the audio goes on that the prefix does not cover, which bounds the new tokens; ``known``:
        what an earlier pass read after the prefix; ``ended``: speech has paused or ended in it.

        Greedy, without conditioning on earlier text. The alignment runs over the padding too: what the decoder
        makes up when there is nothing left to hear attends to the padding or to the last frame, gets a start
        there or no length, and is cut off (`ecmf.heard`). So a repetition loop cannot come out.
        """
        view = self._view(states)
        language = language or self.language or self.detect(states)[0]
        start = self._start(language)
        prompt = [*start, self._require("<|notimestamps|>"), *prefix]
        limit = min(int(max(seconds - from_s, 0.0) * TOKENS_PER_SECOND) + _SPARE_TOKENS, _MAX_TOKENS)
        result = self._model.generate(
            view,
            [prompt],
            beam_size=1,
            # CTranslate2 generates at most half of max_length, the prefix included.
            max_length=2 * min(len(prefix) + limit, _MAX_TOKENS),
            return_no_speech_prob=True,
        )[0]
        fresh = [token for token in result.sequences_ids[0][len(prefix) :] if token < self._end]
        no_speech = float(result.no_speech_prob)
        if not fresh:
            return Hypothesis((), no_speech, 0.0, language)
        units, probabilities = self._align(view, states.shape[1], [*prefix, *fresh], len(prefix), language)
        kept = heard(units, seconds, self.text(prefix), known=known, ended=ended and len(fresh) < limit)
        count = sum(len(unit.tokens) for unit in kept)
        logs = np.log(np.maximum(probabilities[: count or None], 1e-10))
        return Hypothesis(kept, no_speech, float(logs.mean()), language)

    def align(self, states: NDArray[np.float32], text: str, language: str = "en") -> list[Unit]:
        """When each word of a known text is spoken. ``states`` as for `decode`; ``text`` begins with a space."""
        tokens = self._tokenizer.encode(text, add_special_tokens=False).ids
        return self._align(self._view(states), states.shape[1], tokens, 0, language)[0]

    def _align(
        self, view: object, frames: int, tokens: Sequence[int], first: int, language: str
    ) -> tuple[list[Unit], NDArray[np.float64]]:
        """``tokens[first:]`` as units, and the tokens' probabilities."""
        aligned = self._model.align(view, self._start(language), [list(tokens)], [2 * frames])[0]
        probabilities = np.asarray(aligned.text_token_probs, np.float64)[: len(tokens)]
        begins = _token_starts(aligned.alignments, len(tokens))
        return self._units(tokens, first, begins, probabilities, language), probabilities[first:]

    def _units(
        self,
        tokens: Sequence[int],
        first: int,
        begins: NDArray[np.float64],
        probabilities: NDArray[np.float64],
        language: str,
    ) -> list[Unit]:
        """Group ``tokens[first:]`` into words and punctuation."""
        units: list[Unit] = []
        begin = first
        for end in range(first + 1, len(tokens) + 1):
            text = self.text(tokens[begin:end])
            if "\ufffd" in text and end < len(tokens):
                continue  # in the middle of a character
            if end < len(tokens) and not self._splits(tokens, begin, end, language):
                continue
            if text == " ,":  # of two ways to write it, one that is taken where words were settled before it
                text = ","
            mean = float(probabilities[begin:end].mean())
            units.append(Unit(text, tuple(tokens[begin:end]), float(begins[begin]), float(begins[end]), mean))
            begin = end
        return units

    def _splits(self, tokens: Sequence[int], begin: int, end: int, language: str) -> bool:
        """Whether a new word or punctuation starts at ``end``."""
        if language in _SPACELESS:
            return True
        before, after = self.text(tokens[begin:end]), self.text(tokens[end : end + 1])
        if after.startswith(" "):
            return True
        if before.endswith("-") or after.startswith("-"):  # a compound: its parts are no words of their own
            return False
        return is_punctuation(before) != is_punctuation(after)

    def text(self, tokens: Sequence[int]) -> str:
        return str(self._tokenizer.decode(list(tokens)))

    def _start(self, language: str) -> list[int]:
        start = [self._require("<|startoftranscript|>")]
        if self.multilingual:
            start += [self._require(f"<|{language}|>"), self._require("<|transcribe|>")]
        return start

    def _view(self, states: NDArray[np.float32]) -> object:
        if states.ndim != 3 or states.shape[0] != 1 or states.dtype != np.float32:
            raise UsageError(
                f"encoder states are {states.dtype}{list(states.shape)}; expected float32[1, T, d]"
            )
        return self._storage.from_array(np.ascontiguousarray(states))

    def _id(self, token: str) -> int | None:
        found = self._tokenizer.token_to_id(token)
        return None if found is None else int(found)

    def _require(self, token: str) -> int:
        found = self._id(token)
        if found is None:
            raise UsageError(
                f"the tokenizer of Whisper {self.name} has no {token}; use a complete model folder"
            )
        return found


def _token_starts(alignments: Sequence[tuple[int, int]], count: int) -> NDArray[np.float64]:
    """Seconds at which each of ``count`` tokens, and what follows them, begins: float64[count + 1]."""
    pairs = np.asarray(alignments)
    first = np.searchsorted(pairs[:, 0], np.arange(count + 1))
    return pairs[np.minimum(first, len(pairs) - 1), 1] * SECONDS_PER_STATE
