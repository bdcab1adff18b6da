"""What a run looks like in a terminal: a calm panel that stays in place."""

from __future__ import annotations

import sys
from collections import Counter
from typing import TYPE_CHECKING, Any

from ecmf.errors import need
from realtime.latest import Latest, plain
from realtime.message import Estimate, Health, Message, ModalityState

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table

REFRESH_HZ = 5
"""Fast enough to look alive, slow enough to read and to cost nothing."""

WIDTH = 76
BAR = 30
SHARE = 10


class LiveView:
    """The panel, redrawn by a thread of its own. Log lines appear above it."""

    def __init__(self, title: str, console: Console | None = None) -> None:
        """``title``: what is running, e.g. the source and the address. Raises MissingExtra without rich."""
        need("rich", "live")
        from rich.console import Console
        from rich.live import Live

        self._title = title
        self._latest = Latest()
        self.console = console or Console()
        self._live = Live(
            get_renderable=self.panel,
            console=self.console,
            refresh_per_second=REFRESH_HZ,
            redirect_stdout=False,
            redirect_stderr=sys.stderr.isatty(),
        )

    def write(self, message: Message, topic: str, payload: bytes) -> None:
        self._latest.take(message)
        if not self._live.is_started:  # not before there is something to show: progress bars come first
            self._live.start()

    def close(self) -> None:
        self._live.stop()

    def panel(self) -> RenderableType:
        """What is on the screen now."""
        from rich.console import Group
        from rich.panel import Panel
        from rich.text import Text

        persons = self._latest.persons()
        parts: list[Any] = []
        if persons:
            first = persons[0]
            parts += [_headline(first), Text(), _bars(first, self._latest.labels), Text(), _modalities(first)]
            parts += [_other(estimate) for estimate in persons[1:6]]
        else:
            parts.append(Text("starting …", style="dim"))
        committed, partial = self._latest.words()
        if committed or partial:
            said = Text.assemble("“", plain(committed), (plain(partial), "dim"), "”")
            if self._latest.cues:
                said.append(f"  reads as {plain(self._latest.cues)}", "dim italic")
            parts += [Text(), said]
        parts += [Text(), Text(self.footer(), style="dim")]
        return Panel(Group(*parts), title=plain(self._title), title_align="left", width=WIDTH, padding=(1, 2))

    def footer(self) -> str:
        """Latency, rates and engines in a line or two."""
        latency = self._latest.latency_ms()
        told = [f"{self._latest.rate_hz():.0f} estimates/s"]
        if latency is not None:
            told.insert(0, f"latency p50 {latency[0]:.0f} ms, p95 {latency[1]:.0f} ms")
        health = self._latest.health
        if health is not None:
            told += [
                f"{name} {worker.rate_hz:.0f}/s" for name, worker in health.workers.items() if worker.alive
            ]
            told += [
                f"{name} off: {worker.reason}" if worker.reason else f"{name} ended"
                for name, worker in health.workers.items()
                if not worker.alive
            ]
            told.append(engines(health))
            told += health.notes
        return plain(" · ".join(part for part in told if part))


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

    table = _grid(12, SHARE, 5, 11, 12, 13)
    for name, state in estimate.modalities.items():
        table.add_row(
            Text(name, style="" if state.present else "dim"),
            Text(_bar(state.weight, SHARE), style="magenta"),
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
