"""What a run looks like in a terminal: a calm panel that stays in place, or a line a second where there is none."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections import Counter, deque
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np

from ecmf.errors import need
from realtime.message import Estimate, Health, Message, ModalityState, Transcript
from realtime.reader import takes_more

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table

REFRESH_HZ = 5
"""Fast enough to look alive, slow enough to read and to cost nothing."""

GONE_NS = 1_500_000_000
"""A person without an estimate for this long leaves the panel."""

LATENCIES = 300
"""Estimates over which the latency percentiles are taken: 20 s at the default rate."""

WIDTH = 76
BAR = 30
WORDS = 140
"""Characters of the transcript that are shown."""


class Scene:
    """The latest of everything, as far as it is shown. Written by the publisher's thread, read by the screen's."""

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
                    self._persons.pop(message.person, None)
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
        """Committed words of the last utterances, cut at the front, and the partial ones."""
        with self._lock:
            committed = " ".join(text.strip() for _, text in self._utterances if text.strip())
            partial = self._partial.strip()
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


class LiveView:
    """The panel, redrawn by a thread of its own. Log lines appear above it."""

    def __init__(self, title: str, console: Console | None = None) -> None:
        """``title``: what is running, e.g. the source and the address. Raises MissingExtra without rich."""
        need("rich", "live")
        from rich.console import Console
        from rich.live import Live

        self._title = title
        self._scene = Scene()
        self.console = console or Console()
        self._live = Live(
            get_renderable=self.panel,
            console=self.console,
            refresh_per_second=REFRESH_HZ,
            redirect_stdout=False,
            redirect_stderr=sys.stderr.isatty(),
        )

    def write(self, message: Message, topic: str, payload: bytes) -> None:
        self._scene.take(message)
        if not self._live.is_started:  # not before there is something to show: progress bars come first
            self._live.start()

    def close(self) -> None:
        self._live.stop()

    def panel(self) -> RenderableType:
        """What is on the screen now."""
        from rich.console import Group
        from rich.panel import Panel
        from rich.text import Text

        persons = self._scene.persons()
        parts: list[Any] = []
        if persons:
            first = persons[0]
            parts += [_headline(first), Text(), _bars(first, self._scene.labels), Text(), _modalities(first)]
            parts += [_other(estimate) for estimate in persons[1:6]]
        else:
            parts.append(Text("starting …", style="dim"))
        committed, partial = self._scene.words()
        if committed or partial:
            said = Text.assemble("“", plain(committed), (" " + plain(partial), "dim"), "”")
            if self._scene.cues:
                said.append(f"  reads as {plain(self._scene.cues)}", "dim italic")
            parts += [Text(), said]
        parts += [Text(), Text(self.footer(), style="dim")]
        return Panel(Group(*parts), title=plain(self._title), title_align="left", width=WIDTH, padding=(1, 2))

    def footer(self) -> str:
        """Latency, rates and engines in a line or two."""
        latency = self._scene.latency_ms()
        told = [f"{self._scene.rate_hz():.0f} estimates/s"]
        if latency is not None:
            told.insert(0, f"latency p50 {latency[0]:.0f} ms, p95 {latency[1]:.0f} ms")
        health = self._scene.health
        if health is not None:
            told += [
                f"{name} {worker.rate_hz:.0f}/s" for name, worker in health.workers.items() if worker.alive
            ]
            told += [
                f"{name} off: {worker.reason}" for name, worker in health.workers.items() if not worker.alive
            ]
            told.append(engines(health))
            told += health.notes
        return plain(" · ".join(part for part in told if part))


class StatusLine:
    """One line a second on stderr, where there is no terminal to draw in; none while nobody reads them."""

    def __init__(self, stream: TextIO | None = None, every_ns: int = 1_000_000_000) -> None:
        self._stream = stream or sys.stderr
        self._every_ns = every_ns
        self._due_ns: int | None = None
        self._scene = Scene()

    def write(self, message: Message, topic: str, payload: bytes) -> None:
        self._scene.take(message)
        if not isinstance(message, Estimate):
            return
        if self._due_ns is None or message.t_publish_ns >= self._due_ns:
            self._due_ns = message.t_publish_ns + self._every_ns
            with contextlib.suppress(BrokenPipeError):  # who read it has left; the stream goes on
                if takes_more(self._stream):
                    print(line(message, self._scene.latency_ms()), file=self._stream, flush=True)

    def close(self) -> None:
        with contextlib.suppress(BrokenPipeError):
            self._stream.flush()


def line(estimate: Estimate, latency_ms: tuple[float, float] | None = None) -> str:
    """One estimate in one line, in columns that stay where they are."""
    when = estimate.wall[11:19] if estimate.t_media_s is None else f"{estimate.t_media_s:7.2f}s"
    label = f"{estimate.label or '–':<10}"
    sure = f"{estimate.confidence:4.0%}" if estimate.confidence is not None else f"({estimate.reason})"
    who = "" if estimate.person is None else f" person {estimate.person}"
    weights = "  ".join(
        f"{name} {state.weight:3.0%}" if state.present else f"{name}  – "
        for name, state in estimate.modalities.items()
    )
    speed = f"  {latency_ms[0]:.0f}/{latency_ms[1]:.0f} ms" if latency_ms is not None else ""
    return f"{when}{who}  {label} {sure:<6} {weights}{speed}"


def engines(health: Health) -> str:
    """What most branches run on, then those that run on something else by name."""
    uses = {name: f"{use.backend} {use.precision}" for name, use in health.engine.items()}
    if not uses:
        return ""
    ((most, _),) = Counter(uses.values()).most_common(1)
    return ", ".join([most, *(f"{name} {use}" for name, use in uses.items() if use != most)])


def _headline(estimate: Estimate) -> RenderableType:
    from rich.text import Text

    who = "" if estimate.person is None else f"   person {estimate.person}"
    if estimate.label is None:
        return Text.assemble(("– ", "bold"), (str(estimate.reason).replace("_", " "), "yellow"), (who, "dim"))
    sure = f"   {estimate.confidence:.0%}" if estimate.confidence is not None else ""
    return Text.assemble((plain(estimate.label).upper(), "bold green"), (sure, "bold"), (who, "dim"))


def _bars(estimate: Estimate, labels: tuple[str, ...]) -> RenderableType:
    """The smoothed probabilities, in the head's order and always all of them, so that nothing jumps."""
    from rich.text import Text

    table = _grid(12, BAR, 6)
    for label in labels:
        value = (estimate.smoothed or {}).get(label)
        style = "green" if label == estimate.label else "cyan"
        number = "" if value is None else f"{value:.2f}"
        table.add_row(Text(plain(label)), Text(_bar(value or 0.0), style=style), Text(number, style="dim"))
    return table


