"""Given cues and times, what is decided for whom, how often, and why not."""

import dataclasses
import itertools
from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecmf.branches.face.blendshapes import NAMES
from ecmf.cue import Cue, Modality
from ecmf.head import EVIDENCE, EXPERTS, MAX_AGE_S, Fused, aged_quality
from ecmf.labels import EKMAN
from realtime.estimator import Decision, Estimator, Report
from realtime.pace import Pace
from realtime.speaker import SHAPES, Activity

MS = 1_000_000
ALL: frozenset[Modality] = frozenset(("face", "scene", "voice", "text"))


class ProductHead:
    """The product of the experts: a head whose answer can be worked out by hand, to test the bookkeeping alone."""

    labels = EKMAN
    max_age_s = MAX_AGE_S
    abstain_below = 0.0

    def usable(self, cues: Mapping[Modality, Cue], t_ns: int) -> dict[Modality, float]:
        aged = {m: aged_quality(c, t_ns, self.max_age_s[m]) for m, c in cues.items()}
        return {m: q for m, q in aged.items() if q > 0}

    def fuse(self, cues: Mapping[Modality, Cue], t_ns: int) -> Fused | None:
        quality = self.usable(cues, t_ns)
        if sum(quality.get(m, 0.0) for m in EXPERTS) < EVIDENCE:
            return None
        logits = sum(q * np.log(cues[m].probs) for m, q in quality.items() if m != "scene")
        probs = np.exp(logits) / np.exp(logits).sum()
        total = sum(quality.values())
        return Fused(probs.astype(np.float32), {m: q / total for m, q in quality.items()}, quality)


def estimator(rate: float = 1000.0, enabled: frozenset[Modality] = ALL) -> Estimator:
    return Estimator(ProductHead(), enabled=enabled, rate=rate)  # type: ignore[arg-type]


def cue(
    modality: Modality,
    label: str,
    end_ms: float,
    person: int | None = None,
    size: float = 100,
    quality: float = 1,
) -> Cue:
    probs = np.full(len(EKMAN), 0.05, np.float32)
    probs[EKMAN.index(label)] = 0.7
    box = (0.0, 0.0, size, size) if modality == "face" else None
    end = round(end_ms * MS)
    return Cue(
        modality,
        person,
        np.zeros(4, np.float32),
        None if modality == "scene" else probs,
        end,
        end,
        quality,
        box,
    )


def say(
    est: Estimator, modality: Modality, *cues: Cue, end_ms: float, now_ms: float | None = None
) -> list[Decision]:
    end = round(end_ms * MS)
    now = round((end_ms if now_ms is None else now_ms) * MS)
    return est.report(Report(modality, cues, end, end, "file", end_ms / 1e3), now)


def test_nothing_is_guessed_before_anything_was_seen() -> None:
    (decision,) = estimator().tick(5 * MS)
    assert (decision.label, decision.reason, decision.trigger) == (None, "starting", "tick")
    assert decision.modalities["face"].reason == "starting"


def test_an_empty_frame_says_no_person() -> None:
    est = estimator()
    (decision,) = say(est, "face", end_ms=100)
    assert decision.label is None and decision.reason == "no_person" and decision.raw is None
    assert decision.modalities["face"].reason == "no_face"


def test_the_scene_alone_never_suffices() -> None:
    est = estimator()
    say(est, "face", end_ms=100)
    (decision,) = say(est, "scene", cue("scene", "neutral", 110), end_ms=110)
    assert decision.label is None and decision.reason == "no_person"
    assert not decision.modalities["scene"].present and decision.modalities["scene"].reason == "no_person"
    (later,) = est.tick(1900 * MS)
    assert later.modalities["scene"].reason == "stale"


def test_a_stalled_source_becomes_stale() -> None:
    est = estimator()
    say(est, "face", cue("face", "anger", 100, person=1), end_ms=100)
    (decision,) = est.tick(5000 * MS)
    assert decision.label is None and decision.reason == "stale"


def two_faces(end_ms: float, mouths: tuple[float, float]) -> tuple[Cue, Cue]:
    """Persons 1 (smaller) and 2, whose mouths are so far open."""
    faces = []
    for person, opened in enumerate(mouths, start=1):
        shapes = np.zeros(SHAPES, np.float32)
        shapes[NAMES.index("jawOpen")] = opened
        face = cue("face", "neutral", end_ms, person=person, size=40 * person)
        faces.append(dataclasses.replace(face, embedding=np.concatenate([face.embedding, shapes])))
    return faces[0], faces[1]


def talk(est: Estimator, speaker: int, start_ms: float, end_ms: float) -> list[Decision]:
    """Both are seen at 20 frames a second, a voice is heard, and the lips of one move with it; the last decisions."""
    decisions: list[Decision] = []
    for ms in np.arange(start_ms, end_ms, 50.0):
        opened = 0.4 * float(ms % 200 < 100)
        say(est, "face", *two_faces(ms, (opened, 0.0) if speaker == 1 else (0.0, opened)), end_ms=ms)
        if ms % 250 == 0:
            voice = cue("voice", "anger", ms)
            heard = Activity(round((ms - 250) * MS), 25 * MS, np.ones(10, np.float32))
            report = Report("voice", (voice,), voice.start_ns, voice.end_ns, "file", activity=heard)
            decisions = est.report(report, round((ms + 10) * MS))
    return decisions


