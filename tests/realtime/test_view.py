"""What people see: read from the screen itself, with a terminal that keeps its text."""

from __future__ import annotations

import io
from typing import Any

from rich.console import Console
from wire import estimate, health, transcript, unlabelled

from realtime.latest import Latest
from realtime.message import EngineUse, Estimate, Message, Modalities, ModalityState, WorkerState
from realtime.status_line import StatusLine, line
from realtime.view import LiveView, engines


def screen(*messages: Message) -> str:
    """The panel after these messages."""
    console = Console(file=io.StringIO(), force_terminal=True, width=100, color_system=None)
    view = LiveView("demo on tcp://127.0.0.1:5555", console)
    for message in messages:
        view._latest.take(message)
    with console.capture() as captured:
        console.print(view.panel())
    return captured.get()


def at(ms: int, **changes: Any) -> Estimate:
    return estimate(**({"t_publish_ns": ms * 1_000_000, "latency_ms": {"total": 12.0}} | changes))


def test_the_panel_shows_label_bars_modalities_words_and_speed() -> None:
    text = screen(
        at(0),
        at(100),
        at(200),
        health(notes=["enrichment is off"]),
        transcript(text="It was the best", partial=" of tim"),
    )
    assert "HAPPINESS   70%" in text
    for label in estimate().smoothed or {}:
        assert label in text
    face, scene, voice, words = (
        row for row in text.splitlines() if row[3:9].strip() in ("face", "scene", "voice", "text")
    )
    assert "60%" in face and "12 ms old" in face and "quality 0.90" in face and "happiness" in face
    assert "context" in scene and "30%" in voice and "no words" in words
    assert "“It was the best of tim”" in text
    assert (
        "latency p50 12 ms, p95 12 ms · 10 estimates/s · face 24/s · openvino fp32 · enrichment is off"
        in " ".join(row.strip("│ ") for row in text.splitlines())
    )


def test_before_the_first_estimate_it_says_so() -> None:
    assert "starting" in screen()


def test_without_a_label_the_reason_stands_there_and_the_bars_keep_their_place() -> None:
    before, after = screen(at(0)), screen(at(0), unlabelled(t_publish_ns=2_000_000_000, latency_ms=None))
    assert "no person" in after and "HAPPINESS" not in after
    assert [row[3:12] for row in before.splitlines()[4:11]] == [row[3:12] for row in after.splitlines()[4:11]]


def test_a_worker_that_is_off_says_why() -> None:
    text = screen(
        at(0), health(workers={"voice": WorkerState(alive=False, rate_hz=0.0, drops={}, reason="lost")})
    )
    assert "voice off: lost" in text


def test_several_persons_the_largest_first_and_those_who_left_gone() -> None:
    scene = Latest()
    for message in (
        at(0, person=3),
        at(5000, person=1, bbox=(0.0, 0.0, 10.0, 10.0)),
        at(5010, person=2, bbox=(0.0, 0.0, 90.0, 90.0)),
        unlabelled(t_publish_ns=5_020_000_000, latency_ms=None),
    ):
        scene.take(message)
    assert [each.person for each in scene.persons()] == [2, 1]


def test_words_of_the_utterance_are_replaced_and_long_ones_cut_at_the_front() -> None:
    scene = Latest()
    scene.take(transcript(utterance=1, text="It was"))
    scene.take(transcript(utterance=1, text="It was the best"))
    scene.take(transcript(utterance=2, text="of times. " * 30, partial=""))
    committed, partial = scene.words()
    assert committed.startswith("…") and committed.endswith("of times.") and partial == ""
    scene.take(transcript(utterance=3, text="", partial="it"))
    assert "".join(scene.words()).endswith("of times. it")
    scene.take(transcript(utterance=3, text="It was", partial=". And"))
    assert "".join(scene.words()).endswith("of times. It was. And")


def test_nothing_on_the_screen_can_steer_the_terminal() -> None:
    engine = {"face": EngineUse(backend="open\x1b[2Jvino", precision="fp32")}
    text = screen(at(0), transcript(text="\x1b]0;title\x07 [bold]words[/bold]"), health(engine=engine))
    assert "\x1b[2J" not in text and "\x1b]0" not in text and "\x07" not in text
    assert "[bold]words[/bold]" in text


def test_engines_are_named_only_where_they_differ() -> None:
    most = EngineUse(backend="openvino", precision="fp32")
    other = EngineUse(backend="ctranslate2", precision="int8")
    assert engines(health(engine={"face": most, "scene": most})) == "openvino fp32"
    assert (
        engines(health(engine={"face": most, "words": other, "scene": most}))
        == "openvino fp32, words ctranslate2 int8"
    )
    assert engines(health(engine={})) == ""


def test_without_a_terminal_there_is_a_line_a_second() -> None:
    stream = io.StringIO()
    status = StatusLine(stream)
    for number in range(46):  # 3 s at 15 a second
        status.write(at(number * 67), "", b"")
        status.write(health(), "", b"")
    lines = stream.getvalue().splitlines()
    assert len(lines) == 4
    assert (
        "happiness" in lines[0]
        and "70%" in lines[0]
        and "text  –" in lines[0]
        and lines[0].endswith("p50 12 p95 12 ms")
    )


def test_a_line_without_a_label_has_the_reason() -> None:
    assert "(no_person)" in line(unlabelled())


def test_nothing_in_the_panel_is_cut_off() -> None:
    states = {
        "scene": {"present": False, "reason": "off"},
        "text": {"present": False, "reason": "other_person"},
    }
    absent = {name: ModalityState(**state) for name, state in states.items()}
    face = ModalityState(present=True, weight=0.0, age_ms=999.0, quality=0.5, probs={"happiness": 1.0})
    voice = ModalityState(present=True, weight=1.0, age_ms=999.0, quality=1.0, probs={"neutral": 1.0})
    text = screen(
        at(0, modalities=Modalities(face=face, voice=voice, **absent)), transcript(text="", partial="It was")
    )
    assert "…" not in text
    assert "“It was”" in text
    for shown in ("█" * 10, "100%", "999 ms old", "quality 1.00", "happiness", "other person"):
        assert shown in text


def test_a_worker_that_has_come_to_its_end_is_not_off_for_a_reason() -> None:
    workers = {
        "camera": WorkerState(alive=False, rate_hz=0.0, drops={}),
        "face": WorkerState(alive=False, rate_hz=0.0, drops={}, reason="failed: boom"),
    }
    text = " ".join(screen(at(0), health(workers=workers)).replace("│", " ").split())
    assert "camera ended" in text and "face off: failed: boom" in text and "None" not in text
