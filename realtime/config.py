"""One frozen configuration; each option is described once, here, for the command line, the TOML file and the help."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from ecmf.engines.choose import BACKENDS
from ecmf.errors import UsageError
from ecmf.prior import OWN, is_prior
from realtime.names import ADDRESS, NAME, as_name, composed, is_address, is_name, told_of
from realtime.options import Option, fill

LIVE_RATE = 15.0


@dataclass(frozen=True)
class Input:
    """What to look at and listen to"""

    demo: Annotated[
        bool, Option("play a face video and a reading that are fetched once, paced like devices")
    ] = False
    source: Annotated[
        str | None, Option("a video, sound or picture file, or an address (rtsp, http)", metavar="FILE")
    ] = None
    fast: Annotated[bool, Option("do not pace a file like a device: read all of it, as fast as it goes")] = (
        False
    )
    loop: Annotated[bool, Option("start a file again at its end")] = False
    camera: Annotated[
        str | None,
        Option("number, name or address of a camera, or off (default: 0 if there is one)", metavar="N"),
    ] = None
    mic: Annotated[
        str | None,
        Option(
            "number or name of a microphone, or off, which also mutes a file (default: the system's)",
            metavar="NAME",
        ),
    ] = None
    mic_channel: Annotated[
        int | None,
        Option(
            "listen to this channel of the microphone, from 1 (default: the mean of the first two)",
            low=1,
            high=256,
        ),
    ] = None
    duration_s: Annotated[
        float | None,
        Option(
            "stop that long after the first estimate",
            metavar="SECONDS",
            flag="duration",
            low=0.1,
            high=31_536_000,
        ),
    ] = None
    name: Annotated[
        str | None,
        Option(
            "what the source is called on the wire (default: demo, the file's name, cam0 …)",
            metavar="NAME",
            valid=is_name,
            expected=NAME,
        ),
    ] = None


@dataclass(frozen=True)
class Models:
    """What computes"""

    face: Annotated[
        str,
        Option(
            "face finder: landmarker for a person before a webcam, retinaface for small or many faces, "
            "insightface for SCRFD models you have",
            choices=("landmarker", "retinaface", "insightface"),
        ),
    ] = "landmarker"
    face_models: Annotated[
        str | None,
        Option(
            "SCRFD model file, or folder of them, for --face insightface (default: ~/.insightface/models)",
            metavar="PATH",
        ),
    ] = None
    asr: Annotated[
        str,
        Option(
            "speech recognizer: tiny.en, base, a faster-whisper model by name or folder, or off "
            "(auto: the one whose encoder the voice branch runs anyway)",
            metavar="NAME",
        ),
    ] = "auto"
    language: Annotated[
        str,
        Option(
            "language that is spoken: a Whisper code such as en, de or fr, or auto to find it while listening "
            "(models called .en know English alone)",
            metavar="CODE",
        ),
    ] = "auto"
    llm: Annotated[
        str,
        Option(
            "language model that reads the words for emotional cues: a GGUF file, or off "
            "(auto: SmolLM2 where the llm extra is installed)",
            metavar="FILE",
        ),
    ] = "auto"
    llm_threads: Annotated[int, Option("processor threads of the language model", low=1, high=64)] = 1
    llm_gpu_layers: Annotated[
        int,
        Option(
            "layers of the language model to put on a GPU (needs a llama-cpp-python built for it)",
            low=0,
            high=1000,
        ),
    ] = 0
    model: Annotated[
        Path | None,
        Option("folder of a fusion head trained by train.fit (default: the shipped one)", metavar="DIR"),
    ] = None
    prior: Annotated[
        str,
        Option(
            "how likely each label is before anything is seen: webcam (mostly neutral), corpus (as in the data it was "
            "trained on), uniform, or a table like neutral=0.5,happiness=0.2,… (auto: what the head was trained with)",
            metavar="NAME",
            valid=is_prior,
            expected="auto, webcam, corpus, uniform, or a table like neutral=0.5,happiness=0.2,…",
        ),
    ] = OWN
    engine: Annotated[
        str, Option("what runs the models (auto: the first that works here)", choices=("auto", *BACKENDS))
    ] = "auto"
    offline: Annotated[bool, Option("never touch the network; a missing weight is an error")] = False


@dataclass(frozen=True)
class Pace:
    """How often and how smoothly"""

    rate: Annotated[
        float | None,
        Option(
            "estimates a second and person, at most; more triggers are left out (default: 15; with --fast all of them "
            "count, so that every frame has its row)",
            low=0.1,
            high=120,
        ),
    ] = None
    tau_s: Annotated[
        float,
        Option(
            "time constant of the smoothing, seconds: larger is calmer and later",
            metavar="SECONDS",
            flag="smoothing",
            low=0.001,
            high=60,
        ),
    ] = 0.25
    margin: Annotated[
        float,
        Option(
            "how much more a new label must be believed in to replace the one that holds",
            low=0,
            high=1,
            only_in_file=True,
        ),
    ] = 0.7


@dataclass(frozen=True)
class Wire:
    """What is published"""

    bind: Annotated[
        str,
        Option(
            "ZeroMQ address to publish on; tcp://*:5555 lets the network read along",
            metavar="ADDR",
            valid=is_address,
            expected=ADDRESS,
        ),
    ] = "tcp://127.0.0.1:5555"
    transcript: Annotated[
        bool, Option("publish what is said, too (otherwise no word leaves the process)")
    ] = False
    metrics: Annotated[
        int | None,
        Option(
            "serve metrics for Prometheus at http://127.0.0.1:PORT/metrics (default: off)",
            metavar="PORT",
            low=1,
            high=65535,
        ),
    ] = None
    high_water_mark: Annotated[
        int, Option("messages kept for a slow subscriber", low=1, high=1_000_000, only_in_file=True)
    ] = 1000
    replay: Annotated[
        bool, Option("send the last message of each topic to whoever subscribes late", only_in_file=True)
    ] = False


@dataclass(frozen=True)
class Output:
    """What you see"""

    json: Annotated[bool, Option("the wire's messages on stdout, one a line; everything else on stderr")] = (
        False
    )
    quiet: Annotated[
        bool, Option("no picture of the run in the terminal nor a line a second on stderr, for a service")
    ] = False
    csv: Annotated[
        Path | None,
        Option(
            "append one row an estimate to FILE, in columns named like the messages' fields", metavar="FILE"
        ),
    ] = None
    preview: Annotated[bool, Option("show the picture with face boxes and labels in a window")] = False


@dataclass(frozen=True)
class Config:
    """Everything a run depends on."""

    input: Input = field(default_factory=Input)
    models: Models = field(default_factory=Models)
    pace: Pace = field(default_factory=Pace)
    wire: Wire = field(default_factory=Wire)
    output: Output = field(default_factory=Output)

    def __post_init__(self) -> None:
        """Raises UsageError for options that contradict each other."""
        asked = self.input
        file = "--demo" if asked.demo else "--source" if asked.source is not None else None
        if asked.demo and asked.source is not None:
            raise UsageError("--demo and --source are two inputs; choose one")
        if file and asked.camera not in (None, "off"):
            raise UsageError(f"{file} and --camera are two inputs; choose one")
        if file and asked.mic not in (None, "off"):
            raise UsageError(
                f"{file} brings its own sound; with it only --mic off makes sense, not {asked.mic!r}"
            )
        if asked.mic_channel is not None and (file or asked.mic == "off"):
            raise UsageError(f"--mic-channel is for a microphone; leave it out with {file or '--mic off'}")
        for flag, given in (("--fast", asked.fast), ("--loop", asked.loop)):
            if given and not file:
                raise UsageError(f"{flag} is for files; add --source FILE or --demo")
        if asked.fast and asked.loop and asked.duration_s is None:
            raise UsageError("--fast --loop would never end; add --duration SECONDS")
        models = self.models
        wordless = "--mic off" if asked.mic == "off" else "--asr off" if models.asr == "off" else None
        llm = models.llm not in ("auto", "off")
        for flag, given in (("--transcript", self.wire.transcript), (f"--llm {models.llm}", llm)):
            if given and wordless:
                raise UsageError(f"{flag} is about words, and {wordless} leaves none; leave one of them out")
        if models.face_models is not None and models.face != "insightface":
            raise UsageError(f"--face-models is for --face insightface, not {models.face}; leave it out")
        if not file and asked.camera == "off" and asked.mic == "off":
            raise UsageError(
                "--camera off --mic off leaves nothing to look at or listen to; leave one of them on"
            )

    @property
    def repeats(self) -> bool:
        """Whether a file starts again at its end: when asked to, and the demo when asked for a duration."""
        return self.input.loop or (self.input.demo and self.input.duration_s is not None)

    @property
    def rate(self) -> float:
        """Estimates a second and person, at most: infinite when annotating, unless a rate is asked for."""
        if self.pace.rate is not None:
            return self.pace.rate
        return math.inf if self.input.fast else LIVE_RATE

    @property
    def source_name(self) -> str:
        """The source's name on the wire."""
        asked = self.input
        if asked.name is not None:
            return composed(asked.name)
        if asked.demo:
            return "demo"
        if asked.source is not None:
            return as_name(Path(told_of(asked.source)).stem, "file")
        if asked.camera == "off":
            return "mic"
        camera = asked.camera or "0"
        return f"cam{camera}" if camera.isdigit() else as_name(Path(told_of(camera)).name, "cam")


def load(file: Path | None = None, said: Mapping[str, str | bool] | None = None) -> Config:
    """The configuration of ``file`` and of what was ``said`` (long option without dashes -> its text).

    Raises UsageError for whatever makes no sense; see ``realtime.options.fill``.
    """
    return fill(Config, file, said or {})
