"""Who speaks, of several people in the picture: the one whose lips move with the voice.

Pure bookkeeping on the times it is given. For each person the evidence is the logarithm of how much likelier the
movement of the lips is for the one who speaks than for a bystander, with and without a voice at that moment; of the
last second or two for the voice, of the whole utterance for its words.
"""

from __future__ import annotations

import bisect
import math
from collections import deque
from collections.abc import Collection
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ecmf.branches.face.blendshapes import NAMES

SHAPES = len(NAMES)
"""With so many blendshapes a face cue's embedding ends."""
LIPS = tuple(
    NAMES.index(name)
    for name in (
        *("jawOpen", "mouthClose", "mouthFunnel", "mouthPucker", "mouthRollLower", "mouthRollUpper"),
        *("mouthLowerDownLeft", "mouthLowerDownRight", "mouthUpperUpLeft", "mouthUpperUpRight"),
        *("mouthShrugLower", "mouthShrugUpper"),
    )
)
"""12 blendshapes that speech moves; smiles and frowns last longer than syllables and are left out."""

STROKE_NS = 350_000_000
"""Lips are judged by how far they went within this long: a syllable, whatever the frame rate."""
MOVING = 0.18
"""Length of that way (each blendshape in [0, 1]) at which lips are as likely to speak as to rest."""
SOFTNESS = 0.05
AROUND_NS = 150_000_000
"""The voice around a frame: lips open before it is heard and close after it."""
CORRELATED_S = 0.2
"""Frames nearer than this tell the same thing."""
MEMORY_S = 1.0
"""Evidence fades with this time constant while somebody speaks."""
WAITING = 256
"""Frames that may wait for their sound; where none comes (no microphone) the oldest are forgotten."""
VOICE_NS = 2_000_000_000
"""Voice is kept that long for frames, which are judged as soon as the sound of their time is there."""
KEPT_NS = 30_000_000_000
"""Evidence is kept that long for words, which come later than the voice."""

QUIET = 0.1
"""Probability of a voice below which nobody speaks."""
RESTLESS_S = 3.0
"""Time constant at which it is learned how much somebody's lips move while nobody speaks."""

SPEAKER_MOVES = 0.75
"""Share of frames in which the lips of the one who speaks move."""
BYSTANDER_MOVES = 0.25
PAUSE_MOVES = 0.2
"""Share in which they move between the words, for the speaker."""

LIMIT = 1.6
"""Evidence for the voice goes no further either way, so that who takes the turn need not argue against all that was."""
CLAIM = 1.0
"""Evidence from which somebody is taken to speak: odds of e to 1."""
LEAD = 1.5
"""By which this must exceed the evidence for everybody else."""
TAKEOVER = 1.5
"""By which it must exceed the evidence for the one who has spoken so far: the voice does not jump to and fro."""
RELEASE = -1.2
"""Evidence at which the one who has spoken so far is given up, even if it is nobody else's: a voice off camera."""


@dataclass(frozen=True)
class Activity:
    """Where there was a voice, as the voice activity detector judged a stretch of sound."""

    start_ns: int
    step_ns: int
    """Length of one judgement."""
    speech: NDArray[np.float32]
    """float32[n], probability of speech in [0, 1]."""

    @property
    def end_ns(self) -> int:
        return self.start_ns + len(self.speech) * self.step_ns


@dataclass
class _Person:
    shapes: deque[tuple[int, list[float]]] = field(default_factory=deque)
    """Lips of the last STROKE_NS."""
    moves: deque[tuple[int, float]] = field(default_factory=lambda: deque(maxlen=WAITING))
    """Frames that wait for the sound of their time: when, and the probability that the lips moved."""
    judged_ns: int | None = None
    score: float = 0.0
    restless: float = PAUSE_MOVES
    """Share of frames in which the lips move although nobody speaks: who chews or laughs does not speak."""
    times: deque[int] = field(default_factory=deque)
    evidence: deque[float] = field(default_factory=deque)