def _modalities(estimate: Estimate) -> RenderableType:
    from rich.text import Text

    table = _grid(12, 12, 6, 12, 13, 14)
    for name, state in estimate.modalities.items():
        table.add_row(
            Text(name, style="" if state.present else "dim"),
            Text(_bar(state.weight, 12), style="magenta"),
            Text(f"{state.weight:.0%}" if state.present else "", style="dim"),
            Text(_age(state), style="dim"),
            Text("" if state.quality is None else f"quality {state.quality:.2f}", style="dim"),
            Text(_opinion(state), style="" if state.present else "dim"),
        )
    return table


def _other(estimate: Estimate) -> RenderableType:
    from rich.text import Text

    said = estimate.label or str(estimate.reason).replace("_", " ")
    sure = f" {estimate.confidence:.0%}" if estimate.confidence is not None else ""
    return Text(f"person {estimate.person}: {plain(said)}{sure}", style="dim")


def _grid(*widths: int) -> Table:
    from rich.table import Table

    table = Table.grid(padding=(0, 1))
    for width in widths:
        table.add_column(width=width, no_wrap=True)
    return table


def _opinion(state: ModalityState) -> str:
    if not state.present:
        return str(state.reason).replace("_", " ")
    if not state.probs:
        return "context"
    best = max(state.probs, key=state.probs.__getitem__)
    return f"{plain(best)}"


def _age(state: ModalityState) -> str:
    if state.age_ms is None:
        return ""
    return f"{state.age_ms:.0f} ms old" if state.age_ms < 1000 else f"{state.age_ms / 1000:.1f} s old"


def _bar(value: float, width: int = BAR) -> str:
    """``value`` in 0..1 as a bar with a resolution of an eighth of a character."""
    eighths = round(max(0.0, min(1.0, value)) * width * 8)
    full, rest = divmod(eighths, 8)
    return "█" * full + ("", "▏", "▎", "▍", "▌", "▋", "▊", "▉")[rest]


def plain(text: str) -> str:
    """Without control characters: what comes from a model or from the network must not steer the terminal."""
    return "".join(character if character.isprintable() else "�" for character in text)
