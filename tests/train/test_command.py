"""What the training commands share: one help for one option, results that every JSON reader takes, errors as a line."""

from __future__ import annotations

import errno
import importlib
import json
import resource
from pathlib import Path

import numpy as np
import pytest

from ecmf.errors import DataError, UsageError
from train import atomic, clip_cues, command, fit_folder, recipe
from train.fit_default import read_recipe

COMMANDS = (
    "fit",
    "features",
    "export",
    "refine",
    "pseudo",
    "evaluate",
    "compare",
    "fit_voice",
    "evaluate_voice",
)
"""Those whose parser can be had; what the others say is seen by their help alone."""
ALONE = ("fit_text", "evaluate_text", "quantize")


@pytest.mark.parametrize("name", ["fit", "features"])
@pytest.mark.parametrize("count", ["0", "-3", "two"])
def test_no_process_is_too_few(name: str, count: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        importlib.import_module(f"train.{name}").main(["--data", ".", "--processes", count])
    assert ended.value.code == 2
    assert f"--processes: '{count}': a whole number, at least 1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--features", ".", "--processes", "2"), "--processes goes with --data"),
        (("--features", ".", "--status"), "go with --data"),
        (("--data", ".", "--config", "x.toml"), "--config goes with --features"),
    ],
)
def test_extraction_refuses_what_it_would_not_read(
    options: tuple[str, ...], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert importlib.import_module("train.features").main(list(options)) == 2
    assert expected in capsys.readouterr().err


def test_offline_reaches_whoever_opens_the_clips(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = ["path,label,speaker,split"]
    for number, label in enumerate(("glad", "grim", "glad", "grim")):
        (tmp_path / f"{number}.txt").write_text("A word.")
        lines.append(f"{number}.txt,{label},p{number},train")
    (tmp_path / "labels.csv").write_text("\n".join(lines) + "\n")
    told: list[bool] = []

    class Reader:
        def __init__(self, *, offline: bool = False) -> None:
            told.append(offline)
            raise DataError("seen")

    monkeypatch.setattr(clip_cues, "ClipReader", Reader)
    for name in ("refine", "pseudo"):
        module = importlib.import_module(f"train.{name}")
        for more in ((), ("--offline",)):
            arguments = ["--data", tmp_path, "--out", tmp_path / "out", "--cache", tmp_path / "cache", *more]
            assert module.main([str(each) for each in arguments]) == 2
            assert capsys.readouterr().err.strip().endswith("error: seen")
    assert told == [False, True, False, True]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('read_alone = ["voices"]', "read_alone names 'voices'; known: face, voice, text"),
        ('read_alone = "voice"', "read_alone = 'voice'; expected a list like"),
    ],
)
def test_a_recipe_that_names_no_cue_is_refused(line: str, expected: str, tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(f"[head]\n{line}\n")
    with pytest.raises(UsageError, match=expected):
        read_recipe(path)
    with pytest.raises(UsageError, match=expected):
        recipe.read(fit_folder.Recipe, path)
    path.write_text('[head]\nread_alone = ["voice"]\n')
    assert recipe.read(fit_folder.Recipe, path).fit.head.read_alone == ("voice",)


def test_results_are_json_even_where_there_is_no_number() -> None:
    found = {
        "a": float("nan"),
        "b": [1.0, float("inf")],
        "c": np.float32(0.5),
        "d": np.array([1, 2]),
        3: None,
    }
    text = command.results(found)
    assert json.loads(text) == {"a": None, "b": [1.0, None], "c": 0.5, "d": [1, 2], "3": None}
    assert text.endswith("}\n")
    assert '"b": [1.0, null],\n' in text and command.results({"a": [[1, 2], [3, 4]], "b": ["c [1, 2]"]}) == (
        '{\n "a": [\n  [1, 2],\n  [3, 4]\n ],\n "b": [\n  "c [1, 2]"\n ]\n}\n'
    )


def fails() -> str:
    raise DataError("labels.csv, row 3 is bad")


def full() -> str:
    raise OSError(errno.ENOSPC, "No space left on device")


def interrupted() -> str:
    raise KeyboardInterrupt


def test_an_error_is_one_line_and_code_two(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.carried_out(fails) == 2
    assert capsys.readouterr().err.strip() == "error: labels.csv, row 3 is bad"
    assert command.carried_out(full) == 2
    assert capsys.readouterr().err.strip() == "error: writing: No space left on device"
    assert command.carried_out(interrupted) == 130
    assert "goes on from here" in capsys.readouterr().err
    assert command.carried_out(lambda: "done") == 0
    assert capsys.readouterr().out == "done\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_help_says_how_it_is_called_and_what_each_option_does(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    module = importlib.import_module(f"train.{name}")
    with pytest.raises(SystemExit) as ended:
        module.main(["--help"])
    text = capsys.readouterr().out
    assert ended.value.code == 0
    assert f"python -m train.{name} " in text.partition("\n\n")[2]  # an example beyond the usage line
    made = module.parser()
    for action in made._actions:
        assert action.help, f"{name} {action.option_strings} has no help"


def test_a_measurement_refuses_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ECMF_DATA", raising=False)
    voices = ("--ravdess", tmp_path / "none", "--emodb", tmp_path / "none")
    for name, arguments in (
        ("evaluate", ("--bundle", "text")),
        ("compare", ()),
        ("evaluate_voice", voices),
        ("fit_voice", (*voices, "--out", tmp_path / "out", "--recipe", tmp_path / "none.toml")),
    ):
        assert importlib.import_module(f"train.{name}").main([str(each) for each in arguments]) == 2
        found = capsys.readouterr()
        assert found.err.splitlines()[-1].startswith("error: ") and not found.out


@pytest.mark.parametrize("name", ALONE)
def test_the_help_of_a_command_of_its_own_has_an_example(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", [name, "--help"])
    with pytest.raises(SystemExit):
        importlib.import_module(f"train.{name}").main()
    assert f"python -m train.{name} --" in capsys.readouterr().out.partition("\n\n")[2]


def test_an_option_means_the_same_everywhere() -> None:
    found: dict[str, set[str | None]] = {}
    for name in COMMANDS:
        for action in importlib.import_module(f"train.{name}").parser()._actions:
            for option in set(action.option_strings) & set(command.OPTIONS):
                found.setdefault(option, set()).add(action.help)
    assert set(found) == set(command.OPTIONS)
    assert all(len(helps) == 1 for helps in found.values())


def test_what_does_not_fit_on_the_disk_is_said_with_its_name(tmp_path: Path) -> None:
    """A limit on a file's size stands for the disk: writing into a map beyond it would end the process."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, before[1]))
    try:
        with pytest.raises(OSError) as ended:
            atomic.write_whole(tmp_path / "a.bin", bytes(1 << 17))
        assert ended.value.filename == str(tmp_path / "a.bin")
        with pytest.raises(OSError) as ended:
            atomic.mapped(tmp_path / "b.npy", np.float32, (1 << 15,))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list(tmp_path.glob("*.bin"))
    made = atomic.mapped(tmp_path / "c.npy", np.float32, (4, 8))
    made[1] = 2
    made.flush()
    assert np.load(tmp_path / "c.npy", mmap_mode="r").sum() == 16
