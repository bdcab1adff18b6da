"""Spoken prompts of telephone exchanges: ordinary, unemotional speech by professional voices, in several languages.

Read from Asterisk's sound folders as Debian's `asterisk-core-sounds-*` and `asterisk-prompt-*` packages lay them out:
`sounds/<language>_<COUNTRY>_<f|m>_<Speaker>/<prompt>.g722` (or .wav, .gsm).
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from ecmf.errors import DataError
from train.datasets.speech_clip import Clip

_FOLDER = re.compile(r"(?P<language>[a-z]{2}_[A-Z]{2})_(?P<sex>[fm])_(?P<speaker>\w+)")
_SUFFIXES = (".g722", ".wav", ".gsm")
_SMALLEST = 14_000
"""Bytes; smaller files hold a word or a beep."""


def read_prompts(path: Path, per_folder: int = 50, seed: int = 0) -> list[Clip]:
    """At most ``per_folder`` prompts of each voice folder, all neutral. Raises DataError when there is none."""
    rng = np.random.default_rng(seed)
    clips = []
    for folder in sorted(p for p in path.rglob("*") if p.is_dir() and _FOLDER.fullmatch(p.name)):
        match = _FOLDER.fullmatch(folder.name)
        assert match is not None
        files = sorted(f for f in folder.glob("*") if f.suffix in _SUFFIXES and f.stat().st_size >= _SMALLEST)
        chosen = sorted(rng.permutation(len(files))[:per_folder].tolist())
        for file in (files[index] for index in chosen):
            name = f"{match['language']}-{file.stem}"
            speaker = f"prompts-{match['speaker']}"
            clips.append(Clip(name, "neutral", speaker, match["sex"].upper(), "", file))
    if not clips:
        raise DataError(f"no prompts in {path}: give the folder that holds en_US_f_Allison, fr_CA_f_June …")
    return clips
