"""`ecmf-live`: what a person types, turned into a configuration; what goes wrong, into one line."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn, TextIO

from realtime import standard_streams
from realtime.reader import takes_more
from realtime.stopping import Stop, leave

EXAMPLES = """\
examples:
  ecmf-live                                camera 0 and the default microphone
  ecmf-live --demo                         a face and a voice that are fetched once; needs no devices
  ecmf-live --camera 2 --mic "USB Audio"   named devices; --list-devices shows what there is
  ecmf-live --camera rtsp://host/stream --mic off
  ecmf-live --source talk.mp4 --fast --csv talk.csv
                                           annotate a file: a row for every frame, as fast as it goes
  ecmf-live --demo --duration 20 --json > stream.jsonl
  ecmf-live --bind tcp://*:5555 --name desk    publish to the network, as emotion/desk/
  ecmf-listen                              in another terminal: print what is published

configuration file (--config FILE), the same options without dashes; the command line wins:
  [input]
  camera = 0
  [pace]
  rate = 10
"""


class Parser(argparse.ArgumentParser):
    """Raises instead of printing its usage and exiting."""

    def error(self, message: str) -> NoReturn:
        from ecmf.errors import UsageError

        raise UsageError(f"{message}; see {self.prog} --help")


def parser() -> Parser:
    """Every option of the configuration, each with its help, in the sections of the TOML file."""
    from realtime.config import Config
    from realtime.options import sections

    made = Parser(
        prog="ecmf-live",
        usage="ecmf-live [options]",
        description="Reads the expressed emotion from face, voice and words, live, and publishes it on ZeroMQ.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    only_in_file: list[str] = []
    for name, kind, entries in sections(Config):
        group = made.add_argument_group(f"{kind.__doc__} [{name}]")
        for entry in entries:
            if entry.option.only_in_file:
                said = f"[{name}] {entry.key} = {str(entry.default).lower()}"
                only_in_file.append(f"  {said:<30} {entry.option.help}")
                continue
            text = entry.option.help.replace("%", "%%")
            if entry.kind is bool:
                group.add_argument(
                    f"--{entry.flag}", action="store_const", const=True, default=argparse.SUPPRESS, help=text
                )
                continue
            if entry.default not in (None, "auto"):
                text += (
                    f" (default: {entry.default:g})"
                    if entry.kind is float
                    else f" (default: {entry.default})"
                )
            choices = "{" + ",".join(entry.option.choices) + "}" if entry.option.choices else None
            group.add_argument(
                f"--{entry.flag}",
                metavar=choices or entry.option.metavar,
                default=argparse.SUPPRESS,
                help=text,
            )
    made.epilog = "\n".join([EXAMPLES, "only in the configuration file:", *only_in_file])
    other = made.add_argument_group("more")
    other.add_argument("--config", metavar="FILE", help="read options from a TOML file")
    other.add_argument("--list-devices", action="store_true", help="show cameras and microphones, and end")
    other.add_argument("-v", "--verbose", action="count", default=0, help="say more; twice: everything")
    other.add_argument("--version", action="store_true", help="show the version, and end")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit code. SIGINT and SIGTERM end it in order from the first line on."""
    standard_streams.complete()
    stop = Stop()
    with stop.on_signals():
        # imports come after that: a signal that arrives while they run ends the program in order, too
        from ecmf.errors import EcmfError

        try:
            code = _run(sys.argv[1:] if arguments is None else arguments, stop)
        except EcmfError as error:
            print(f"ecmf-live: {' '.join(str(error).split())}", file=sys.stderr)
            code = error.exit_code
        except MemoryError as error:
            what = f" ({error})" if str(error) else ""
            print(
                f"ecmf-live: not enough memory{what}; free some, or leave parts out: --llm off, --asr off, --mic off",
                file=sys.stderr,
            )
            code = 2
        return code if arguments is not None else leave(code)


def _run(arguments: Sequence[str], stop: Stop) -> int:
    from realtime import config

    made = parser()
    known, unknown = made.parse_known_args(arguments)
    if unknown:
        _refuse(made, unknown[0])
    said = vars(known)
    file, verbose = said.pop("config"), said.pop("verbose")
    listing, version = said.pop("list_devices"), said.pop("version")
    _log_to_stderr(verbose)
    if version:
        from importlib.metadata import version as version_of

        print(f"ecmf-live {version_of('ecmf-live')}")
        return 0
    chosen = config.load(
        Path(file) if file is not None else None,
        {key.replace("_", "-"): value for key, value in said.items()},
    )
    if listing:
        from realtime.devices import print_devices

        print_devices(as_json=chosen.output.json)
        return 0
    from realtime.session import Session

    return Session(chosen, stop).run()


class _Stderr(logging.StreamHandler[TextIO]):
    """Asks for ``sys.stderr`` each time, so that lines appear above the live view, which takes its place.

    A line that nobody takes is left out: whoever logs, a worker or the fusion, must not wait for a reader.
    """

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        if takes_more(self.stream):
            super().emit(record)


def _log_to_stderr(verbose: int) -> None:
    for level in (logging.INFO, logging.WARNING, logging.ERROR):
        logging.addLevelName(level, logging.getLevelName(level).lower())
    root = logging.getLogger()
    handler = next((each for each in root.handlers if isinstance(each, _Stderr)), None) or _Stderr()
    plain = "ecmf-live: %(levelname)s: %(message)s"
    handler.setFormatter(logging.Formatter(plain if verbose < 2 else f"%(asctime)s %(name)s {plain}"))
    root.addHandler(handler)
    for name in ("ecmf", "realtime"):
        logging.getLogger(name).setLevel((logging.WARNING, logging.INFO, logging.DEBUG)[min(verbose, 2)])


def _refuse(made: Parser, word: str) -> NoReturn:
    from ecmf.errors import UsageError
    from realtime.options import meant

    if not word.startswith("-"):
        raise UsageError(f"unexpected argument {word!r}; a file is given as --source {word}")
    flag = word.partition("=")[0]
    known = [option for action in made._actions for option in action.option_strings]
    raise UsageError(f"unknown option {flag}{meant(flag, known)}; see ecmf-live --help")


if __name__ == "__main__":
    sys.exit(main())
