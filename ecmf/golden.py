"""Golden inputs: real pictures, speech and sentences, as the branches hand them to their models.

Rebuilt from the demo media through the branches' own preprocessing, or stored in a bundle's `golden.json` together
with what the trained network gave. `ecmf.engines.parity` runs them.
"""

from __future__ import annotations

import functools
import json
import wave
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecmf.bundle import Bundle
from ecmf.engines.base import Arrays, EngineSpec
from ecmf.errors import BundleError, EngineError, WeightError, need

SAMPLE_RATE = 16000
FRAMES = (("demo-smile", 5), ("demo-smile", 45), ("demo-face", 60), ("demo-face", 400))
"""Weight and frame number: a neutral face, a smile, distress, laughter."""
SECONDS = (2, 5)
"""Lengths of golden speech where the engine takes any."""
LONGEST_S = 30
FILE = "golden.json"


class NoGolden(EngineError):
    """There is nothing to prove an engine with: the demo media are not here, or the bundle is of an unknown kind."""


def inputs(bundle: Bundle, spec: EngineSpec | None = None) -> list[dict[str, NDArray[Any]]]:
    """The golden inputs of ``bundle``, of the shapes that ``spec`` asks for. Never fetches. Raises NoGolden."""
    spec = spec or EngineSpec()
    make = _MAKERS.get(bundle.manifest.name)
    if bundle.manifest.extra.get("architecture") == "whisper-encoder":
        samples = _speech(bundle, spec)
    elif make is not None and not _samples(bundle):
        try:
            samples = make(bundle)
        except WeightError as error:
            raise NoGolden(f"the demo media are not here ({error})") from None
        except KeyError as error:
            raise NoGolden(f"{bundle.id} states no {error}, which its golden inputs are made with") from None
    else:
        samples = [_arrays(sample["inputs"], bundle) for sample in _samples(bundle)]
    if not samples:
        raise NoGolden(f"{bundle.id} brings no golden inputs and is of no kind that they could be made for")
    wanted = {name: tuple(shape) for name, shape in spec.shapes.items()}
    fitting = [s for s in samples if all(s[name].shape == shape for name, shape in wanted.items())]
    if not fitting:
        raise NoGolden(f"no golden input of {bundle.id} has the shapes {wanted}")
    return [_batch(bundle, sample, size) for size in spec.sizes.get("batch", (1,)) for sample in fitting]


def stored_outputs(bundle: Bundle) -> list[dict[str, NDArray[Any]]]:
    """What the trained network gave for each golden input when it was exported; empty for imported bundles."""
    if bundle.manifest.name in ("face", "voice") and "logits" in _golden(bundle):
        return [{"logits": np.array([_golden(bundle)["logits"]])}]
    if bundle.manifest.name == "text" and not _samples(bundle):
        return [{"logits": np.array([output["logits"]])} for output in _golden(bundle).get("outputs", [])]
    return [{k: np.asarray(v) for k, v in sample["outputs"].items()} for sample in _samples(bundle)]


def write(samples: Iterable[Mapping[str, Mapping[str, NDArray[Any]]]]) -> bytes:
    """The content of a bundle's golden.json from samples ``{"inputs": {...}, "outputs": {...}}``, batch size kept."""
    plain = [
        {
            side: {name: _plain(array) for name, array in sample[side].items()}
            for side in ("inputs", "outputs")
        }
        for sample in samples
    ]
    return (json.dumps({"samples": plain}) + "\n").encode()


def _plain(array: NDArray[Any]) -> Any:
    return (array.astype(np.float64).round(6) if array.dtype.kind == "f" else array).tolist()


def _golden(bundle: Bundle) -> dict[str, Any]:
    if FILE not in bundle.manifest.files:
        return {}
    try:
        content: dict[str, Any] = json.loads((bundle.folder / FILE).read_text("utf-8"))
    except ValueError as error:
        raise BundleError(f"{bundle.folder / FILE} is broken ({error}); export or pull it again") from None
    return content


def _samples(bundle: Bundle) -> list[dict[str, Any]]:
    samples: list[dict[str, Any]] = _golden(bundle).get("samples", [])
    return samples


def _arrays(values: Mapping[str, Any], bundle: Bundle) -> dict[str, NDArray[Any]]:
    dtypes = {port.name: port.dtype for port in bundle.manifest.inputs}
    return {name: np.asarray(value, dtypes[name]) for name, value in values.items()}


