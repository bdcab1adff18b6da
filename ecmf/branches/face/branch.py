"""The face branch: a frame in, one cue for every person in it out.

ECMF's "local" visual branch (arXiv 2508.05991, section 3.1): find or follow, 478 landmarks, 52 blendshapes, an
aligned crop, and a small expression network over crop and blendshapes.
"""

from __future__ import annotations

from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecmf.branches.face.align import crop, five_points
from ecmf.branches.face.blendshapes import Blendshapes
from ecmf.branches.face.finder import open_finder
from ecmf.branches.face.landmarks import Landmarker, Landmarks
from ecmf.branches.face.quality import quality
from ecmf.branches.face.tracker import Tracker
from ecmf.bundle import SHIPPED, Bundle, load_bundle
from ecmf.cue import Cue
from ecmf.engines.choose import open_engine
from ecmf.errors import BundleError, SourceError, UsageError, need
from ecmf.labels import EKMAN, fold


class FaceBranch:
    """Frames in, face cues out; remembers who is who. One thread uses it at a time."""

    labels = EKMAN
    """Order of a cue's probabilities."""

    def __init__(
        self,
        finder: str = "landmarker",
        max_faces: int = 4,
        threads: int = 1,
        offline: bool = False,
        *,
        backend: str = "auto",
        bundle: Bundle | None = None,
        models: str | None = None,
    ) -> None:
        """``finder``: see finder.FINDERS; ``models``: insightface's model file or folder; ``bundle``: an expression
        network in place of the shipped one.

        Raises UsageError, BundleError, WeightError, EngineError or MissingExtra.
        """
        if max_faces < 1:
            raise UsageError(f"max_faces is {max_faces}; at least one face must be followed")
        self.bundle = bundle or load_bundle(SHIPPED / "face")
        self._size, self._temperature = _contract(self.bundle)
        self.engine = open_engine(
            self.bundle,
            backend=backend,
            threads=threads,
            shapes={"face": (1, 1, self._size, self._size), "blendshapes": (1, 52)},
        )
        self._blendshapes = Blendshapes(threads=threads, offline=offline)
        self.tracker = Tracker(
            open_finder(finder, threads=threads, offline=offline, models=models),
            Landmarker(threads=threads, offline=offline),
            max_faces=max_faces,
        )

    def process(self, frame: NDArray[np.uint8], start_ns: int, end_ns: int) -> list[Cue]:
        """One cue for every person in ``frame`` (uint8[H, W, 3] BGR, or grey uint8[H, W]), largest first.

        ``start_ns``, ``end_ns``: capture interval, not before the previous frame's. A cue's embedding is the
        network's followed by the 52 blendshapes; ``stage_ms`` holds detect, landmarks and face: the finder's and
        the landmark model's times are those of the whole frame. Raises SourceError for an array that is no picture.
        """
        picture = _picture(frame)
        people = self.tracker.follow(picture, end_ns)
        return [self._cue(picture, track.id, track.landmarks, start_ns, end_ns) for track in people]

    @property
    def size(self) -> int:
        """Side of the aligned crop, pixels."""
        return self._size

    def read(
        self, face: NDArray[np.uint8], shapes: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Embedding float32[d + 52] and calibrated probabilities float32[7] of an aligned crop.

        ``face``: uint8[size, size] grey; ``shapes``: float32[52], zeros where the blendshapes are unknown.
        """
        out = self.engine.run({"face": face[None, None].astype(np.float32), "blendshapes": shapes[None]})
        logits = out["logits"][0] / self._temperature
        likelihood = np.exp(logits - logits.max())
        probs = fold(likelihood / likelihood.sum(), self.bundle.manifest.labels)
        return np.concatenate([out["embedding"][0], shapes]).astype(np.float32), probs

    def _cue(
        self,
        picture: NDArray[np.uint8],
        person: int,
        landmarks: Landmarks,
        start_ns: int,
        end_ns: int,
    ) -> Cue:
        began = perf_counter()
        shapes = self._blendshapes.run(landmarks.points)
        shapes_ms = (perf_counter() - began) * 1e3
        face = crop(picture, five_points(landmarks.points), self._size)
        embedding, probs = self.read(face, shapes)
        trust = quality(landmarks, face, picture.shape[:2])
        face_ms = (perf_counter() - began) * 1e3 - shapes_ms
        return Cue(
            modality="face",
            person=person,
            embedding=embedding,
            probs=probs,
            start_ns=start_ns,
            end_ns=end_ns,
            quality=trust,
            bbox=landmarks.box,
            stage_ms={**self.tracker.stage_ms, "blendshapes": shapes_ms, "face": face_ms},
        )


def _contract(bundle: Bundle) -> tuple[int, float]:
    """Crop size and temperature. Raises BundleError for a bundle that is no face network."""
    manifest = bundle.manifest
    ports = {port.name: port for port in (*manifest.inputs, *manifest.outputs)}
    missing = {"face", "blendshapes", "embedding", "logits"} - ports.keys()
    if missing:
        raise BundleError(f"bundle {bundle.folder} is no face network: it lacks {', '.join(sorted(missing))}")
    size = ports["face"].shape[-1]
    if isinstance(size, str):
        size = manifest.preprocessing.get("size", size)
    temperature = manifest.extra.get("temperature")
    if not isinstance(size, int) or not isinstance(temperature, int | float) or not temperature > 0:
        raise BundleError(
            f"bundle {bundle.folder} states crop size {size!r} and temperature {temperature!r}; "
            "both must be positive numbers: export it again"
        )
    if not manifest.labels:
        raise BundleError(f"bundle {bundle.folder} names no labels; export it again")
    return size, float(temperature)


def _picture(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """``uint8[H, W, 3]`` without copying where it is that already."""
    shape = frame.shape
    if (
        frame.dtype != np.uint8
        or 0 in shape
        or not (len(shape) == 2 or (len(shape) == 3 and shape[2] in (1, 3)))
    ):
        raise SourceError(
            f"face: a frame is uint8[H, W, 3] BGR or grey uint8[H, W], this one is {frame.dtype}{list(shape)}"
        )
    if len(shape) == 3 and shape[2] == 3:
        return frame
    cv2: Any = need("cv2", "live")
    return cv2.cvtColor(np.ascontiguousarray(frame.reshape(shape[:2])), cv2.COLOR_GRAY2BGR)
