"""What counts as right, how much faster somebody is, and how faces are put into pictures."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bench.accuracy import cell, faster, majority
from bench.face_pictures import framed


def test_a_face_that_is_not_found_is_wrong() -> None:
    truth = np.array([1, 1, 0, 0])
    figures = cell([1, None, 0, 1], [1.0, 2.0, 3.0, 4.0], 2.25, truth)
    assert figures["accuracy"] == 0.5
    assert figures["found"] == 0.75
    assert figures["accuracy_where_found"] == pytest.approx(2 / 3, abs=1e-4)
    assert figures["uar"] == 0.5
    assert figures["p50_ms"] == 2.5
    assert majority(np.array([0, 0, 1])) == {"n": 3, "accuracy": 0.6667, "uar": 0.5}


def test_how_many_times_as_fast() -> None:
    rows: list[dict[str, Any]] = [
        {"name": "ecmf face", "frame": {"p50_ms": 10.0, "core_ms": 8.0}},
        {"name": "ecmf face, network alone", "frame": None},
        {"name": "ecmf face, following", "frame": {"p50_ms": 5.0, "core_ms": 4.0}},
        {"name": "other 1.0", "frame": {"p50_ms": 65.0, "core_ms": 60.0}},
        {"name": "blank", "frame": None, "reason": "not installed"},
    ]
    assert faster(rows) == {
        "other 1.0": {
            "searched anew": 6.5,
            "searched anew, processor time": 7.5,
            "followed": 13.0,
            "followed, processor time": 15.0,
        }
    }


def test_faces_are_framed_as_a_webcam_does() -> None:
    picture = np.full((48, 48), 200, np.uint8)
    picture[:24] = 100
    frame = framed(picture, 192)
    assert frame.shape == (360, 640)
    assert frame[0, 0] == 150
    assert frame[100, 320] == 100
    assert frame[260, 320] == 200
