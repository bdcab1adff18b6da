"""The imported encoder against CTranslate2's own, on real speech."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import wave
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from ecmf.errors import UsageError, WeightError
from ecmf.importers.ctranslate2 import as_float32, read_variables
from ecmf.log_mel import log_mel
from ecmf.speech import BUCKETS_S, SpeechEncoder, bucket_samples, frames_of

Weight = Callable[[str], Path]


def speech(path: Path) -> NDArray[np.float32]:
    """The demo speech at 16 kHz, float32."""
    soxr = pytest.importorskip("soxr")
    with wave.open(str(path)) as file:
        samples = np.frombuffer(file.readframes(file.getnframes()), np.int16).astype(np.float32) / 32768
        return np.asarray(soxr.resample(samples, file.getframerate(), 16000), np.float32)


@pytest.fixture(scope="module")
def reading(weight: Weight) -> NDArray[np.float32]:
    return speech(weight("demo-speech-short"))


@pytest.mark.parametrize("mels", [80, 128])
def test_log_mel_equals_faster_whispers(reading: NDArray[np.float32], mels: int) -> None:
    library = pytest.importorskip("faster_whisper.feature_extractor")
    expected = library.FeatureExtractor(feature_size=mels)(reading[:48000], padding=0)
    np.testing.assert_allclose(log_mel(reading[:48000], mels), expected, atol=1e-5)


@pytest.mark.parametrize("name", ["tiny.en", "base"])
def test_encoder_equals_ctranslate2(weight: Weight, reading: NDArray[np.float32], name: str) -> None:
    ctranslate2 = pytest.importorskip("ctranslate2")
    folder = weight(f"whisper-{name}")
    audio = reading[16000 : 16000 * 5]

    states = SpeechEncoder(name).encode(audio)

    padded = np.pad(audio, (0, 16000))  # 4 s and the second of zeros: the 5 s bucket
    reference = ctranslate2.models.Whisper(str(folder), compute_type="float32", intra_threads=1)
    mel = ctranslate2.StorageView.from_array(np.ascontiguousarray(log_mel(padded)[None]))
    expected = np.asarray(reference.encode(mel))
    np.testing.assert_allclose(states.last_padded, expected, atol=1e-3)
    assert states.last.shape == (200, expected.shape[2])
    assert set(states.layers) == {2, 3, 4}
    assert all(layer.shape == states.last.shape for layer in states.layers.values())


def test_a_folder_gives_the_same_encoder_as_its_registered_name(
    weight: Weight, reading: NDArray[np.float32]
) -> None:
    by_name, by_folder = SpeechEncoder("tiny.en"), SpeechEncoder(str(weight("whisper-tiny.en")))
    assert by_folder.sha256 == by_name.sha256
    one, other = by_name.encode(reading[:20000]), by_folder.encode(reading[:20000])
    # each may have been given another engine, which adds in another order
    np.testing.assert_allclose(one.last, other.last, atol=5e-4)


@pytest.mark.parametrize(
    "audio", [np.zeros(0, np.float32), np.zeros((2, 100), np.float32), np.zeros(480001, np.float32)]
)
def test_audio_the_encoder_cannot_take_is_refused(weight: Weight, audio: NDArray[np.float32]) -> None:
    weight("whisper-tiny.en")
    with pytest.raises(UsageError, match="cannot be encoded"):
        SpeechEncoder("tiny.en").encode(audio)


@given(st.integers(1, 30 * 16000))
def test_padding_is_a_second_at_least_and_ends_in_a_bucket(samples: int) -> None:
    padded = bucket_samples(samples)
    assert padded // 16000 in BUCKETS_S
    assert padded - samples >= 16000 or padded == 30 * 16000
    assert frames_of(samples / 16000) * 320 >= samples


def record(name: bytes, shape: tuple[int, ...], kind: int, data: bytes) -> bytes:
    head = len(name + b"\0").to_bytes(2, "little") + name + b"\0" + bytes([len(shape)])
    sizes = b"".join(n.to_bytes(4, "little") for n in shape)
    return head + sizes + bytes([kind]) + len(data).to_bytes(4, "little") + data


def model(*records: bytes, version: int = 6) -> bytes:
    words = [version.to_bytes(4, "little"), b"\x0c\0WhisperSpec\0", (3).to_bytes(4, "little")]
    return b"".join([*words, len(records).to_bytes(4, "little"), *records])


def test_int8_weights_are_divided_by_their_row_scale(tmp_path: Path) -> None:
    file = tmp_path / "model.bin"
    weight = np.array([[127, -64], [10, 20]], np.int8)
    scale = np.array([254, 10], np.float32)
    file.write_bytes(
        model(record(b"w", (2, 2), 1, weight.tobytes()), record(b"w_scale", (2,), 0, scale.tobytes()))
    )
    specification, variables = read_variables(file)
    assert specification == "WhisperSpec"
    np.testing.assert_allclose(as_float32(variables, "w"), [[0.5, -64 / 254], [1, 2]])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (model(record(b"w", (2,), 0, b"\0" * 8))[:-1], "ends at byte"),
        (model(record(b"w", (3,), 0, b"\0" * 8)), "has 8 bytes"),
        (model(record(b"w", (2,), 9, b"\0" * 8)), "unknown type 9"),
        (model(version=99), "format version 99"),
        (b"", "ends at byte 0"),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, content: bytes, said: str) -> None:
    file = tmp_path / "model.bin"
    file.write_bytes(content)
    with pytest.raises(WeightError, match=said):
        read_variables(file)


@given(st.binary(max_size=200))
def test_random_bytes_never_crash_the_reader(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    file = tmp_path_factory.mktemp("noise") / "model.bin"
    file.write_bytes(model()[:24] + content)
    with contextlib.suppress(WeightError):
        read_variables(file)


def test_preparing_meets_every_length_up_to_the_longest_and_changes_no_answer(
    weight: Weight, reading: NDArray[np.float32], monkeypatch: pytest.MonkeyPatch
) -> None:
    weight("whisper-tiny.en")
    encoder = SpeechEncoder("tiny.en")
    before = encoder.encode(reading[:48000]).last
    met: list[int] = []
    run = encoder.engine.run

    def watched(inputs: Mapping[str, NDArray[np.float32]]) -> Any:
        met.append(inputs["mel"].shape[-1] // 100)
        return run(inputs)

    with monkeypatch.context() as patch:
        patch.setattr(encoder.engine, "run", watched)
        encoder.prepare(10.0)
    assert met == [15, 10, 8, 6, 5, 4, 3, 2, 2, 3, 4, 5, 6, 8, 10, 15]
    np.testing.assert_allclose(encoder.encode(reading[:48000]).last, before, atol=1e-5)


GROWTH = """
import sys
import numpy as np
from ecmf.speech import SpeechEncoder

def anonymous_mb():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) / 1024 for line in status if line.startswith("RssAnon"))

encoder = SpeechEncoder("tiny.en", backend="onnxruntime", offline=True)
noise = np.random.default_rng(0).normal(0, 0.1, 28 * 16000).astype(np.float32)
encoder.prepare(9.3)
before = encoder.encode(noise[:64000]).last.copy()
usual = anonymous_mb()
for seconds in (12, 18, 28, 4):
    states = encoder.encode(noise[: seconds * 16000])
np.testing.assert_allclose(states.last, before, atol=1e-5)
print(anonymous_mb() - usual)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the kernel's own figures")
def test_what_a_rare_long_window_takes_is_given_back(weight: Weight) -> None:
    """Somebody sings, or the machine was behind: kept, it would be 100 MB for the rest of the run."""
    weight("whisper-tiny.en")
    SpeechEncoder("tiny.en", backend="onnxruntime")
    told = subprocess.run(
        [sys.executable, "-c", GROWTH],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
    )
    assert told.returncode == 0, told.stderr
    assert float(told.stdout) < 30