def _batch(bundle: Bundle, sample: Arrays, size: int) -> dict[str, NDArray[Any]]:
    """``sample``, of batch 1, repeated where a port's first size is free."""
    free = {port.name for port in bundle.manifest.inputs if port.shape and isinstance(port.shape[0], str)}
    return {n: np.repeat(a, size, axis=0) if n in free and size > 1 else a for n, a in sample.items()}


@functools.lru_cache(maxsize=len(FRAMES))
def _frame(weight: str, index: int) -> NDArray[np.uint8]:
    """uint8[H, W, 3] BGR of a demo video. Raises WeightError when it is not here."""
    from ecmf.weights import fetch

    cv2: Any = need("cv2", "live")
    path = fetch(weight, offline=True)
    capture = cv2.VideoCapture(str(path))
    try:
        for _ in range(index):
            capture.grab()
        good, frame = capture.read()
    finally:
        capture.release()
    if not good:
        raise NoGolden(f"{path} has no frame {index} that can be decoded")
    picture: NDArray[np.uint8] = frame
    return picture


def _speech_audio(path: Path, begin: int = 0, end: int = LONGEST_S * SAMPLE_RATE) -> NDArray[np.float32]:
    """Samples ``begin`` to ``end`` of a 16-bit mono file at SAMPLE_RATE, float32[n] in [-1, 1]. Raises NoGolden."""
    with wave.open(str(path), "rb") as file:
        if (file.getframerate(), file.getnchannels(), file.getsampwidth()) != (SAMPLE_RATE, 1, 2):
            raise NoGolden(f"{path} is not 16-bit mono at {SAMPLE_RATE} Hz")
        file.setpos(min(begin, file.getnframes()))
        raw = file.readframes(end - begin)
    return np.frombuffer(raw, "<i2").astype(np.float32) / np.float32(32768)


