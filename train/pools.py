"""Corpora to pools of cues, by the live branches' own code, cached on disk: what the fusion head is trained on.

Only people that no branch was trained on: FER+ valid and test, muxspace's valid and test people, the voice bundle's
held-out speakers, MELD dev and test.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ecmf.branches.face import FaceBranch
from ecmf.branches.scene import SceneBranch
from ecmf.branches.text import TextBranch
from ecmf.branches.voice import WINDOW_S, VoiceBranch
from ecmf.bundle import SHIPPED, Bundle, load_bundle
from ecmf.cue import Cue
from ecmf.errors import DataError
from ecmf.labels import EKMAN, FERPLUS, to_ekman
from ecmf.speech import SpeechEncoder
from ecmf.vad import BLOCK, SAMPLE_RATE, SpeechDetector
from train import corpora, face_crops
from train.atomic import locked, whole
from train.datasets import ferplus, meld, muxspace
from train.datasets.emodb import read_emodb
from train.datasets.ravdess import read_ravdess
from train.pairing import Pool
from train.progress import tracked

VERSION = 1
"""Raise it when presenting a corpus changes, so that old features are not mistaken for new ones."""
HISTORY_LINES = 4
MOMENTS = (0.55, 0.7, 0.85, 1.0)
"""Shares of a clip after which its voice is read."""
STILL_QUALITY = 0.9
"""Of a corpus picture's face; what pictures lack, pairing lowers at random."""


@dataclass(frozen=True)
class Split:
    """Pools for training the head, and for measuring it on other people."""

    fit: Pool
    test: Pool


def pool_of(cues: Sequence[Cue], labels: Sequence[int], groups: Sequence[str]) -> Pool:
    """Stack cues of one branch. Raises DataError for an embedding that is not finite."""
    embedding = np.stack([cue.embedding for cue in cues]).astype(np.float32)
    if not np.isfinite(embedding).all():
        row = int(np.flatnonzero(~np.isfinite(embedding).all(axis=1))[0])
        raise DataError(f"{cues[row].modality} features: row {row} ({groups[row]}) is not finite")
    opinions = [cue.probs for cue in cues if cue.probs is not None]
    return Pool(
        embedding,
        np.stack(opinions).astype(np.float32) if opinions else None,
        np.array([cue.quality for cue in cues], np.float32),
        np.array(labels, np.int64),
        np.array(groups),
    )


def cached(cache: Path, name: str, identity: Iterable[str], make: Callable[[], Pool]) -> Pool:
    """``make()``, kept under ``name`` and a hash of everything it depends on; of several processes one makes it."""
    key = hashlib.sha256(repr((VERSION, *identity)).encode()).hexdigest()[:16]
    path = cache / f"{name}-{key}.npz"
    with locked(cache / "making" / name):
        if not path.is_file():
            _store(make(), path)
    with np.load(path) as stored:
        probs = stored.get("probs")
        return Pool(stored["embedding"], probs, stored["quality"], stored["labels"], stored["group"])


