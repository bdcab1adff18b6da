"""RAVDESS speech (Livingstone & Russo 2018): 24 actors, two sentences, eight emotions, two intensities.

Read from the owner's folder (`Actor_01/03-01-05-02-01-01-01.wav` …, zip unpacked) or from one parquet file with the
columns name, label, speaker, sex, intensity, flac.
"""

from __future__ import annotations

from pathlib import Path

from ecmf.errors import DataError
from ecmf.labels import to_ekman
from train.datasets.speech_clip import Clip, parquet_rows

EMOTIONS = ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised")
"""In the order of the file name's third field, 01 to 08."""

_AUDIO_ONLY, _SPEECH = "03", "01"


def read_ravdess(path: Path) -> list[Clip]:
    """All speech clips, calm as neutral, ordered by speaker and name. Raises DataError naming a bad entry."""
    if path.is_dir():
        clips = [_from_name(file.stem, file) for file in sorted(path.rglob("03-01-*.wav"))]
    elif path.is_file():
        clips = [_from_name(str(row["name"]), row["flac"]) for row in parquet_rows(path, ("name", "flac"))]
    else:
        clips = []
    if not clips:
        raise DataError(
            f"no RAVDESS speech in {path}: give the folder with Actor_01, Actor_02 … or a parquet file"
        )
    return sorted(clips, key=lambda clip: (clip.speaker, clip.name))


def _from_name(name: str, sound: bytes | Path) -> Clip:
    """Everything is in the name: modality-channel-emotion-intensity-statement-repetition-actor."""
    fields = name.split("-")
    try:
        modality, channel, emotion, intensity, _, _, actor = fields
        if (modality, channel) != (_AUDIO_ONLY, _SPEECH):
            raise ValueError
        return Clip(
            name=name,
            label=to_ekman(EMOTIONS[int(emotion) - 1] if int(emotion) > 0 else "", where=name),
            speaker=f"ravdess-{int(actor):02d}",
            sex="F" if int(actor) % 2 == 0 else "M",
            intensity={"01": "normal", "02": "strong"}[intensity],
            sound=sound,
        )
    except (ValueError, IndexError, KeyError):
        raise DataError(
            f"{name} is not the name of a RAVDESS speech clip such as 03-01-05-02-01-01-12"
        ) from None