def test_of_two_the_voice_is_theirs_whose_lips_move_with_it() -> None:
    for speaker in (1, 2):
        est = estimator()
        (decision,) = talk(est, speaker, 0, 2500)
        assert decision.person == speaker and decision.modalities["voice"].present
        decisions = say(est, "face", *two_faces(2500, (0, 0)), end_ms=2500)
        assert {d.person: d.modalities["voice"].reason for d in decisions} == {
            speaker: None,
            3 - speaker: "other_person",
        }


def test_of_two_whose_lips_rest_the_voice_is_nobodys() -> None:
    est = estimator()
    say(est, "face", *two_faces(80, (0, 0)), end_ms=80)
    (decision,) = say(est, "voice", cue("voice", "anger", 90), end_ms=90)
    assert decision.person is None and decision.modalities["voice"].present
    decisions = say(est, "face", *two_faces(120, (0, 0)), end_ms=120)
    assert [d.modalities["voice"].reason for d in decisions] == ["other_person"] * 2


def test_words_stay_with_who_said_them_when_the_other_one_goes_on() -> None:
    est = estimator()
    talk(est, 1, 0, 2500)
    talk(est, 2, 2500, 5000)
    said = dataclasses.replace(cue("text", "fear", 2200), start_ns=500 * MS)
    (decision,) = est.report(Report("text", (said,), said.start_ns, said.end_ns, "file"), 5000 * MS)
    assert decision.person == 1 and decision.modalities["text"].present
    assert decision.modalities["voice"].reason == "other_person"
    assert est.owner(5000 * MS) == 2
    # She leaves: her words are not given to the one who stays.
    alone = two_faces(5600, (0, 0))[1]
    (decision,) = say(est, "face", alone, end_ms=5600)
    assert decision.person == 2 and decision.modalities["text"].reason == "other_person"


def test_one_visible_person_owns_voice_and_words() -> None:
    est = estimator()
    say(est, "face", cue("face", "neutral", 100, person=4), end_ms=100)
    pairs: list[tuple[Modality, float]] = [("voice", 150), ("text", 160)]
    for modality, end_ms in pairs:
        (decision,) = say(est, modality, cue(modality, "anger", end_ms), end_ms=end_ms)
        assert decision.person == 4 and decision.modalities[modality].present


def test_a_voice_without_a_visible_person_belongs_to_nobody() -> None:
    est = estimator()
    say(est, "face", end_ms=80)
    (decision,) = say(est, "voice", cue("voice", "anger", 90), end_ms=90)
    assert decision.person is None and decision.label == "anger" and decision.trigger == "voice"


def test_weights_of_the_present_sum_to_one_and_ages_are_told() -> None:
    est = estimator()
    say(est, "voice", cue("voice", "anger", 50), end_ms=50)
    (decision,) = say(est, "face", cue("face", "anger", 100, person=1), end_ms=100, now_ms=120)
    present = {m: s for m, s in decision.modalities.items() if s.present}
    assert set(present) == {"face", "voice"}
    assert sum(s.weight for s in present.values()) == pytest.approx(1)
    assert present["voice"].age_ms == pytest.approx(70)


def test_a_switched_off_modality_says_so() -> None:
    est = estimator(enabled=frozenset(("face",)))
    (decision,) = say(est, "face", cue("face", "anger", 100, person=1), end_ms=100)
    assert decision.modalities["voice"].reason == "off"


def test_a_cue_that_has_nearly_expired_is_no_basis_for_a_label() -> None:
    est = estimator()
    say(est, "face", cue("face", "anger", 100, person=1), end_ms=100)
    (decision,) = est.tick(580 * MS)
    assert decision.label is None and decision.reason == "stale"


def test_a_face_that_can_hardly_be_seen_is_no_basis_for_a_label() -> None:
    (decision,) = say(estimator(), "face", cue("face", "anger", 100, person=1, quality=0.05), end_ms=100)
    assert decision.label is None and decision.reason == "low_confidence"
    assert decision.modalities["face"].reason == "low_confidence"


def test_a_lost_person_starts_anew() -> None:
    est = estimator()
    for step in range(20):
        say(est, "face", cue("face", "anger", 100 + 50 * step, person=1), end_ms=100 + 50 * step)
    (decision,) = say(est, "face", cue("face", "happiness", 9000, person=1), end_ms=9000)
    assert decision.label == "happiness"


@given(st.lists(st.integers(1, 80), min_size=50, max_size=200))
def test_the_pace_is_kept_and_never_delays(steps_ms: list[int]) -> None:
    pace, now, admitted = Pace(15.0), 0, []
    for step in steps_ms:
        now += step * MS
        if pace.admit(1, now):
            admitted.append(now)
    assert len(admitted) <= (now - admitted[0]) / 1e9 * 15.0 + 2
    assert all(b - a < 160 * MS for a, b in itertools.pairwise(admitted))


def test_thirty_frames_a_second_give_fifteen_estimates() -> None:
    rng, pace = np.random.default_rng(0), Pace(15.0)
    times = [round((k / 30 + rng.uniform(0, 0.006)) * 1e9) for k in range(300)]
    assert 145 <= sum(pace.admit(1, t) for t in times) <= 152


@given(st.floats(0, 3))
def test_quality_fades_without_a_jump(age_s: float) -> None:
    face = cue("face", "anger", 0, person=1)
    here = aged_quality(face, round(age_s * 1e9), 0.5)
    soon = aged_quality(face, round((age_s + 0.001) * 1e9), 0.5)
    assert 0 <= soon <= here <= 1 and here - soon < 0.02