def _speech(bundle: Bundle, spec: EngineSpec) -> list[dict[str, NDArray[Any]]]:
    """Demo speech as log-mel: all but the last second of each length is sound, as the encoder's padding leaves it."""
    from ecmf.log_mel import log_mel
    from ecmf.weights import fetch

    try:
        audio = _speech_audio(fetch("demo-speech-short", offline=True))
    except WeightError as error:
        raise NoGolden(f"the demo media are not here ({error})") from None
    shape = spec.shapes.get("mel")
    lengths = [shape[2]] if shape else spec.sizes.get("frames") or [100 * s for s in SECONDS]
    samples: list[dict[str, NDArray[Any]]] = []
    for frames in lengths:
        padded = np.zeros(frames * SAMPLE_RATE // 100, np.float32)
        sound = audio[: max(len(padded) - SAMPLE_RATE, SAMPLE_RATE // 2)]
        padded[: len(sound)] = sound
        samples.append({"mel": log_mel(padded, int(bundle.manifest.preprocessing["mels"]))[None]})
    return samples


def _face(bundle: Bundle) -> list[dict[str, NDArray[Any]]]:
    from ecmf.branches.face.align import crop, five_points
    from ecmf.branches.face.blendshapes import Blendshapes

    golden = _golden(bundle)
    if not golden:
        return []
    size = int(bundle.manifest.inputs[0].shape[-1])
    picture = _frame(golden["weight"], int(golden["frame"]))
    found = [(picture, np.array(golden["points"], np.float64), np.array(golden["blendshapes"], np.float32))]
    blendshapes = Blendshapes(offline=True)
    for frame, points in _landmarks_of(FRAMES):
        found.append((frame, five_points(points), blendshapes.run(points)))
    return [
        {"face": crop(frame, points, size)[None, None].astype(np.float32), "blendshapes": shapes[None]}
        for frame, points, shapes in found
    ]


def _voice(bundle: Bundle) -> list[dict[str, NDArray[Any]]]:
    from ecmf.branches.voice import voice_inputs
    from ecmf.speech import SpeechEncoder
    from ecmf.vad import SpeechDetector
    from ecmf.weights import fetch

    golden = _golden(bundle)
    if not golden:
        return []
    begin, end = (round(float(golden[key]) * SAMPLE_RATE) for key in ("from_s", "to_s"))
    audio = _speech_audio(fetch(golden["weight"], offline=True), begin, end)
    states = SpeechEncoder(bundle.manifest.extra["encoder"]["name"], offline=True).encode(audio)
    speech = SpeechDetector().process(audio[: len(audio) // 512 * 512])
    seen = voice_inputs(audio, states, speech, float(bundle.manifest.preprocessing["window_s"]))
    return [{"states": seen.states[None], "mask": seen.mask[None], "prosody": seen.prosody[None]}]


def _text(bundle: Bundle) -> list[dict[str, NDArray[Any]]]:
    from ecmf.wordpiece import WordPiece, pad

    sentences = _golden(bundle).get("sentences") or ("I am so happy today!", "The meeting is at nine.")
    wordpiece = WordPiece(bundle.folder / bundle.manifest.preprocessing["tokenizer"])
    scores = np.zeros((1, int(bundle.manifest.inputs[-1].shape[-1])), np.float32)
    samples: list[dict[str, NDArray[Any]]] = []
    for sentence in sentences:
        tokens = pad([wordpiece.line(sentence)])
        samples.append({"ids": tokens.ids, "mask": tokens.mask, "types": tokens.types, "scores": scores})
    return samples


def _minilm(bundle: Bundle) -> list[dict[str, NDArray[Any]]]:
    from ecmf.weights import fetch
    from ecmf.wordpiece import WordPiece, pad

    tokens = pad([WordPiece(fetch("minilm-tokenizer", offline=True)).line("I am so happy today!")])
    return [dict(zip(("input_ids", "attention_mask", "token_type_ids"), vars(tokens).values(), strict=True))]


def _scene(bundle: Bundle) -> list[dict[str, NDArray[Any]]]:
    from ecmf.branches.scene import image_of

    cv2: Any = need("cv2", "live")
    how = bundle.manifest.preprocessing
    size = tuple(how["size"])
    small = [cv2.resize(_frame(*frame), size, interpolation=cv2.INTER_AREA) for frame in FRAMES[1:]]
    return [{"image": image_of(picture, float(how["mean"]), float(how["scale"]))} for picture in small]


def _detector(bundle: Bundle) -> list[dict[str, NDArray[Any]]]:
    from ecmf.branches.face.landmarker_finder import letterboxed

    return [{bundle.manifest.inputs[0].name: letterboxed(_frame(*frame))[0]} for frame in FRAMES[1:3]]


def _retinaface(bundle: Bundle) -> list[dict[str, NDArray[Any]]]:
    from ecmf.branches.face.retinaface import image_of

    mean = np.array(bundle.manifest.preprocessing["mean"], np.float32)
    return [{bundle.manifest.inputs[0].name: image_of(_frame(*FRAMES[1]), mean)}]


def _landmarks(bundle: Bundle) -> list[dict[str, NDArray[Any]]]:
    from ecmf.branches.face.landmarks import image_of

    return [
        {bundle.manifest.inputs[0].name: image_of(frame, region)} for frame, region in _faces(FRAMES[1:3])
    ]


def _blendshapes(bundle: Bundle) -> list[dict[str, NDArray[Any]]]:
    from ecmf.branches.face.blendshapes import POINTS

    name = bundle.manifest.inputs[0].name
    return [{name: points[POINTS, :2][None]} for _, points in _landmarks_of(FRAMES[1:3])]


def _faces(frames: Sequence[tuple[str, int]]) -> list[tuple[NDArray[np.uint8], Any]]:
    """Frames of the demo media with the region of the largest face in each."""
    from ecmf.branches.face.landmarker_finder import LandmarkerFinder

    finder = LandmarkerFinder(offline=True)
    regions = []
    for name in frames:
        frame = _frame(*name)
        faces = finder.find(frame)
        if not faces:
            raise NoGolden(f"the face finder sees nobody in frame {name[1]} of {name[0]}")
        regions.append((frame, faces[0].region))
    return regions


def _landmarks_of(
    frames: Sequence[tuple[str, int]],
) -> list[tuple[NDArray[np.uint8], NDArray[np.float32]]]:
    """Frames with the 478 landmarks of the largest face; a second look settles the first, as when tracking."""
    from ecmf.branches.face.landmarks import Landmarker

    landmarker = Landmarker(offline=True)
    return [
        (frame, landmarker.run(frame, landmarker.run(frame, region).region).points)
        for frame, region in _faces(frames)
    ]


_MAKERS = {
    "face": _face,
    "voice": _voice,
    "text": _text,
    "minilm": _minilm,
    "scene": _scene,
    "face-detector": _detector,
    "face-landmarks": _landmarks,
    "face-blendshapes": _blendshapes,
    "retinaface": _retinaface,
}
