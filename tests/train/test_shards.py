"""Extraction in shards: what each holds, what a merge refuses, and that the result is that of one go."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from ecmf.errors import DataError, UsageError
from train import clip_samples, clip_store, features, shards
from train.datasets import folder
from train.shards import Shard

LINES = ("I love this.", "I am sad.", "What a day!", "He died.", "Well done!", "Leave me alone.", "Good.")


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    data = tmp_path / "clips"
    data.mkdir()
    rows = ["path,label,split"]
    for number, line in enumerate(LINES):
        (data / f"c{number}.txt").write_text(line)
        rows.append(f"c{number}.txt,{'good' if number % 2 == 0 else 'bad'},train")
    (data / folder.TABLE).write_text("\n".join(rows) + "\n")
    return data


def run(data: Path, cache: Path, *more: str) -> int:
    return features.main(["--data", str(data), "--cache", str(cache), *more])


def test_shards_of_two_machines_merge_to_what_one_extracts(
    texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shared, other = tmp_path / "shared", tmp_path / "other"
    assert run(texts, shared, "--shard", "1/2") == 0
    assert run(texts, other, "--shard", "2/2") == 0
    assert run(texts, shared, "--merge") == 2
    assert "shard 2/2 missing" in capsys.readouterr().err
    assert run(texts, shared, "--status") == 0
    assert "1 of 2 shards" in capsys.readouterr().out

    listed = folder.read(texts)
    manifest = shards.folder_of(listed, other) / "2-of-2.json"
    (shards.folder_of(listed, shared) / manifest.name).write_bytes(manifest.read_bytes())
    assert run(texts, shared, "--merge") == 2
    assert re.search(r"row 3 \(c1\.txt\): its cues, .*are not in", capsys.readouterr().err)
    for file in (other / "clips").glob("*.npz"):
        (shared / "clips" / file.name).write_bytes(file.read_bytes())
    assert run(texts, shared, "--merge") == 0
    assert "7 clips, 7 moments" in capsys.readouterr().out

    merged = clip_samples.assemble(listed, clip_store.extract(listed, shared), cache=shared)
    alone = clip_samples.assemble(listed, clip_store.extract(listed, tmp_path / "alone"))
    np.testing.assert_array_equal(merged.batch.cues["text"], alone.batch.cues["text"])
    assert isinstance(merged.batch.cues["text"], np.memmap)


def test_a_clip_in_two_shards_or_in_none_is_named(texts: Path, tmp_path: Path) -> None:
    listed = folder.read(texts)
    for number in (1, 2):
        shards.extract(listed, tmp_path, Shard(number, 2))
    path = shards.folder_of(listed, tmp_path) / "2-of-2.json"
    record = json.loads(path.read_text())
    whole = list(record["clips"])
    first = json.loads((path.parent / "1-of-2.json").read_text())["clips"][0]
    path.write_text(json.dumps({**record, "clips": [*whole, first]}))
    with pytest.raises(DataError, match=r"row 2 \(c0\.txt\) is in two shards, 1/2 and 2/2"):
        shards.merge(listed, tmp_path)
    path.write_text(json.dumps({**record, "clips": whole[1:]}))
    with pytest.raises(DataError, match=r"row 3 \(c1\.txt\) is in no shard"):
        shards.merge(listed, tmp_path)
    path.write_text(json.dumps({**record, "branches": ["1", "others"]}))
    with pytest.raises(DataError, match="made by other branches"):
        shards.merge(listed, tmp_path)
    path.write_text(json.dumps({**record, "shard": 1}))
    with pytest.raises(DataError, match="says it is shard 1/2"):
        shards.merge(listed, tmp_path)
    path.write_text("{")
    with pytest.raises(DataError, match="is no shard's manifest"):
        shards.merge(listed, tmp_path)


def test_divisions_are_not_mixed(texts: Path, tmp_path: Path) -> None:
    listed = folder.read(texts)
    shards.extract(listed, tmp_path, Shard(1, 3))
    shards.extract(listed, tmp_path, Shard(2, 2))
    with pytest.raises(DataError, match="shards 2/2 and 1/3 are of different divisions"):
        shards.merge(listed, tmp_path)


@pytest.mark.parametrize("text", ["0/2", "3/2", "2", "a/b", "1/0"])
def test_odd_shards_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="expected i/n"):
        Shard.parse(text)


def test_every_clip_is_in_one_shard(texts: Path) -> None:
    listed = folder.read(texts)
    for count in (1, 2, 3, 7, 9):
        numbers = [n for i in range(count) for n in Shard(i + 1, count).clips(listed)]
        assert sorted(numbers) == list(range(len(LINES)))


def test_unchanged_clips_are_not_read_again(
    texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = folder.read(texts)
    files = clip_store.extract(listed, tmp_path).files

    def fails(*arguments: object, **more: object) -> None:
        raise AssertionError("hashed again")

    monkeypatch.setattr("hashlib.file_digest", fails)
    assert clip_store.extract(listed, tmp_path).files == files


@pytest.mark.parametrize("left", [7, 400])
def test_a_damaged_cache_file_is_named(texts: Path, tmp_path: Path, left: int) -> None:
    clips = clip_store.extract(folder.read(texts), tmp_path)
    clips.files[2].write_bytes(clips.files[2].read_bytes()[:left])
    with pytest.raises(DataError, match=f"{clips.files[2].name} holds no cues"):
        clips[2]
