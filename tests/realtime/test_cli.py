"""What a person may type, and what is said when it makes no sense; no model is needed for that."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from realtime.cli import main, parser
from realtime.config import Config
from realtime.options import sections
from realtime.publish import Publisher


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--rate", "0"], "--rate 0: expected a number from 0.1 to 120"),
        (["--rate", "fast"], "--rate fast: expected a number"),
        (["--rate"], "argument --rate: expected one argument; see ecmf-live --help"),
        (["--rte", "3"], "unknown option --rte (did you mean --rate?)"),
        (["--dem"], "unknown option --dem (did you mean --demo?)"),
        (["talk.mp4"], "a file is given as --source talk.mp4"),
        (
            ["--face", "retina"],
            "expected one of landmarker, retinaface, insightface (did you mean retinaface?)",
        ),
        (["--engine", "magic"], "--engine magic: expected one of auto,"),
        (["--duration", "-3"], "--duration -3: expected a number"),
        (["--bind", "tcp://127.0.0.1:70000"], "--bind tcp://127.0.0.1:70000: expected an address"),
        (["--name", "my desk"], "--name my desk: expected letters"),
        (["--demo", "--source", "x"], "--demo and --source are two inputs"),
        (["--fast"], "--fast is for files"),
        (["--config", "/no/such/file.toml"], "/no/such/file.toml cannot be read: No such file or directory"),
    ],
)
def test_nonsense_is_one_line_and_exit_code_2(
    arguments: list[str], says: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith("ecmf-live: ") and err.count("\n") == 1
    assert says in err


def test_nonsense_in_a_configuration_file(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "live.toml"
    path.write_text("[pace]\nrte = 10\n")
    assert main(["--config", str(path)]) == 2
    assert "unknown key [pace] rte (did you mean rate?)" in capfd.readouterr().err


def test_a_port_in_use_is_refused_before_any_model_is_fetched(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ECMF_CACHE", str(tmp_path / "empty"))
    holder = Publisher("tcp://127.0.0.1:*")
    try:
        assert main(["--demo", "--offline", "--bind", holder.endpoint]) == 2
    finally:
        holder.close()
    out, err = capfd.readouterr()
    assert out == "" and err.count("\n") == 1
    assert f"--bind {holder.endpoint} is already in use" in err


def test_a_preview_without_a_display_is_refused(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    assert main(["--demo", "--preview", "--bind", "tcp://127.0.0.1:*"]) == 2
    assert "--preview needs a display" in capfd.readouterr().err


def test_help_teaches_every_option_and_shows_examples_that_parse(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    for name, _, entries in sections(Config):
        for entry in entries:
            shown = f"[{name}] {entry.key} = " if entry.option.only_in_file else f"--{entry.flag}"
            assert shown in text
    examples = re.findall(r"^  ecmf-live( .*?)?(?:  |>|$)", text, re.MULTILINE)
    assert len(examples) >= 6
    for example in examples:
        _, unknown = parser().parse_known_args(example.replace('"USB Audio"', "USB").split())
        assert unknown == []


def test_the_devices_are_listed_for_machines(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["--list-devices", "--json"]) == 0
    assert {"cameras", "microphones"} <= json.loads(capfd.readouterr().out).keys()


def test_the_version_is_shown(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert re.fullmatch(r"ecmf-live \d+\.\d+\.\d+\n", capfd.readouterr().out)


def test_the_command_line_alone_needs_only_numpy() -> None:
    program = (
        "import sys, realtime.cli, realtime.config, realtime.listen, realtime.options\n"
        "heavy = {'cv2', 'zmq', 'msgspec', 'rich', 'openvino', 'torch', 'sounddevice'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (found.returncode, found.stderr) == (0, "")


def test_a_missing_package_names_the_extra() -> None:
    program = (
        "import sys; sys.modules['zmq'] = None; sys.modules['msgspec'] = None\n"
        "from realtime.cli import main; sys.exit(main(['--demo', '--bind', 'tcp://127.0.0.1:*']))"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert found.returncode == 2
    assert re.fullmatch(
        r"ecmf-live: \w+ is not installed; install it with: pip install 'ecmf-live\[live\]'\n", found.stderr
    )


@pytest.mark.parametrize(
    ("what", "says"),
    [
        (["--camera", "97", "--mic", "off"], "camera 97 is not there"),
        (["--source", "/no/such/talk.mp4"], "source /no/such/talk.mp4 does not exist; check the path"),
        (["--source", "demo"], "source demo does not exist; ecmf-live --demo plays the demonstration"),
    ],
)
def test_what_is_not_there_is_one_line_and_nothing_is_said_to_run(
    what: list[str],
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("realtime.session.fetch_for", lambda config: None)  # weights are another matter
    assert main([*what, "--bind", f"ipc://{tmp_path}/socket"]) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1 and says in said[0]
