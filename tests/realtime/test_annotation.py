"""Given a file, `ecmf-live --fast --json` says what a person would say of it, by media time."""

from __future__ import annotations

import json
import subprocess
import sys
import wave
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from clips import write_clap

Estimates = list[dict[str, Any]]

SCHEMA = json.loads((Path(__file__).parents[2] / "realtime" / "message.schema.json").read_text("utf-8"))
VALIDATOR = jsonschema.validators.validator_for(SCHEMA)(SCHEMA)


def annotate(source: Path, *options: str) -> list[dict[str, Any]]:
    """Every message of a run, each validated against the schema; topics are numbered without a gap."""
    command = [sys.executable, "-m", "realtime.cli", "--source", str(source), "--fast", "--json"]
    done = subprocess.run(
        [*command, "--bind", "tcp://127.0.0.1:*", "--offline", *options],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    messages = [json.loads(line) for line in done.stdout.splitlines()]
    for message in messages:
        VALIDATOR.validate(message)
    for kind in {m["type"] for m in messages}:
        numbers = [m["seq"] for m in messages if m["type"] == kind]
        assert numbers == list(range(len(numbers)))
    return messages


def estimates(messages: list[dict[str, Any]]) -> Estimates:
    return [m for m in messages if m["type"] == "emotion"]


def labels(found: Estimates, begin_s: float, end_s: float) -> list[str | None]:
    return [e["label"] for e in found if begin_s <= e["t_media_s"] <= end_s]


@pytest.fixture(scope="module")
def live_weights(weight: Callable[[str], Path]) -> None:
    for name in ("face-landmarker", "efficientnet-lite0", "silero-vad", "whisper-tiny.en"):
        weight(name)


@pytest.mark.usefixtures("live_weights")
def test_the_distressed_woman_is_sad_and_then_happy(demo_face: Path) -> None:
    found = estimates(annotate(demo_face, "--mic", "off"))
    assert Counter(labels(found, 0.5, 6)).most_common(1)[0][0] == "sadness"
    laughing = labels(found, 12, 19)
    assert laughing.count("happiness") >= 0.8 * len(laughing)
    assert {e["person"] for e in found} == {found[0]["person"]}
    assert all(e["latency_ms"] is None for e in found)


@pytest.mark.usefixtures("live_weights")
def test_every_frame_has_its_estimate(demo_smile: Path) -> None:
    from realtime.sources import decode

    shown = [round(picture.media_s, 4) for picture in decode.pictures(str(demo_smile), demo_smile.name)]
    found = estimates(annotate(demo_smile, "--asr", "off"))
    assert [e["t_media_s"] for e in found if e["trigger"] == "face"] == shown
    assert len(estimates(annotate(demo_smile, "--asr", "off", "--rate", "5"))) <= 5 * shown[-1] + 1


@pytest.mark.usefixtures("live_weights")
def test_the_man_is_neutral_and_then_smiles(demo_smile: Path) -> None:
    found = estimates(annotate(demo_smile, "--mic", "off"))
    assert set(labels(found, 0.2, 0.5)) == {"neutral"}
    assert set(labels(found, 1.2, 2.2)) == {"happiness"}


@pytest.mark.usefixtures("live_weights")
def test_a_video_without_a_face_has_no_label(demo_no_face: Path) -> None:
    found = estimates(annotate(demo_no_face, "--mic", "off"))
    assert found
    assert {(e["label"], e["reason"], e["person"]) for e in found} == {(None, "no_person", None)}


@pytest.mark.usefixtures("live_weights")
def test_five_people_are_five_with_the_finder_for_many_faces(
    demo_multi_face: Path, weight: Callable[[str], Path]
) -> None:
    weight("retinaface")
    found = estimates(annotate(demo_multi_face, "--mic", "off", "--face", "retinaface"))
    assert len({e["person"] for e in found if e["person"] is not None}) == 5


@pytest.mark.usefixtures("live_weights")
def test_read_words_and_voice_are_there_and_nothing_else(demo_speech_short: Path) -> None:
    messages = annotate(demo_speech_short, "--transcript")
    found = estimates(messages)
    last = found[-1]["modalities"]
    assert last["face"]["reason"] == "off" and last["scene"]["reason"] == "off"
    assert any(e["modalities"]["voice"]["present"] for e in found)
    assert any(e["modalities"]["text"]["present"] for e in found)
    said = {m["utterance"]: m["text"] for m in messages if m["type"] == "transcript" and m["final"]}
    for message in messages:
        if message["type"] == "transcript" and message["text"] and message["partial"]:
            assert message["partial"][0] in " .,?!", "text + partial does not read on"
    assert "fail" in " ".join(said.values()).lower()
    assert all(e["person"] is None for e in found)


@pytest.mark.usefixtures("live_weights")
def test_silence_says_nothing(tmp_path: Path) -> None:
    path = tmp_path / "silence.wav"
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 16000, 0, "NONE", ""))
        file.writeframes(bytes(2 * 16000 * 4))
    messages = annotate(path, "--transcript")
    assert not [m for m in messages if m["type"] == "transcript"]
    assert {(e["label"], e["reason"]) for e in estimates(messages)} == {(None, "no_person")}


@pytest.mark.usefixtures("live_weights")
def test_the_same_file_gives_the_same_annotation(demo_smile: Path) -> None:
    first, second = (estimates(annotate(demo_smile, "--mic", "off")) for _ in range(2))
    for message in (*first, *second):
        for changing in ("run", "t_publish_ns", "wall"):
            del message[changing]
    assert first == second


@pytest.mark.usefixtures("live_weights")
@pytest.mark.parametrize("kept", [0.5, 1.0])
def test_a_recording_that_was_cut_off_is_told(tmp_path: Path, kept: float) -> None:
    whole = write_clap(tmp_path / "whole.mkv", seconds=6).read_bytes()
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(whole[: round(kept * len(whole))])
    command = [sys.executable, "-m", "realtime.cli", "--source", str(cut), "--fast", "--asr", "off"]
    done = subprocess.run(
        [*command, "--bind", "tcp://127.0.0.1:*", "--offline"], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert ("but its header says 6.0 s; was it cut off?" in done.stderr) is (kept < 1)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--source", "nothing.mp4"], "nothing.mp4"),
        (["--source", __file__], Path(__file__).name),
        (["--camera", "77", "--mic", "off"], "77"),
        (["--camera", "off", "--mic", "no such microphone"], "no such microphone"),
        (["--demo", "--model", "nowhere"], "nowhere"),
    ],
)
def test_what_cannot_be_opened_is_one_line_and_exit_code_2(
    options: list[str], named: str, weight: Callable[[str], Path]
) -> None:
    for name in (
        "face-landmarker",
        "efficientnet-lite0",
        "silero-vad",
        "whisper-tiny.en",
        "demo-face",
        "demo-speech",
    ):
        weight(name)
    command = [sys.executable, "-m", "realtime.cli", *options, "--offline", "--bind", "tcp://127.0.0.1:*"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    lines = [line for line in done.stderr.splitlines() if "Ctrl-C ends it" not in line]
    assert done.returncode == 2 and len(lines) == 1, done.stderr
    assert named in lines[0] and "Traceback" not in done.stderr
