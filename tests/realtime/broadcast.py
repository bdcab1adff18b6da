"""A publisher that repeats itself, for whoever listens."""

from __future__ import annotations

import threading

from wire import estimate, health, transcript, unlabelled

from realtime.publish import Publisher, Sinks


class Broadcast:
    """Publishes a round of messages again and again, until somebody has heard enough."""

    def __init__(self, publisher: Publisher) -> None:
        self._sinks = Sinks([publisher], now_ns=lambda: 0, transcript=True)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Broadcast:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(0.002):
            self._sinks.publish(estimate())
            self._sinks.publish(unlabelled(source="other"))
            self._sinks.publish(transcript(text="It was \x1b[31mthe best", final=True))
            self._sinks.publish(
                transcript(text="It was \x1b[31mthe best", final=True, words=[], cues="joyful")
            )
            self._sinks.publish(health())
