"""SCRFD through insightface, with models that the user has.

insightface's code is MIT; the models it offers are for non-commercial research only, so none is fetched here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecmf.branches.face.finder import Bordered, Found, largest_first
from ecmf.errors import WeightError, need

ROOT = "~/.insightface/models"
"""Where insightface keeps its models, one folder for each package."""
INPUT = 640
"""Side of the square that a model with a free input size sees."""
SCORE = 0.5


def find_model(models: str | None) -> Path:
    """The SCRFD file: ``models`` itself, or ``det_*.onnx`` or ``scrfd*.onnx`` below that folder (default ROOT).

    Raises WeightError when there is none.
    """
    place = Path(models or ROOT).expanduser()
    if place.is_file():
        return place
    if place.is_dir():
        # The largest first: det_10g before det_500m.
        files = {*place.rglob("det_*.onnx"), *place.rglob("scrfd*.onnx")}
        for file in sorted(files, key=lambda f: (-f.stat().st_size, str(f))):
            return file
    raise WeightError(
        f"no insightface detection model at {place}; put det_*.onnx or scrfd*.onnx there (packages such as buffalo_l: "
        "github.com/deepinsight/insightface, for non-commercial research only), or choose another face finder"
    )


class InsightFaceFinder:
    name = "insightface"
    pause_ns = 200_000_000

    def __init__(self, models: str | None = None, *, threads: int = 1) -> None:
        """``models``: a model file or a folder of them; None looks in ROOT.

        Raises WeightError when there is no model or it is not SCRFD, MissingExtra without insightface.
        """
        path = find_model(models)
        scrfd: Any = need("insightface.model_zoo.scrfd", "live")
        ort: Any = need("onnxruntime", "live")
        state: Any = need(
            "onnxruntime.capi.onnxruntime_pybind11_state", "live"
        )  # its errors share no base class
        options = ort.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except (
            RuntimeError,
            state.InvalidProtobuf,
            state.InvalidGraph,
            state.NotImplemented,
            state.Fail,
        ) as error:
            raise WeightError(f"{path} is not an ONNX model that onnxruntime loads: {error}") from None
        if len(session.get_outputs()) not in (6, 9, 10, 15):
            raise WeightError(
                f"{path} is not an SCRFD model: it has {len(session.get_outputs())} outputs, not 6, 9, 10, 15"
            )
        # One session for every size: insightface's own default builds another per input size, with its own threads.
        self._scrfd = scrfd.SCRFD(model_file=str(path), session=session, static_shape_sessions=False)
        self._scrfd.prepare(0, det_thresh=SCORE, input_size=(INPUT, INPUT))

    def find(self, frame: NDArray[np.uint8]) -> list[Found]:
        """Faces in ``frame`` (uint8[H, W, 3] BGR), largest first."""
        height, width = frame.shape[:2]
        if INPUT * min(height, width) < max(height, width):
            return []  # SCRFD would shrink this strip to less than one pixel
        boxes, points = self._scrfd.detect(np.ascontiguousarray(frame))
        found = []
        for row, (x0, y0, x1, y1, score) in enumerate(boxes.tolist()):
            eyes = None if points is None else np.asarray(points[row][:2], np.float32)
            found.append(Found((x0, y0, x1 - x0, y1 - y0), score, eyes))
        return largest_first(found)

    def find_close(self, frame: NDArray[np.uint8]) -> list[Found]:
        """Faces that fill ``frame`` (uint8[H, W, 3] BGR) or reach beyond it, largest first."""
        bordered = Bordered.around(frame)
        return bordered.close(self.find(bordered.picture))
