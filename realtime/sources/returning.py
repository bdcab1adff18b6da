"""Devices that are lost and come back: unplugged, switched off, a server restarted."""

from __future__ import annotations

import dataclasses
import logging
import threading
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from ecmf.errors import SourceError
from realtime.sources.base import AudioBlock, AudioSource, Frame, SourceLost, VideoSource

log = logging.getLogger("ecmf.sources")

RETRY_S = 0.5

Source = TypeVar("Source", VideoSource, AudioSource)


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
        self.lost = str(error)
        log.warning("%s; waiting for its return", error)
        self._current.close()
        while not self._closed and not stop.wait(self._retry_s):
            with self._changing:
                if self._closed:
                    return False
                try:
                    self._current = self._reopen()
                except SourceError:
                    continue
            self.returns += 1
            return True
        return False

    def _delivers(self) -> None:
        if self.lost is not None:
            log.warning("%s is back", self.name)
            self.lost = None


class ReturningVideo(_Returning[VideoSource]):
    """A camera that is opened again when it was lost; ``frames`` waits meanwhile instead of raising SourceLost."""

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
                    yield dataclasses.replace(frame, index=index)
                    index += 1
                return
            except SourceLost as error:
                if not self._comes_back(error, stop):
                    return


class ReturningAudio(_Returning[AudioSource]):
    """A microphone that is opened again when it was lost; ``blocks`` waits meanwhile instead of raising."""

    _overflows_before = 0

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
                before = self.overflows
                if not self._comes_back(error, stop):
                    return
                self._overflows_before = before
