"""Whatever a recording's stamps do, its pictures and its sound stay together: late tracks, shifts, joined files."""

from __future__ import annotations

from pathlib import Path

import pytest
from clips import write_clap, write_shifted
from played import clicks, flashes, read

from realtime.sources.file import open_media


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100, 48_000, 96_000])
@pytest.mark.parametrize("sound_from_s", [0.0, 0.5])
def test_flash_and_click_stay_together(tmp_path: Path, rate: int, sound_from_s: float) -> None:
    path = write_clap(tmp_path / "clap.mkv", rate=rate, clap_s=1.0, sound_from_s=sound_from_s)
    frames, blocks = read(open_media(path, pace=None))
    assert flashes(frames) == pytest.approx([1.0])
    # The resampler rings a little before the click; container times are rounded to milliseconds.
    assert clicks(blocks) == pytest.approx([1.0], abs=0.003)


def test_a_start_time_in_the_container_does_not_part_them(tmp_path: Path) -> None:
    path = write_clap(tmp_path / "clap.mkv", clap_s=1.0, sound=True)
    shifted = write_shifted(path, tmp_path / "shifted.mkv", 7)
    frames, blocks = read(open_media(shifted, pace=None))
    assert frames[0].start_ns == 0
    assert flashes(frames) == pytest.approx([1.0], abs=0.002)
    assert clicks(blocks) == pytest.approx([1.0], abs=0.003)


@pytest.mark.parametrize("shifts_s", [(0, 100, 0), (100, 0), (0, 0, 0, 0, 0, 0)])
def test_stamps_that_jump_where_files_were_joined_do_not_part_them(
    tmp_path: Path, shifts_s: tuple[float, ...]
) -> None:
    clip = write_clap(tmp_path / "clap.ts", clap_s=1.0, codec="mp2")
    parts = [write_shifted(clip, tmp_path / f"{n}.ts", by_s).read_bytes() for n, by_s in enumerate(shifts_s)]
    joined = tmp_path / "joined.ts"
    joined.write_bytes(b"".join(parts))
    frames, blocks = read(open_media(joined, pace=None))
    assert flashes(frames) == pytest.approx([1 + 2 * n for n in range(len(shifts_s))], abs=0.4)
    assert clicks(blocks) == pytest.approx(flashes(frames), abs=0.12)
    looped = read(open_media(joined, pace=None, loop=True), seconds=4 * len(shifts_s))
    assert len(flashes(looped[0])) == len(clicks(looped[1])) == 2 * len(shifts_s)


@pytest.mark.parametrize("away_s", [0.5, 70.0])
def test_a_track_that_was_away_for_long_comes_back_in_its_place(tmp_path: Path, away_s: float) -> None:
    path = write_clap(tmp_path / "clap.mkv", seconds=75, clap_s=72.0, fps=5, sound_from_s=away_s, rate=8_000)
    frames, blocks = read(open_media(path, pace=None))
    assert flashes(frames) == pytest.approx([72.0], abs=0.002)
    assert clicks(blocks) == pytest.approx([72.0], abs=0.003)
