"""The latest of everything that is published, as far as a terminal shows it."""

from __future__ import annotations

import threading
from collections import deque

import numpy as np

from realtime.message import Estimate, Health, Message, Transcript

GONE_NS = 1_500_000_000
"""A person without an estimate for this long is no longer shown."""

LATENCIES = 300
"""Estimates over which the latency percentiles are taken: 20 s at the default rate."""

WORDS = 140
"""Characters of the transcript that are shown."""


class Latest:
    """Written by the publisher's thread, read by the screen's."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._persons: dict[int | None, Estimate] = {}
        self._latency_ms: deque[float] = deque(maxlen=LATENCIES)
        self._published_ns: deque[int] = deque(maxlen=LATENCIES)
        self._utterances: deque[tuple[int, str]] = deque(maxlen=3)
        self._partial = ""
        self.cues = ""
        self.labels: tuple[str, ...] = ()
        self.health: Health | None = None

    def take(self, message: Message) -> None:
        with self._lock:
            match message:
                case Estimate():
                    newest_ns = message.t_publish_ns
                    self._persons = {
                        person: each
                        for person, each in self._persons.items()
                        if person != message.person and newest_ns - each.t_publish_ns <= GONE_NS
                    }
                    self._persons[message.person] = message
                    self._published_ns.append(message.t_publish_ns)
                    self.labels = tuple(message.smoothed or self.labels)
                    if message.latency_ms is not None:
                        self._latency_ms.append(message.latency_ms["total"])
                case Health():
                    self.health = message
                case Transcript():
                    if self._utterances and self._utterances[-1][0] == message.utterance:
                        self._utterances.pop()
                    self._utterances.append((message.utterance, message.text))
                    self._partial = message.partial
                    self.cues = message.cues or ""

    def persons(self) -> list[Estimate]:
        """The latest estimate of each person in view, the largest face first."""
        with self._lock:
            estimates = list(self._persons.values())
        if not estimates:
            return []
        newest_ns = max(estimate.t_publish_ns for estimate in estimates)
        fresh = [each for each in estimates if newest_ns - each.t_publish_ns <= GONE_NS]
        if any(each.person is not None for each in fresh):
            fresh = [each for each in fresh if each.person is not None or each.label is not None]
        return sorted(fresh, key=lambda each: -(each.bbox[2] * each.bbox[3] if each.bbox else 0))

    def words(self) -> tuple[str, str]:
        """Committed words of the last utterances, cut at the front, and the partial ones that go on from there."""
        with self._lock:
            committed = " ".join(text.strip() for _, text in self._utterances if text.strip())
            partial = self._partial
            if committed and partial and not self._utterances[-1][1].strip():
                partial = f" {partial}"  # another utterance begins
        room = max(20, WORDS - len(partial))
        return (committed if len(committed) <= room else "…" + committed[-room:], partial)

    def rate_hz(self) -> float:
        """Estimates a second, over the last ones of everybody."""
        with self._lock:
            stamps = list(self._published_ns)
        span_s = (stamps[-1] - stamps[0]) * 1e-9 if stamps else 0.0
        return (len(stamps) - 1) / span_s if span_s > 0 else 0.0

    def latency_ms(self) -> tuple[float, float] | None:
        """p50 and p95 over the last estimates; None when annotating."""
        with self._lock:
            values = list(self._latency_ms)
        if not values:
            return None
        p50, p95 = np.percentile(values, [50, 95])
        return float(p50), float(p95)


def plain(text: str) -> str:
    """Without control characters: what comes from a model or from the network must not steer the terminal."""
    return "".join(character if character.isprintable() else "�" for character in text)
