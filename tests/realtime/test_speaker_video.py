"""Two real faces side by side, through the real face branch: the voice goes to the one whose mouth moves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from ecmf.branches.face import FaceBranch
from realtime.speaker import SHAPES, Activity, Speaker

FPS = 12
HEIGHT = 240
STEP_NS = 32_000_000


class Actor:
    """Somebody of a demo video who rests, or speaks: the second in which her mouth opens, played to and fro."""

    def __init__(self, path: Path, rests_s: tuple[float, float], speaks_s: tuple[float, float]) -> None:
        video = cv2.VideoCapture(str(path))
        rate = video.get(cv2.CAP_PROP_FPS)
        frames = []
        while video.grab():
            _, frame = video.retrieve()
            frames.append(cv2.resize(frame, (round(frame.shape[1] * HEIGHT / frame.shape[0]), HEIGHT)))
        self._rests, self._speaks = (
            frames[round(begin * rate) : round(end * rate) : max(1, round(rate / FPS / 2))]
            for begin, end in (rests_s, speaks_s)
        )

    def frame(self, index: int, *, speaks: bool) -> np.ndarray:
        frames = self._speaks if speaks else self._rests
        way = [*range(len(frames)), *range(len(frames) - 2, 0, -1)]
        return frames[way[index % len(way)]]


@pytest.fixture(scope="module")
def actors(demo_face: Path, demo_smile: Path) -> dict[str, Actor]:
    return {
        "woman": Actor(demo_face, (7.6, 9.0), (10.30, 10.55)),
        "man": Actor(demo_smile, (1.2, 2.1), (0.50, 0.80)),
    }


@pytest.fixture(scope="module")
def branch(weight: Callable[[str], Path]) -> FaceBranch:
    weight("face-landmarker")
    return FaceBranch(offline=True)


def play(branch: FaceBranch, actors: dict[str, Actor], script: list[str | None], seconds: float) -> list[str]:
    """Side by side, each entry of ``script`` for so long: who moves her lips (nobody for None). Somebody speaks all the
    time. Returns whose voice it is at the end of each entry."""
    branch.tracker = type(branch.tracker)(branch.tracker._finder, branch.tracker._landmarker)
    speaker, told, heard = Speaker(), [], 0
    middle = 0
    people: dict[str, int] = {}
    who: int | None = None
    for index in range(round(seconds * FPS) * len(script)):
        moves = script[index // round(seconds * FPS)]
        left, right = (actors[name].frame(index, speaks=name == moves) for name in ("woman", "man"))
        middle = left.shape[1]
        t_ns = index * 1_000_000_000 // FPS
        cues = branch.process(np.concatenate([left, right], axis=1), t_ns, t_ns)
        for cue in cues:
            assert cue.person is not None and cue.bbox is not None
            speaker.see(cue.person, t_ns, cue.embedding[-SHAPES:])
            people["woman" if cue.bbox[0] + cue.bbox[2] / 2 < middle else "man"] = cue.person
        if t_ns >= (heard + 8) * STEP_NS + 100_000_000:
            speaker.hear(Activity(heard * STEP_NS, STEP_NS, np.ones(8, np.float32)))
            heard += 8
        who = speaker.who([cue.person for cue in cues if cue.person is not None])
        if (index + 1) % round(seconds * FPS) == 0:
            told.append(next((name for name, person in people.items() if person == who), "nobody"))
    assert len(people) == 2
    return told


def test_the_voice_goes_to_whose_mouth_moves_and_changes_with_it(
    branch: FaceBranch, actors: dict[str, Actor]
) -> None:
    assert play(branch, actors, ["woman", "man"], 2.5) == ["woman", "man"]


def test_a_voice_while_both_mouths_rest_is_nobodys(branch: FaceBranch, actors: dict[str, Actor]) -> None:
    assert play(branch, actors, [None], 2.0) == ["nobody"]
