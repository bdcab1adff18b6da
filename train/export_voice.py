"""A trained voice network -> the bundle that the live system loads."""

from __future__ import annotations

import dataclasses
import io
import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ecmf.branches.voice import AVERAGE, MIN_SPEECH_S, POOL, WINDOW_S, VoiceInputs
from ecmf.bundle import Bundle, Manifest, Port, write_bundle
from ecmf.importers.whisper_encoder import LAYERS
from ecmf.labels import EKMAN
from ecmf.prosody import FEATURES
from ecmf.speech import SpeechEncoder
from train.traces import remove_traces
from train.voice_network import VoiceNetwork

TRAINING_DATA: Mapping[str, Mapping[str, str]] = {
    "ravdess": {
        "name": "RAVDESS speech",
        "licence": "CC BY-NC-SA 4.0",
        "source": "Livingstone & Russo 2018, https://doi.org/10.5281/zenodo.1188976; calm counts as neutral",
    },
    "emodb": {
        "name": "EMO-DB, four classes",
        "licence": "research use",
        "source": "Burkhardt et al. 2005, http://emodb.bilderbar.info; anger, neutral, happiness, sadness",
    },
    "prompts": {
        "name": "Asterisk's spoken prompts, as neutral",
        "licence": "CC BY-SA 3.0, CC BY 3.0 (Russian)",
        "source": "Debian asterisk-core-sounds-{en,es,fr,it,ru}-g722, asterisk-prompt-it-menardi-wav",
    },
}


def export(
    network: VoiceNetwork,
    folder: Path,
    *,
    encoder: SpeechEncoder,
    version: str,
    temperature: float,
    trained: Sequence[str],
    held_out: Sequence[str],
    golden: VoiceInputs,
    golden_from: Mapping[str, Any],
    recipe: str,
    average: NDArray[np.float32],
) -> Bundle:
    """Write the bundle whole or not at all, still without measures: see `with_measures`.

    ``average`` float32[layers, d]: where sessions start from; ``golden``: inputs that ``golden_from`` describes (demo
    media, by reference).
    """
    states = torch.from_numpy(golden.states)[None]
    mask = torch.from_numpy(golden.mask)[None]
    prosody = torch.from_numpy(golden.prosody)[None]
    batch, length = torch.export.Dim("batch", min=1, max=256), torch.export.Dim("time", min=2, max=400)
    with tempfile.TemporaryDirectory() as scratch:
        graph = Path(scratch) / "model.onnx"
        program = torch.onnx.export(
            network.eval(),
            (states.repeat(2, 1, 1, 1), mask.repeat(2, 1), prosody.repeat(2, 1)),
            dynamo=True,
            opset_version=18,
            input_names=["states", "mask", "prosody"],
            output_names=["embedding", "logits"],
            dynamic_shapes=({0: batch, 2: length}, {0: batch, 1: length}, {0: batch}),
            verbose=False,
        )
        if program is None:
            raise RuntimeError("torch.onnx.export gave no program")
        program.save(str(graph), include_initializers=True, external_data=False)
        remove_traces(graph)
        with torch.no_grad():
            embedding, logits = network(states, mask, prosody)
        expected = {
            **golden_from,
            "prosody": golden.prosody.astype(float).round(5).tolist(),
            "embedding": embedding[0].tolist(),
            "logits": logits[0].tolist(),
        }
        manifest = Manifest(
            name="voice",
            version=version,
            inputs=(
                Port(
                    "states",
                    "float32",
                    ("batch", len(LAYERS), "time", states.shape[3]),
                    "encoder states, 12.5 a second",
                ),
                Port("mask", "float32", ("batch", "time"), "speech probability, 0 to 1"),
                Port("prosody", "float32", ("batch", len(FEATURES)), "ecmf.prosody.FEATURES"),
            ),
            outputs=(
                Port("embedding", "float32", ("batch", embedding.shape[1]), "members side by side"),
                Port("logits", "float32", ("batch", len(EKMAN)), "log-odds before the temperature"),
            ),
            licence="CC BY-NC-SA 4.0 (trained on RAVDESS, non-commercial: see README.md and training_data)",
            labels=EKMAN,
            preprocessing={
                "states": f"ecmf.branches.voice.voice_inputs: layers {list(LAYERS)}, {POOL} states averaged",
                "prosody": list(FEATURES),
                "window_s": WINDOW_S,
                "min_speech_s": MIN_SPEECH_S,
            },
            training_data=tuple(
                {**about, "speakers": sorted(s for s in trained if s.startswith(f"{name}-"))}
                for name, about in TRAINING_DATA.items()
                if any(s.startswith(f"{name}-") for s in trained)
            ),
            metrics={},
            golden={"file": "golden.json", **golden_from, "tolerance": 1e-2},
            extra={
                "temperature": round(temperature, 4),
                "encoder": {"name": encoder.name, "sha256": encoder.sha256},
                "trained_speakers": sorted(trained),
                "held_out_speakers": sorted(held_out),
            },
        )
        files: dict[str, Path | bytes] = {
            "model.onnx": graph,
            "golden.json": (json.dumps(expected) + "\n").encode(),
            "recipe.toml": recipe.encode(),
            AVERAGE: _npy(average),
            "README.md": b"",
        }
        return write_bundle(folder, manifest, files)


def with_measures(bundle: Bundle, metrics: Mapping[str, Any], card: str) -> Bundle:
    """The same bundle with its measures and its README.md, ``card``; the graph stays, and with it the id."""
    files: dict[str, Path | bytes] = {name: bundle.folder / name for name in bundle.manifest.files}
    manifest = dataclasses.replace(bundle.manifest, metrics=metrics)
    return write_bundle(bundle.folder, manifest, {**files, "README.md": card.encode()})


def _npy(array: NDArray[np.float32]) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=False)
    return file.getvalue()


def golden_inputs(audio: np.ndarray[Any, np.dtype[np.float32]], encoder: SpeechEncoder) -> VoiceInputs:
    """The live branch's inputs for the whole of ``audio`` float32[n], 16 kHz."""
    from ecmf.branches.voice import voice_inputs
    from ecmf.vad import SpeechDetector

    speech = SpeechDetector().process(audio[: len(audio) // 512 * 512])
    return voice_inputs(audio, encoder.encode(audio), speech, WINDOW_S)
