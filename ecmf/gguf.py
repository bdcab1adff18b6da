"""A GGUF language model as a function from tokens to logits, through llama.cpp's C interface.

Not `llama_cpp.Llama`: while that class loads a model it points the whole process's stdout and stderr at /dev/null,
which would swallow other threads' messages.
"""

from __future__ import annotations

import ctypes
import functools
import logging
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecmf.errors import WeightError, need

log = logging.getLogger("ecmf.gguf")
CHUNK = 16
"""Tokens evaluated between two looks at the deadline. (llama.cpp's own abort callback would ask for Python's lock
hundreds of times per chunk.)"""
_complaints: list[str] = []
_LOADING = threading.Lock()
"""One model is loaded at a time: llama.cpp has one logger and one list of complaints for the whole process."""


@functools.cache
def _library() -> ModuleType:
    """llama.cpp, listened to. Only under _LOADING: of two listeners, Python would free one that C still calls."""
    library = need("llama_cpp", "llm")

    @library.llama_log_callback
    def listen(level: int, text: bytes, _: Any) -> None:
        if level >= 4:  # GGML_LOG_LEVEL_ERROR; the rest is chatter
            _complaints.append(text.decode("utf-8", "replace").strip())
            del _complaints[:-5]

    library.llama_log_set(listen, ctypes.c_void_p(0))
    library.llama_backend_init()
    library._ecmf_listener = listen  # type: ignore[attr-defined]  # C keeps the pointer, so Python must too
    return library


class LanguageModel:
    """One model with one sequence in its KV cache. Not thread-safe."""

    def __init__(self, path: Path, *, context: int = 1024, threads: int = 1, gpu_layers: int = 0) -> None:
        """Raises WeightError when ``path`` is no readable GGUF model, MissingExtra without llama-cpp-python."""
        self._lib: Any = None
        self._model: Any = None
        self._context: Any = None
        need("llama_cpp", "llm")
        try:
            with path.open("rb") as file:
                magic = file.read(4)
        except OSError as error:
            raise WeightError(f"language model {path}: {error.strerror}; give a GGUF file") from None
        if magic != b"GGUF":
            raise WeightError(f"language model {path} starts with {magic!r}, not GGUF; give a GGUF file")
        with _LOADING:
            self._lib = library = _library()
            self._load(path, context, threads, gpu_layers)
        self._vocabulary = library.llama_model_get_vocab(self._model)
        self.size = int(library.llama_vocab_n_tokens(self._vocabulary))
        self.limit = context

    def _load(self, path: Path, context: int, threads: int, gpu_layers: int) -> None:
        library = self._lib
        del _complaints[:]
        options = library.llama_model_default_params()
        options.n_gpu_layers = gpu_layers
        self._model = library.llama_model_load_from_file(str(path).encode(), options)
        if not self._model:
            reason = _complaints[0] if _complaints else "llama.cpp gives no reason"
            raise WeightError(f"language model {path} is broken ({reason}); fetch it again")
        settings = library.llama_context_default_params()
        settings.n_ctx, settings.n_batch, settings.n_ubatch = context, CHUNK, CHUNK
        settings.n_threads = settings.n_threads_batch = threads
        settings.no_perf = True
        self._context = library.llama_init_from_model(self._model, settings)
        if not self._context:
            reason = _complaints[0] if _complaints else "llama.cpp gives no reason"
            self.close()
            raise WeightError(f"language model {path} does not start ({reason}); take a smaller one")

    @property
    def template(self) -> str | None:
        """The chat template (Jinja) that the file carries."""
        text = self._lib.llama_model_chat_template(self._model, None)
        return text.decode("utf-8", "replace") if text else None

    @property
    def parameters(self) -> int:
        """How many weights the model has."""
        return int(self._lib.llama_model_n_params(self._model))

    @property
    def wants_start(self) -> bool:
        """Whether a prompt begins with the beginning-of-text token."""
        return bool(self._lib.llama_vocab_get_add_bos(self._vocabulary))

    def special(self, which: str) -> str:
        """Text of the "bos" or "eos" token; empty when the model has none."""
        token = getattr(self._lib, f"llama_vocab_{which}")(self._vocabulary)
        return self._lib.llama_vocab_get_text(self._vocabulary, token).decode() if token >= 0 else ""

    def tokenize(self, text: str, *, markers: bool = False, start: bool = False) -> list[int]:
        """Token numbers. Only with ``markers`` does text such as "<|im_end|>" become a control token."""
        data = text.encode()
        room = len(data) + 8
        buffer = (self._lib.llama_token * room)()
        count = self._lib.llama_tokenize(self._vocabulary, data, len(data), buffer, room, start, markers)
        return list(buffer[: max(count, 0)])

    def evaluate(
        self, tokens: Sequence[int], keep: int, expired: Callable[[], bool] = lambda: False
    ) -> NDArray[np.float32] | None:
        """Forget all but the first ``keep`` positions, read ``tokens``, give the next token's logits float32[size].

        None when ``expired`` says so between chunks. Raises WeightError when llama.cpp fails.
        """
        if keep + len(tokens) > self.limit:
            raise WeightError(
                f"{keep + len(tokens)} tokens do not fit the context of {self.limit}; shorten the text"
            )
        memory = self._lib.llama_get_memory(self._context)
        self._lib.llama_memory_seq_rm(memory, 0, keep, -1)
        for start in range(0, len(tokens), CHUNK):
            if expired():
                return None
            part = tokens[start : start + CHUNK]
            array = (self._lib.llama_token * len(part))(*part)
            status = self._lib.llama_decode(self._context, self._lib.llama_batch_get_one(array, len(part)))
            if status:
                reason = _complaints[-1] if _complaints else f"status {status}"
                raise WeightError(
                    f"the language model failed ({reason}); take another or switch enrichment off"
                )
        pointer = self._lib.llama_get_logits_ith(self._context, -1)
        return np.ctypeslib.as_array(pointer, (self.size,)).copy()

    def close(self) -> None:
        """Free the model's memory; a second call does nothing."""
        if self._context:
            self._lib.llama_free(self._context)
        if self._model:
            self._lib.llama_model_free(self._model)
        self._context = self._model = None

    def __del__(self) -> None:
        self.close()