def _store(pool: Pool, path: Path) -> None:
    arrays = {
        "embedding": pool.embedding,
        "quality": pool.quality,
        "labels": pool.labels,
        "group": pool.group,
    }
    if pool.probs is not None:
        arrays["probs"] = pool.probs
    with whole(path) as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Extraction:
    """Where corpora lie and where features are kept."""

    data: Path
    """Folder with face/, speech/ and text/: parquet files, or the corpora as their owners ship them."""
    cache: Path
    offline: bool = False

    def faces(self) -> Split:
        """FER+ valid to fit, its test to measure; no ties, no pixels of an earlier split."""
        branch = FaceBranch(offline=self.offline)
        source = corpora.find(self.data, "face", corpora.FERPLUS)
        corpus = ferplus.read(source)
        crops = self._crops(source, list(corpus.pictures), branch.size, face_crops.FER_VIEW)

        def make(split: str) -> Pool:
            rows = corpus.rows(split)
            cues = [self._face(branch, crops, row) for row in tracked(rows.tolist(), f"faces, FER+ {split}")]
            labels = [_label(FERPLUS[corpus.majority[row]]) for row in rows]
            return pool_of(cues, labels, [corpus.name[row] for row in rows])

        return self._split("face", branch.bundle, make, "valid", "test", _content(source))

    def frames(self) -> tuple[Split, Split]:
        """muxspace: the faces of its valid and test people and, in the same rows, the frames they are in."""
        branch = FaceBranch(offline=self.offline)
        scenes = SceneBranch(offline=self.offline)
        source = corpora.find(self.data, "face", corpora.MUXSPACE)
        corpus = muxspace.read(source)
        pictures = [corpus.picture(row) for row in range(len(corpus.name))]
        crops = self._crops(source, pictures, branch.size, face_crops.PHOTO_VIEW)
        labels = [_label(FERPLUS[label]) for label in corpus.label]
        # both pools have the rows in which a face was found, so both depend on them
        found = hashlib.sha256(np.packbits(crops.aligned).tobytes()).hexdigest() + _content(source)

        def rows(split: str) -> NDArray[np.int64]:
            return np.flatnonzero((corpus.split == split) & crops.aligned)

        def make_face(split: str) -> Pool:
            chosen = rows(split)
            cues = [
                self._face(branch, crops, row) for row in tracked(chosen.tolist(), f"faces, muxspace {split}")
            ]
            return pool_of(cues, [labels[row] for row in chosen], [corpus.person[row] for row in chosen])

        def make_scene(split: str) -> Pool:
            chosen = rows(split)
            cues = [
                scenes.process(np.repeat(pictures[row][..., None], 3, axis=2), 0, 0)
                for row in tracked(chosen.tolist(), f"scenes, muxspace {split}")
            ]
            return pool_of(cues, [labels[row] for row in chosen], [corpus.person[row] for row in chosen])

        return (
            self._split("muxspace-face", branch.bundle, make_face, "valid", "test", found),
            self._split("scene", scenes.bundle, make_scene, "valid", "test", found),
        )

    def voices(self) -> Split:
        """The voice bundle's held-out speakers: of each corpus and sex, half to fit and the others to measure.

        Each clip is heard as it is live: at several moments while it is spoken, the last seconds at a time.
        """
        bundle = load_bundle(SHIPPED / "voice")
        held_out = set(bundle.manifest.extra["held_out_speakers"])
        ravdess, emodb = (
            corpora.find(self.data, "speech", names) for names in (corpora.RAVDESS, corpora.EMODB)
        )
        clips = [clip for clip in (*read_ravdess(ravdess), *read_emodb(emodb)) if clip.speaker in held_out]

        def make() -> Pool:
            encoder = SpeechEncoder(str(bundle.manifest.extra["encoder"]["name"]), offline=self.offline)
            branch, detector = VoiceBranch(bundle, encoder=encoder), SpeechDetector(offline=self.offline)
            cues, labels, groups = [], [], []
            for clip in tracked(clips, "voices"):
                for cue in _overheard(clip.audio(), encoder, branch, detector):
                    cues.append(cue)
                    labels.append(_label(clip.label))
                    groups.append(clip.speaker)
            return pool_of(cues, labels, groups)

        identity = (bundle.digest, _content(ravdess), _content(emodb))
        pool = cached(self.cache, "voice-held-out", identity, make)
        fitted = np.isin(pool.group, sorted(to_fit({clip.speaker: clip.sex for clip in clips})))
        return Split(pool.take(fitted), pool.take(~fitted))

    def texts(self) -> Split:
        """MELD dev to fit, its test to measure; context is the speaker's own lines, as a microphone hears it."""
        branch = TextBranch()
        source = corpora.find(self.data, "text", corpora.MELD)
        lines = meld.read_meld(source)

        def make(split: str) -> Pool:
            chosen = [(line, earlier) for line, earlier in meld.with_history(lines) if line.split == split]
            cues = []
            for line, earlier in tracked(chosen, f"texts, MELD {split}"):
                own = [e.text for e in earlier if e.speaker == line.speaker][-HISTORY_LINES:]
                cues.append(branch.process(line.text, own))
            kept = [row for row, cue in enumerate(cues) if cue.quality > 0]
            return pool_of(
                [cues[row] for row in kept],
                [_label(chosen[row][0].label) for row in kept],
                [f"{split}-{chosen[row][0].dialogue}" for row in kept],
            )

        return self._split("text", branch.bundle, make, "dev", "test", _content(source))

    def _split(
        self, name: str, bundle: Bundle, make: Callable[[str], Pool], fit: str, test: str, *more: str
    ) -> Split:
        pools = [
            cached(self.cache, f"{name}-{s}", (bundle.digest, s, *more), partial(make, s))
            for s in (fit, test)
        ]
        return Split(*pools)

    def _crops(
        self, source: Path, pictures: Sequence[NDArray[np.uint8]], size: int, view: face_crops.View
    ) -> face_crops.Crops:
        def make() -> face_crops.Crops:
            cropper = face_crops.Cropper(offline=self.offline)
            shown = tracked(pictures, f"crops, {source.stem}")
            return face_crops.extract(shown, len(pictures), size, view, cropper)

        return face_crops.cached(self.cache, source, size, view, make)

    @staticmethod
    def _face(branch: FaceBranch, crops: face_crops.Crops, row: int) -> Cue:
        embedding, probs = branch.read(crops.face[row], crops.blendshapes[row])
        return Cue("face", None, embedding, probs, 0, 0, STILL_QUALITY)


def to_fit(sexes: Mapping[str, str]) -> set[str]:
    """Every other speaker, by corpus, sex and name, of those in ``sexes`` (speaker -> sex): so that both sides hear
    women and men."""
    order = sorted(sexes, key=lambda speaker: (speaker.partition("-")[0], sexes[speaker], speaker))
    return set(order[::2])


def _overheard(
    audio: NDArray[np.float32], encoder: SpeechEncoder, branch: VoiceBranch, detector: SpeechDetector
) -> Iterator[Cue]:
    """Cues at MOMENTS of a clip, from what was heard until then; none where nobody spoke yet."""
    detector.reset()
    speech = detector.process(audio)
    for moment in MOMENTS:
        end = round(moment * len(speech)) * BLOCK
        begin = max(0, end - round(WINDOW_S * SAMPLE_RATE) // BLOCK * BLOCK)
        window = audio[begin:end]
        if not len(window):
            continue
        states = encoder.encode(window)
        cue = branch.process(window, states, speech[begin // BLOCK : end // BLOCK], 0, 0)
        if cue is not None and cue.quality > 0:
            yield cue


def _content(source: Path) -> str:
    """Stands for what a corpus holds, as in ``face_crops.cached``."""
    return f"{source.name} {corpora.size(source)}"


def _label(name: str) -> int:
    return EKMAN.index(to_ekman(name))
