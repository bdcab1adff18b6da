"""Devices that are lost and come back: unplugged, switched off, a server restarted."""

from __future__ import annotations

import dataclasses
import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Generic, TypeVar

from ecmf.errors import SourceError
from realtime.sources.base import AudioBlock, AudioSource, Frame, SourceLost, VideoDevice
from realtime.watch_picture import PictureWatch

if TYPE_CHECKING:
    from realtime.health import CameraState, MicrophoneState

log = logging.getLogger("ecmf.sources")

RETRY_S = 0.5

Source = TypeVar("Source", VideoDevice, AudioSource)


class _Returning(Generic[Source]):
    def __init__(self, first: Source, reopen: Callable[[], Source], retry_s: float = RETRY_S) -> None:
        self.lost: str | None = None
        """Why it is away, None while it delivers."""
        self.returns = 0
        """How often it came back."""
        self._current: Source = first
        self._reopen: Callable[[], Source] = reopen
        self._retry_s = retry_s
        self._closed = False
        self._opening = False
        self._changing = threading.Lock()

    @property
    def name(self) -> str:
        return self._current.name

    def close(self) -> None:
        with self._changing:
            self._closed = True
            self._current.close()

    def _comes_back(self, error: SourceLost, stop: threading.Event) -> bool:
        """Wait for the device to return; False when that was given up."""
        if self._closed:  # it was not lost: it ends, as it was asked to
            return False
        self.lost = str(error)
        log.warning("%s; waiting for its return", error)
        self._current.close()
        while not self._closed and not stop.wait(self._retry_s):
            with self._changing:
                if self._closed:
                    return False
                self._opening = True
                try:
                    self._current = self._reopen()
                except SourceError:
                    self._opening = False
                    continue
            self.returns += 1
            return True
        return False

    def _delivers(self) -> None:
        if self.lost is not None:
            log.warning("%s is back", self.name)
            self.lost, self._opening = None, False


class ReturningVideo(_Returning[VideoDevice]):
    """A camera that is opened again when it was lost; ``frames`` waits meanwhile instead of raising SourceLost."""

    def __init__(
        self, first: VideoDevice, reopen: Callable[[], VideoDevice], retry_s: float = RETRY_S
    ) -> None:
        super().__init__(first, reopen, retry_s)
        self.watch = PictureWatch()

    @property
    def width(self) -> int:
        return self._current.width

    @property
    def height(self) -> int:
        return self._current.height

    @property
    def fps(self) -> float:
        return self._current.fps

    def frames(self, stop: threading.Event) -> Iterator[Frame]:
        index = 0
        while True:
            try:
                for frame in self._current.frames(stop):
                    self._delivers()
                    yield self.watch.see(dataclasses.replace(frame, index=index))
                    index += 1
                return
            except SourceLost as error:
                self.watch.lose()
                if not self._comes_back(error, stop):
                    return

    def condition(self) -> CameraState:
        """How it is doing now; any thread may ask."""
        away = None if self.lost is None else "reconnecting" if self._opening else "lost"
        return self.watch.condition(self.width, self.height, away=away)


class ReturningAudio(_Returning[AudioSource]):
    """A microphone that is opened again when it was lost; ``blocks`` waits meanwhile instead of raising."""

    def __init__(
        self, first: AudioSource, reopen: Callable[[], AudioSource], retry_s: float = RETRY_S
    ) -> None:
        super().__init__(first, reopen, retry_s)
        self._overflows_before = 0
        self._faults_before: Counter[str] = Counter()

    @property
    def rate(self) -> int:
        return self._current.rate

    @property
    def overflows(self) -> int:
        return self._overflows_before + self._current.overflows

    def blocks(self, stop: threading.Event) -> Iterator[AudioBlock]:
        while True:
            try:
                for block in self._current.blocks(stop):
                    self._delivers()
                    yield block
                return
            except SourceLost as error:
                overflows, faults = self.overflows, self._current.condition().faults
                self._faults_before["lost"] += 1
                if not self._comes_back(error, stop):
                    return
                self._overflows_before = overflows
                self._faults_before.update(faults)

    def condition(self) -> MicrophoneState:
        """How it is doing now; any thread may ask."""
        from msgspec.structs import replace

        now = self._current.condition()
        return replace(
            now,
            overflows=self.overflows,
            state="lost" if self.lost is not None else now.state,
            faults=dict(self._faults_before + Counter(now.faults)),
        )
