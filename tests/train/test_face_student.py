"""The shipped face network's teaching: what the members say of augmented faces, and the student's resume."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ecmf.branches.face import align
from ecmf.errors import UsageError
from train import face_student, face_training
from train.face_augment import MIRRORED, Augmentation, move
from train.face_crops import Cropper, Crops
from train.face_examples import Examples, Plan, Recipe, Student, recipe_from
from train.face_members import Members
from train.face_residual import ResidualNet
from train.progress import Advance

RESIDUAL = Plan("residual", inner=32, channels=(8, 8, 16), blocks=(1, 1), epochs=1, cosine_epochs=1)
STUDENT = Student(
    **{**vars(RESIDUAL), "epochs": 4, "cosine_epochs": 4, "settle_from": 4, "calm_from": 2},
    start="one",
    views=2,
    calm_views=1,
)
RECIPE = Recipe({"one": RESIDUAL}, STUDENT, batch=8)


@pytest.fixture(scope="module")
def faces(weight: Callable[[str], Path]) -> Examples:
    """Twenty real faces, each cut out of a frame of the smiling video, with votes for smiling or not."""
    capture, cropper = cv2.VideoCapture(str(weight("demo-smile"))), Cropper()
    face: list[np.ndarray] = []
    shapes: list[np.ndarray] = []
    while len(face) < 20:
        good, frame = capture.read()
        assert good
        picture = np.asarray(frame, np.uint8)
        found = cropper.landmarks(picture, 0.9)
        face.append(align.crop(picture, align.five_points(found.points), 56))
        shapes.append(cropper.shapes(found))
    capture.release()
    crops = Crops(np.stack(face), np.stack(shapes).astype(np.float32), np.ones(20, np.float32))
    label = np.arange(20) // 10
    return Examples(crops, np.eye(8, dtype=np.float32)[label], np.ones(20, np.float32), label)


def _members(*seeds: int) -> Members:
    nets = []
    for seed in seeds:
        torch.manual_seed(seed)
        nets.append(ResidualNet(32, (8, 8, 16), (1, 1), 0.3))
    return Members(nets, [1.0] * len(nets)).eval()


def test_a_view_holds_what_the_members_say_of_its_very_pictures(faces: Examples) -> None:
    members = _members(0, 1)
    answer = face_student.teacher(members, 56)
    seen = face_student.view(faces, answer, RECIPE, STUDENT, 0)
    with torch.no_grad():
        _, logits = members(
            torch.from_numpy(seen.face[:, None].astype(np.float32)), torch.from_numpy(seen.blendshapes)
        )
    # bfloat16, where the processor has it, keeps three digits
    np.testing.assert_allclose(seen.logits, logits.numpy(), atol=0.03 * float(logits.abs().max()))
    again = face_student.view(faces, answer, RECIPE, STUDENT, 0)
    np.testing.assert_array_equal(seen.face, again.face)
    other = face_student.view(faces, answer, RECIPE, STUDENT, 1)
    assert (seen.face != other.face).mean() > 0.5


@given(
    odds=st.lists(st.floats(-20, 20), min_size=8, max_size=8),
    share=st.floats(0, 1),
    label=st.integers(0, 7),
)
@settings(max_examples=40, deadline=None)
def test_targets_are_probabilities_freed_of_the_label_weights(
    odds: list[float], share: float, label: int
) -> None:
    balance = np.geomspace(0.5, 4, 8).astype(np.float32)
    votes = np.eye(8, dtype=np.float32)[[label]]
    honest = np.array([odds], np.float32)
    out = face_student.targets(honest + np.log(balance), votes, balance, share)
    expected = np.exp(honest - honest.max()) / np.exp(honest - honest.max()).sum()
    np.testing.assert_allclose(out, share * expected + (1 - share) * votes, atol=1e-5)
    np.testing.assert_allclose(out.sum(axis=1), 1, atol=1e-5)


def test_copies_take_turns_and_the_calm_ones_come_last() -> None:
    student = replace(STUDENT, views=3, calm_views=2, calm_from=5)
    assert [face_student.index_at(student, epoch) for epoch in range(9)] == [0, 1, 2, 0, 1, 3, 4, 3, 4]
    student = replace(student, calm_views=0)
    assert {face_student.index_at(student, epoch) for epoch in range(9)} == {0, 1, 2}


def test_moving_without_strength_only_mirrors(faces: Examples) -> None:
    part = faces.crops
    rng = np.random.default_rng(0)
    how = Augmentation(rotation_deg=0, scale=0, shift=0)
    face, shapes = move(part.face, part.blendshapes, 56, how, rng)
    turned = 0
    for row in range(len(part)):
        mirrored = not np.allclose(face[row, 0].numpy(), part.face[row], atol=0.1)
        turned += mirrored
        source = part.face[row, :, ::-1] if mirrored else part.face[row]
        np.testing.assert_allclose(face[row, 0].numpy(), source, atol=0.1)
        expected = part.blendshapes[row, MIRRORED] if mirrored else part.blendshapes[row]
        np.testing.assert_array_equal(shapes[row], expected)
    assert 0 < turned < len(part)


def test_teaching_goes_on_after_a_kill_and_starts_anew_for_other_teachers(
    faces: Examples, tmp_path: Path
) -> None:
    members = _members(2, 3)
    start = members.nets[0]
    assert isinstance(start, ResidualNet)
    examples = {"train": faces, "mux_train": faces, "valid": faces}
    lines: list[str] = []

    def teach(folder: str, stop_after: int | None = None, of: Members = members) -> face_training.Member:
        return face_student.teach(
            RECIPE, of, examples, start, tmp_path / folder, lines.append, stop_after=stop_after
        )

    whole = teach("whole")
    teach("parts", stop_after=1)
    views = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "parts").glob("*/view-*.npz")}
    assert len(views) == 1
    parts = teach("parts")
    assert lines[:4] == lines[4:]
    kept = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "parts").glob("*/view-*.npz")}
    assert len(kept) == 3
    assert views.items() <= kept.items(), "a copy was judged twice"
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(parts.state_dict()[name], value, rtol=0, atol=0, msg=name)
    other = teach("whole", of=_members(4, 5), stop_after=1)
    assert len(list((tmp_path / "whole").glob("*/checkpoint.pt"))) == 2
    assert not torch.equal(other.classify.weight, whole.classify.weight)


def test_one_progress_is_shown_at_a_time(
    faces: Examples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_now: list[str] = []
    seen: list[str] = []

    @contextmanager
    def shown(what: str, total: int, done: int = 0) -> Iterator[Advance]:
        assert not open_now, f"{what} inside {open_now[0]}"
        open_now.append(what)
        seen.append(what)
        yield lambda done, note: None
        open_now.clear()

    for module in (face_student, face_training):
        monkeypatch.setattr(module, "shown", shown)
    members = _members(2)
    start = members.nets[0]
    assert isinstance(start, ResidualNet)
    examples = {"train": faces, "mux_train": faces, "valid": faces}
    face_student.teach(RECIPE, members, examples, start, tmp_path, lambda line: None, stop_after=1)
    assert seen == ["members' answers 1/3", "epoch 1/4"]


def test_other_pictures_are_not_gone_on_with(faces: Examples, tmp_path: Path) -> None:
    members = _members(2)
    start = members.nets[0]
    assert isinstance(start, ResidualNet)
    examples = {"train": faces, "mux_train": faces, "valid": faces}
    others = examples | {"train": replace(faces, weight=faces.weight * 2)}
    for given_now in (examples, others):
        face_student.teach(RECIPE, members, given_now, start, tmp_path, lambda line: None, stop_after=1)
    assert len(list(tmp_path.glob("*/view-0.npz"))) == 2
    with pytest.raises(UsageError, match="another recipe or other data"):
        face_training.train(RECIPE, RESIDUAL, examples, tmp_path / "member", lambda line: None, stop_after=1)
        face_training.train(RECIPE, RESIDUAL, others, tmp_path / "member", lambda line: None)


def test_a_student_is_built_as_its_first_weights() -> None:
    member = {"kind": "residual", "inner": 48, "channels": [8, 16], "blocks": [1], "small_until": 3}
    recipe = recipe_from({"members": {"one": member}, "student": {"start": "one", "epochs": 5}})
    assert recipe.student is not None
    assert (recipe.student.inner, recipe.student.channels, recipe.student.epochs) == (48, (8, 16), 5)
    with pytest.raises(UsageError, match=r"student\.start is 'two'"):
        recipe_from({"members": {"one": member}, "student": {"start": "two"}})
    with pytest.raises(UsageError, match="whose kind is residual"):
        recipe_from({"members": {"one": {"kind": "tuned"}}, "student": {"start": "one"}})
    for key, value in (("kind", "residual"), ("channels", [8, 32]), ("blocks", [2])):
        with pytest.raises(UsageError, match=f"student.{key} = .* leave it out"):
            recipe_from({"members": {"one": member}, "student": {"start": "one", key: value}})
    with pytest.raises(UsageError, match="tacher"):
        recipe_from({"members": {"one": member}, "student": {"start": "one", "tacher": 1}})
    with pytest.raises(UsageError, match=r"members\.student"):
        recipe_from({"members": {"student": member}})
