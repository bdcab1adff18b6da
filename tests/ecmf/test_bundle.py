"""A bundle's id names all that its answers depend on, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ecmf.bundle import SHIPPED, Bundle, load_bundle, write_bundle
from ecmf.errors import BundleError


@pytest.fixture(scope="module")
def voice() -> Bundle:
    return load_bundle(SHIPPED / "voice")


def again(bundle: Bundle, folder: Path, files: Mapping[str, bytes] | None = None, **told: Any) -> Bundle:
    """The bundle with other files or with something else told in its manifest."""
    kept: dict[str, Path | bytes] = {name: bundle.folder / name for name in bundle.manifest.files}
    return write_bundle(folder, replace(bundle.manifest, files={}, **told), kept | dict(files or {}))


def test_a_copy_has_the_same_id_wherever_it_lies(voice: Bundle, tmp_path: Path) -> None:
    assert again(voice, tmp_path / "copy").id == voice.id


@pytest.mark.parametrize("file", ["model.onnx", "average.npy"])
def test_another_file_that_the_answer_depends_on_gives_another_id(
    voice: Bundle, tmp_path: Path, file: str
) -> None:
    changed = (voice.folder / file).read_bytes() + b"\0"
    assert again(voice, tmp_path / "other", {file: changed}).id != voice.id


@pytest.mark.parametrize("file", ["README.md", "golden.json", "recipe.toml", "model.int8.onnx"])
def test_what_no_answer_depends_on_gives_the_same_id(voice: Bundle, tmp_path: Path, file: str) -> None:
    made = again(voice, tmp_path / "other", {file: b"{}"}, metrics={}, licence="")
    assert made.manifest.files != voice.manifest.files
    assert made.id == voice.id


def test_another_temperature_window_or_order_of_labels_gives_another_id(
    voice: Bundle, tmp_path: Path
) -> None:
    manifest = voice.manifest
    told: list[dict[str, Any]] = [
        {"extra": {**manifest.extra, "temperature": 1.0}},
        {"preprocessing": {**manifest.preprocessing, "window_s": 4.0}},
        {"labels": manifest.labels[::-1]},
    ]
    ids = {again(voice, tmp_path / str(number), **each).id for number, each in enumerate(told)}
    assert len(ids | {voice.id}) == 4


def test_an_engine_is_still_that_of_the_same_graph(voice: Bundle, tmp_path: Path) -> None:
    made = again(voice, tmp_path / "other", extra={**voice.manifest.extra, "temperature": 1.0})
    assert made.sha256 == voice.sha256 and made.digest != voice.digest


def test_the_shipped_head_names_the_shipped_branches() -> None:
    named = load_bundle(SHIPPED / "default").manifest.extra["branches"]
    assert named == {name: load_bundle(SHIPPED / name).id for name in ("face", "voice", "text")}


def test_a_damaged_file_is_refused(voice: Bundle, tmp_path: Path) -> None:
    made = again(voice, tmp_path / "damaged")
    (made.folder / "average.npy").write_bytes(b"")
    with pytest.raises(BundleError, match=r"average\.npy .* restore or pull it again"):
        load_bundle(made.folder)


def test_a_file_in_place_of_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "clip.mp4").write_bytes(b"")
    with pytest.raises(BundleError, match=r"clip\.mp4 cannot be read: Not a directory; give the folder"):
        load_bundle(tmp_path / "clip.mp4")
