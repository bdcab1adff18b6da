"""A labelled recording of one speaker, whichever corpus it comes from."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecmf.errors import DataError, need


@dataclass(frozen=True)
class Clip:
    name: str
    label: str
    """One of ecmf.labels.EKMAN."""
    speaker: str
    """Corpus and speaker, so that corpora can be mixed: ravdess-07."""
    sex: str
    """F or M."""
    intensity: str
    """normal or strong; empty where the corpus does not say."""
    sound: bytes | Path
    """An encoded file (FLAC, WAV): its bytes, or where it lies."""

    def audio(self) -> NDArray[np.float32]:
        """Decoded to 16 kHz mono, float32[n] in [-1, 1]. Raises DataError when it is not sound."""
        av = need("av", "live")
        source = io.BytesIO(self.sound) if isinstance(self.sound, bytes) else str(self.sound)
        resampler = av.AudioResampler(format="flt", layout="mono", rate=16000)
        try:
            with av.open(source) as container:
                frames = [f for frame in container.decode(audio=0) for f in resampler.resample(frame)]
            frames += resampler.resample(None)
        except (av.FFmpegError, OSError, IndexError) as error:
            raise DataError(f"clip {self.name} of {self.speaker} cannot be decoded: {error}") from None
        pieces = [frame.to_ndarray().reshape(-1) for frame in frames]
        audio = np.concatenate(pieces) if pieces else np.zeros(0, np.float32)
        if len(audio) < 1600:
            raise DataError(f"clip {self.name} of {self.speaker} holds {len(audio)} samples, less than 0.1 s")
        return audio


def parquet_rows(path: Path, columns: tuple[str, ...]) -> list[dict[str, Any]]:
    """Those columns of a parquet file, row by row. Raises DataError when it cannot be read or lacks one."""
    parquet = need("pyarrow.parquet", "train")
    arrow = need("pyarrow", "train")
    try:
        table = parquet.read_table(path)
    except (arrow.ArrowException, OSError) as error:
        raise DataError(f"{path} cannot be read as parquet: {error}") from None
    missing = set(columns) - set(table.schema.names)
    if missing:
        raise DataError(f"{path} lacks the column {sorted(missing)[0]!r}; it has {table.schema.names}")
    rows: list[dict[str, Any]] = table.select(list(columns)).to_pylist()
    return rows
