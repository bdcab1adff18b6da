"""Take the exporter's notes out of a graph: stack traces with the paths of whoever exported it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ecmf.errors import need


def remove_traces(path: Path) -> None:
    """Rewrite the ONNX file ``path`` without metadata and doc strings; what it computes stays the same."""
    onnx: Any = need("onnx", "live")
    model = onnx.load(str(path))
    graph = model.graph
    for part in (
        model,
        graph,
        *graph.node,
        *graph.value_info,
        *graph.initializer,
        *graph.input,
        *graph.output,
    ):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    path.write_bytes(model.SerializeToString())
