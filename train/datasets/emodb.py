"""EMO-DB (Burkhardt et al. 2005): ten German actors, ten sentences, seven emotions.

Read from the owner's folder (`wav/03a01Wa.wav` …) or from one parquet file with the columns name, flac.
"""

from __future__ import annotations

import re
from pathlib import Path

from ecmf.errors import DataError
from ecmf.labels import to_ekman
from train.datasets.speech_clip import Clip, parquet_rows

EMOTIONS = {"W": "anger", "E": "disgust", "A": "fear", "F": "happiness", "T": "sadness", "N": "neutral"}
"""The sixth letter of a name (German initials) and its label; L, boredom, has no place in the label set."""

_BOREDOM = "L"
_MEN = {"03", "10", "11", "12", "15"}
_NAME = re.compile(r"(?P<speaker>\d\d)(?P<text>[ab]\d\d)(?P<emotion>[WEAFTNL])(?P<take>[a-z]?)")


def read_emodb(path: Path) -> list[Clip]:
    """All clips but the bored ones, ordered by speaker and name. Raises DataError naming a bad entry."""
    if path.is_dir():
        found = [_from_name(file.stem, file) for file in sorted(path.rglob("*.wav"))]
    elif path.is_file():
        found = [_from_name(str(row["name"]), row["flac"]) for row in parquet_rows(path, ("name", "flac"))]
    else:
        found = []
    clips = [clip for clip in found if clip is not None]
    if not clips:
        raise DataError(f"no EMO-DB in {path}: give the folder with wav/03a01Fa.wav … or a parquet file")
    return sorted(clips, key=lambda clip: (clip.speaker, clip.name))


def is_name(stem: str) -> bool:
    """Whether a file may be of EMO-DB by its name."""
    return _NAME.fullmatch(stem) is not None


def _from_name(name: str, sound: bytes | Path) -> Clip | None:
    match = _NAME.fullmatch(name)
    if match is None:
        raise DataError(f"{name} is not the name of an EMO-DB clip such as 03a01Fa")
    if match["emotion"] == _BOREDOM:
        return None
    speaker = match["speaker"]
    label = to_ekman(EMOTIONS[match["emotion"]], where=name)
    return Clip(name, label, f"emodb-{speaker}", "M" if speaker in _MEN else "F", "", sound)
