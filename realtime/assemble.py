"""From a configuration to open inputs and to the models that read them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from ecmf.branches.face import FaceBranch
from ecmf.branches.scene import SceneBranch
from ecmf.branches.text import TextBranch
from ecmf.branches.voice import VoiceBranch
from ecmf.bundle import SHIPPED, load_bundle
from ecmf.cue import Modality
from ecmf.decoder import Decoder
from ecmf.enrich import Enricher
from ecmf.errors import BundleError, MissingExtra, SourceError
from ecmf.head import FusionHead
from ecmf.smoothing import SmoothingOptions
from ecmf.speech import SpeechEncoder
from ecmf.vad import SpeechDetector
from realtime.clock import Clock
from realtime.config import Config
from realtime.degrade import Effort
from realtime.estimator import Estimator
from realtime.hearing import Hearing
from realtime.message import Message
from realtime.reading import DEADLINE_S, Enriching, Reading
from realtime.sources.base import AudioSource, Frame, VideoSource
from realtime.sources.demo import open_demo
from realtime.sources.file import Media, open_media
from realtime.stages import FaceStage, SceneStage

log = logging.getLogger("ecmf.assemble")

FEW_FACES, MANY_FACES = 4, 16
"""People that are followed at most: before a webcam, and with a finder for many faces."""


@dataclass
class Inputs:
    """What was opened."""

    video: VideoSource | None
    audio: AudioSource | None
    media: Media | None = None
    """Both tracks of a file, for annotation."""
    notes: list[str] = field(default_factory=list)
    """Default devices that are absent, for people."""

    @property
    def modalities(self) -> frozenset[Modality]:
        enabled: set[Modality] = set()
        if self.video is not None:
            enabled |= {"face", "scene"}
        if self.audio is not None:
            enabled |= {"voice", "text"}
        return frozenset(enabled)

    def close(self) -> None:
        for source in (self.video, self.audio):
            if source is not None:
                source.close()


def open_inputs(config: Config, pace: Clock | None) -> Inputs:
    """Open what the configuration names. ``pace`` None: lossless, on media time (--fast).

    A default device that is absent is a note; a named one raises SourceError, as does having nothing at all.
    """
    asked = config.input
    sound = asked.mic != "off"
    if asked.demo:
        media = open_demo(audio=sound, loop=config.repeats, pace=pace, offline=config.models.offline)
        return Inputs(media.video, media.audio, media)
    if asked.source is not None:
        media = open_media(asked.source, audio=sound, loop=config.repeats, pace=pace)
        return Inputs(media.video, media.audio, media)
    return _open_devices(config)


def _open_devices(config: Config) -> Inputs:
    from realtime.sources.camera import open_camera
    from realtime.sources.microphone import open_microphone

    asked = config.input
    inputs = Inputs(None, None)
    if asked.camera != "off":
        try:
            inputs.video = open_camera(asked.camera if asked.camera is not None else "0")
        except SourceError as error:
            if asked.camera is not None:
                raise
            inputs.notes.append(str(error))
    if asked.mic != "off":
        try:
            inputs.audio = open_microphone(asked.mic, channel=asked.mic_channel)
        except SourceError as error:
            if asked.mic is not None or asked.mic_channel is not None:
                inputs.close()
                raise
            inputs.notes.append(str(error))
    if inputs.video is None and inputs.audio is None:
        raise SourceError(
            "nothing to look at or listen to: " + "; ".join(inputs.notes) + "; try ecmf-live --demo"
        )
    for note in inputs.notes:
        log.warning("%s; going on without it", note)
    return inputs


class Models:
    """Makes the stages that a configuration asks for; each is made on the thread that uses it."""

    def __init__(self, config: Config) -> None:
        self._config = config

    def head(self) -> FusionHead:
        """The fusion head: the user's own, or the shipped one.

        Raises BundleError when it was fitted to other branches than those that will feed it: their embeddings may
        have the same size and mean something else.
        """
        bundle = load_bundle(self._config.models.model or SHIPPED / "default")
        for name, fitted_to in dict(bundle.manifest.extra.get("branches", {})).items():
            here = load_bundle(SHIPPED / name, verify=False).id
            if here != fitted_to:
                raise BundleError(
                    f"{bundle.id} was fitted to {fitted_to}, here is {here}; train it again with python -m train.fit"
                )
        return FusionHead(bundle, backend=self._config.models.engine, prior=self._config.models.prior)

    def estimator(self, head: FusionHead, inputs: Inputs) -> Estimator:
        pace = self._config.pace
        return Estimator(
            head,
            enabled=inputs.modalities - ({"text"} if not self.transcribes else set()),
            rate=self._config.rate,
            smoothing=SmoothingOptions(tau_s=pace.tau_s, margin=pace.margin),
        )

    @property
    def transcribes(self) -> bool:
        return self._config.models.asr != "off"

    def face(self) -> FaceStage:
        chosen = self._config.models
        most = FEW_FACES if chosen.face == "landmarker" else MANY_FACES
        branch = FaceBranch(
            chosen.face, most, offline=chosen.offline, backend=chosen.engine, models=chosen.face_models
        )
        return FaceStage(branch)

    def scene(self) -> SceneStage:
        chosen = self._config.models
        return SceneStage(SceneBranch(offline=chosen.offline, backend=chosen.engine), Effort().scene_period_s)

    def hearing(self) -> Hearing:
        """The voice bundle names the encoder it was trained on; words share it unless another model is asked for."""
        chosen = self._config.models
        bundle = load_bundle(SHIPPED / "voice")
        encoder = SpeechEncoder(
            str(bundle.manifest.extra["encoder"]["name"]), backend=chosen.engine, offline=chosen.offline
        )
        voice = VoiceBranch(bundle, encoder=encoder, backend=chosen.engine)
        detector = SpeechDetector(offline=chosen.offline)
        if not self.transcribes:
            return Hearing(encoder, voice, detector, None)
        name = encoder.name if chosen.asr == "auto" else chosen.asr
        language = None if chosen.language == "auto" else chosen.language
        decoder = Decoder(name, language=language, offline=chosen.offline)
        if decoder.sha256 == encoder.sha256:
            return Hearing(encoder, voice, detector, decoder)
        log.warning("words by %s and voice by %s need different encoders; two run", name, encoder.name)
        own = SpeechEncoder(name, backend=chosen.engine, offline=chosen.offline)
        return Hearing(encoder, voice, detector, decoder, own)

    def reading(self) -> Reading:
        return Reading(TextBranch(backend=self._config.models.engine))

    @property
    def enriches(self) -> bool:
        """Whether a language model is asked for."""
        return self.transcribes and self._config.models.llm != "off"

    def enriching(self) -> Enriching | None:
        """None, and a warning, where nobody asked for a certain language model and its runtime is not installed."""
        chosen = self._config.models
        deadline_s = None if self._config.input.fast else DEADLINE_S
        try:
            enricher = Enricher(
                None if chosen.llm == "auto" else Path(chosen.llm),
                threads=chosen.llm_threads,
                gpu_layers=chosen.llm_gpu_layers,
                offline=chosen.offline,
            )
        except MissingExtra as error:
            if chosen.llm != "auto":
                raise
            log.warning("enrichment is off: %s", error)
            return None
        return Enriching(enricher, deadline_s=deadline_s)


@dataclass(frozen=True)
class Job:
    """All that a run needs, live or annotating."""

    config: Config
    publish: Callable[[Message], Message]
    """Stamps a message, sends it, and returns it as it was sent."""
    run: str
    """Id of this run."""
    inputs: Inputs
    """Opened already."""
    models: Models
    """Fetched already; branches load where they are used."""
    on_frame: Callable[[Frame], None] | None = None
    """Gets every frame that is looked at for faces, on the thread that looks."""
