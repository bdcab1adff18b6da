"""Defaults, then a file, then the command line; nonsense is named."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecmf.errors import UsageError
from realtime.config import Config, load
from realtime.names import as_name, is_address, is_name
from realtime.options import Entry, sections


def file(folder: Path, text: str) -> Path:
    path = folder / "live.toml"
    path.write_text(text, "utf-8")
    return path


def test_nothing_said_is_the_default_camera_and_microphone() -> None:
    config = load()
    assert config == Config()
    assert (config.input.camera, config.input.mic, config.wire.bind) == (None, None, "tcp://127.0.0.1:5555")
    assert config.rate == 15


def test_the_file_beats_the_defaults_and_the_command_line_beats_the_file(tmp_path: Path) -> None:
    path = file(
        tmp_path,
        "[pace]\nrate = 10\nmargin = 0.2\n[input]\ncamera = 2\nduration = 5\n[models]\nface = 'retinaface'\n",
    )
    config = load(path, {"rate": "7.5", "duration": "60"})
    assert (config.rate, config.pace.margin, config.pace.tau_s) == (7.5, 0.2, 0.25)
    assert (config.input.camera, config.input.duration_s, config.models.face) == ("2", 60, "retinaface")


def test_annotation_leaves_no_trigger_out_unless_a_rate_is_asked_for() -> None:
    assert load(said={"demo": True, "fast": True}).rate == math.inf
    assert load(said={"demo": True, "fast": True, "rate": "5"}).rate == 5


def test_it_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        load().pace.rate = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "[pace]\nrte = 1",
            r"unknown key \[pace\] rte \(did you mean rate\?\); known: rate, smoothing, margin",
        ),
        ("[pac]\nrate = 1", r"unknown section \[pac\] \(did you mean pace\?\)"),
        ("pace = 1", r"pace = 1 stands for a section"),
        ("[pace]\nrate = 0", r"\[pace\] rate = 0: expected a number from 0\.1 to 120"),
        ("[pace]\nrate = true", r"rate = True: expected a number"),
        ("[pace]\nrate = 'fast'", r"rate = 'fast': expected a number"),
        ("[pace]\nrate = nan", r"rate = nan: expected a number"),
        ("[pace]\nrate = inf", r"rate = inf: expected a number"),
        ("[pace]\nrate = [1]", r"rate = \[1\]: expected a number"),
        ("[wire]\nhigh_water_mark = 1.5", r"high_water_mark = 1\.5: expected a whole number"),
        ("[input]\ndemo = 1", r"demo = 1: expected true or false"),
        ("[input]\nname = 'a/b'", r"name = 'a/b': expected letters"),
        ("[models]\nface = 'landmark'", r"expected one of .* \(did you mean landmarker\?\)"),
        ("[wire]\nbind = ''", r"bind = '': expected an address"),
        ("[pace", r"is not TOML"),
        ("[pace]\nrate = 1\nrate = 2", r"is not TOML"),
    ],
)
def test_nonsense_in_a_file_names_key_value_and_range(tmp_path: Path, text: str, says: str) -> None:
    path = file(tmp_path, text)
    with pytest.raises(UsageError, match=says) as caught:
        load(path)
    assert str(path) in str(caught.value)


def test_a_file_that_is_not_there_or_not_text(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read: No such file"):
        load(tmp_path / "missing.toml")
    (tmp_path / "picture.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="is not TOML"):
        load(tmp_path / "picture.toml")


@pytest.mark.parametrize(
    ("said", "says"),
    [
        ({"demo": True, "source": "a.mp4"}, "--demo and --source"),
        ({"source": "a.mp4", "camera": "0"}, "--source and --camera"),
        ({"demo": True, "mic": "USB"}, "only --mic off"),
        ({"fast": True}, "--fast is for files"),
        ({"loop": True, "camera": "0"}, "--loop is for files"),
        ({"demo": True, "fast": True, "loop": True}, "never end"),
        ({"camera": "off", "mic": "off"}, "leave one of them on"),
        (
            {"mic": "off", "mic-channel": "2"},
            "--mic-channel is for a microphone; leave it out with --mic off",
        ),
        ({"demo": True, "mic-channel": "2"}, "--mic-channel .* leave it out with --demo"),
        ({"transcript": True, "asr": "off"}, "--transcript is about words, and --asr off leaves none"),
        ({"transcript": True, "mic": "off"}, "--transcript is about words, and --mic off leaves none"),
        ({"llm": "my.gguf", "asr": "off"}, r"--llm my\.gguf is about words, and --asr off leaves none"),
        ({"face-models": "scrfd"}, "--face-models is for --face insightface, not landmarker"),
    ],
)
def test_options_that_contradict_each_other(said: dict[str, str | bool], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        load(None, said)


@pytest.mark.parametrize(
    ("said", "name"),
    [
        ({}, "cam0"),
        ({"camera": "2"}, "cam2"),
        ({"camera": "/dev/v4l/by-id/usb-Logi C920"}, "usb-Logi-C920"),
        ({"camera": "off"}, "mic"),
        ({"demo": True}, "demo"),
        ({"source": "films/my talk (1).mp4"}, "my-talk-1"),
        ({"source": "rtsp://host:554/live"}, "live"),
        ({"source": "rtsp://user:secret@host.lan"}, "host"),
        ({"camera": "rtsp://host/live/1?user=me&password=secret"}, "1"),
        ({"camera": "http://user:secret@10.0.0.7:8080/"}, "10.0.0.7-8080"),
        ({"source": "…"}, "file"),
        ({"source": "Jürgen 1.mp4"}, "Jürgen-1"),
        ({"source": "访谈 02.mp4"}, "访谈-02"),
        ({"source": "हिन्दी.mp4"}, "हिन्दी"),
        ({"source": "Ju\u0308rgen.mp4"}, "Jürgen"),
        ({"source": "=1+1.mp4"}, "1-1"),
        ({"demo": True, "name": "Ju\u0308rgen"}, "Jürgen"),
        ({"demo": True, "name": "desk-1"}, "desk-1"),
    ],
)
def test_a_source_has_a_name_that_fits_a_topic(said: dict[str, str | bool], name: str) -> None:
    assert load(None, said).source_name == name
    assert is_name(name)


@pytest.mark.parametrize(
    "text", ["", "a/b", "a b", ".a", "_a", "=1", "a\n", "a\u202eb", "“a”", "\u0308a", "a\0"]
)
def test_what_no_source_may_be_called(text: str) -> None:
    assert not is_name(text)


@given(st.text())
def test_whatever_a_file_is_called_its_source_may_be_called(text: str) -> None:
    assert is_name(as_name(text, "file"))


def test_the_demo_repeats_only_when_asked_for_a_duration() -> None:
    assert not load(None, {"demo": True}).repeats
    assert load(None, {"demo": True, "duration": "60"}).repeats
    assert not load(None, {"source": "a.mp4", "duration": "60"}).repeats
    assert load(None, {"source": "a.mp4", "loop": True}).repeats


@pytest.mark.parametrize(
    "text", ["tcp://127.0.0.1:5555", "tcp://*:*", "tcp://[::1]:1", "tcp://eth0:65535", "ipc:///tmp/x"]
)
def test_addresses(text: str) -> None:
    assert is_address(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "5555",
        "tcp://",
        "tcp://127.0.0.1",
        "tcp://127.0.0.1:0",
        "tcp://127.0.0.1:65536",
        "udp://x:1",
        "ipc://",
        "tcp://a b:1",
    ],
)
def test_what_is_no_address(text: str) -> None:
    assert not is_address(text)


ENTRIES = [entry for _, _, entries in sections(Config) for entry in entries]


def test_flags_are_unique_and_every_option_is_explained() -> None:
    flags = [entry.flag for entry in ENTRIES]
    assert len(set(flags)) == len(flags)
    assert all(entry.option.help for entry in ENTRIES)


@given(entry=st.sampled_from(ENTRIES), text=st.text(max_size=20))
def test_any_text_is_a_sound_value_or_a_usage_error(entry: Entry, text: str) -> None:
    try:
        config = load(None, {entry.flag: text})
    except UsageError as error:
        assert str(error)
        return
    section = next(name for name, _, entries in sections(Config) if entry in entries)
    value = getattr(getattr(config, section), entry.field)
    assert isinstance(value, entry.kind) and value not in ("", False)
    if isinstance(value, float):
        assert entry.option.low <= value <= entry.option.high


def test_the_language_is_found_unless_it_is_said() -> None:
    assert load().models.language == "auto"
    assert load(said={"language": "de"}).models.language == "de"


def test_the_language_model_may_have_more_threads_and_a_gpu() -> None:
    assert (load().models.llm_threads, load().models.llm_gpu_layers) == (1, 0)
    models = load(said={"llm-threads": "4", "llm-gpu-layers": "30"}).models
    assert (models.llm_threads, models.llm_gpu_layers) == (4, 30)
    with pytest.raises(UsageError, match=r"--llm-threads 0: expected a whole number from 1 to 64"):
        load(said={"llm-threads": "0"})