class Speaker:
    """Fed with lips and voice as they come; says whose voice it is."""

    def __init__(self) -> None:
        self._people: dict[int, _Person] = {}
        self._voice: deque[tuple[int, float]] = deque()
        """End of each judgement and its probability."""
        self._heard_ns: int | None = None
        self._holder: int | None = None

    def see(self, person: int, t_ns: int, shapes: NDArray[np.float32]) -> None:
        """``shapes``: float32[52], the blendshapes of ``person`` in the frame captured at ``t_ns``."""
        one = self._people.get(person)
        if one is None:
            self._forget_the_gone(t_ns)
            one = self._people[person] = _Person()
        if one.shapes and t_ns <= one.shapes[-1][0]:
            return
        all_shapes: list[float] = shapes.tolist()
        one.shapes.append((t_ns, [all_shapes[index] for index in LIPS]))
        while one.shapes[0][0] < t_ns - STROKE_NS:
            one.shapes.popleft()
        if len(one.shapes) > 1:
            each = zip(*(lips for _, lips in one.shapes), strict=True)
            way = math.hypot(*(max(values) - min(values) for values in each))
            one.moves.append((t_ns, _sigmoid((way - MOVING) / SOFTNESS)))
        self._weigh(one)

    def hear(self, activity: Activity) -> None:
        """Go on with the voice; a stretch that was given before is ignored."""
        for index, speech in enumerate(activity.speech):
            end_ns = activity.start_ns + (index + 1) * activity.step_ns
            if self._heard_ns is None or end_ns > self._heard_ns:
                self._voice.append((end_ns, float(speech)))
                self._heard_ns = end_ns
        while self._voice and self._heard_ns is not None and self._voice[0][0] < self._heard_ns - VOICE_NS:
            self._voice.popleft()
        for one in self._people.values():
            self._weigh(one)

    def who(self, visible: Collection[int]) -> int | None:
        """Whose voice is heard now, of those ``visible``: of one it is hers; None: nobody's lips move with it."""
        if len(visible) <= 1:
            self._holder = next(iter(visible), None)
            return self._holder
        if self._holder not in visible:
            self._holder = None
        scores = {person: self._score(person) for person in visible}
        best = max(visible, key=lambda person: scores[person])
        if self._holder is None:
            second = max(score for person, score in scores.items() if person != best)
            if scores[best] >= CLAIM and scores[best] - second >= LEAD:
                self._holder = best
        elif (
            best != self._holder and scores[best] >= CLAIM and scores[best] - scores[self._holder] >= TAKEOVER
        ):
            self._holder = best
        elif scores[self._holder] <= RELEASE:
            self._holder = None
        return self._holder

    def said(self, visible: Collection[int], start_ns: int, end_ns: int) -> int | None:
        """Who of those ``visible`` said what was heard from ``start_ns`` to ``end_ns``."""
        if len(visible) <= 1:
            return next(iter(visible), None)
        sums = {person: self._between(person, start_ns, end_ns) for person in visible}
        best = max(visible, key=lambda person: sums[person])
        second = max(total for person, total in sums.items() if person != best)
        return best if sums[best] >= CLAIM and sums[best] - second >= LEAD else None

    def _score(self, person: int) -> float:
        return self._people[person].score if person in self._people else 0.0

    def _between(self, person: int, start_ns: int, end_ns: int) -> float:
        if person not in self._people:
            return 0.0
        one = self._people[person]
        first = bisect.bisect_left(one.times, start_ns)
        last = bisect.bisect_right(one.times, end_ns)
        return sum(one.evidence[index] for index in range(first, last))

    def _forget_the_gone(self, now_ns: int) -> None:
        for person in [p for p, one in self._people.items() if one.shapes[-1][0] < now_ns - KEPT_NS]:
            del self._people[person]

    def _weigh(self, one: _Person) -> None:
        """Judge the frames whose sound has come."""
        while one.moves and self._heard_ns is not None and one.moves[0][0] + AROUND_NS <= self._heard_ns:
            t_ns, moving = one.moves.popleft()
            before_ns, one.judged_ns = one.judged_ns, t_ns
            # Somebody who was away was not seen to be still.
            passed_s = 0.0 if before_ns is None else min((t_ns - before_ns) * 1e-9, CORRELATED_S)
            voice = self._voice_at(t_ns)
            if voice is None:
                continue
            if voice < QUIET:
                one.restless += (moving - one.restless) * passed_s / RESTLESS_S
            evidence = _evidence(moving, voice, one.restless) * passed_s / CORRELATED_S
            score = one.score * math.exp(-passed_s * voice / MEMORY_S) + evidence
            one.score = min(max(score, -LIMIT), LIMIT)
            one.times.append(t_ns)
            one.evidence.append(evidence)
            while one.times[0] < t_ns - KEPT_NS:
                one.times.popleft()
                one.evidence.popleft()

    def _voice_at(self, t_ns: int) -> float | None:
        """Probability of a voice around that time; None where no sound is known."""
        near = [speech for end_ns, speech in self._voice if abs(end_ns - t_ns) <= AROUND_NS]
        return sum(near) / len(near) if near else None


def _evidence(moving: float, voice: float, restless: float) -> float:
    """Expected log-likelihood ratio of speaker to bystander, of lips that move with probability ``moving``."""
    bystander = max(BYSTANDER_MOVES, min(restless, SPEAKER_MOVES))
    speaking = moving * math.log(SPEAKER_MOVES / bystander)
    speaking += (1 - moving) * math.log((1 - SPEAKER_MOVES) / (1 - BYSTANDER_MOVES))
    pausing = moving * math.log(PAUSE_MOVES / BYSTANDER_MOVES)
    return voice * speaking + (1 - voice) * pausing


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-max(-40.0, min(40.0, x))))
