"""What may be on the wire, and what cannot."""

from __future__ import annotations

import json
import math
from datetime import datetime
from typing import Any

import jsonschema
import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema_specifications import REGISTRY
from wire import PROBS, estimate, health, modalities, nothing, transcript, unlabelled

from ecmf.labels import EKMAN, MER
from realtime import schema
from realtime.message import (
    Estimate,
    Message,
    Modalities,
    ModalityState,
    WireError,
    decode,
    distribution,
    encode,
    rfc3339,
    topic,
)

VALIDATOR = jsonschema.Draft202012Validator(
    json.loads(schema.FILE.read_text("utf-8")), format_checker=jsonschema.FormatChecker()
)
STAMPS = {"seq": 4, "t_publish_ns": 1_020_000_000, "wall": "2026-11-21T12:00:00.250Z"}


def published(message: Message) -> Any:
    stamps: dict[str, Any] = dict(STAMPS)
    if isinstance(message, Estimate) and message.latency_ms is not None:
        stamps["latency_ms"] = {"total": 20.0, **message.latency_ms}
    return json.loads(encode(msgspec.structs.replace(message, **stamps)))


def test_the_shipped_schema_is_the_one_of_the_structs() -> None:
    assert schema.FILE.read_text("utf-8") == schema.text(), "run: python -m realtime.schema"


def test_the_schema_has_nothing_that_strict_validators_and_generators_stumble_over() -> None:
    """Ajv refuses keywords that are not of JSON Schema; json-schema-to-typescript makes of an inner oneOf two types."""
    vocabularies = ("core", "applicator", "validation", "meta-data", "format-annotation")
    known: set[str] = set()
    for name in vocabularies:
        known |= REGISTRY[f"https://json-schema.org/draft/2020-12/meta/{name}"].contents["properties"].keys()

    def keywords(part: Any) -> set[str]:
        if isinstance(part, list):
            return set().union(*map(keywords, part))
        if not isinstance(part, dict):
            return set()
        found = set(part)
        for key, inner in part.items():
            if key in ("properties", "$defs"):
                found |= set().union(*map(keywords, inner.values()))
            elif key not in ("default", "enum", "required"):
                found |= keywords(inner)
        return found

    assert keywords(schema.schema()) <= known
    assert all("oneOf" not in definition for definition in schema.schema()["$defs"].values())


def test_every_field_is_described_in_the_schema() -> None:
    definitions = schema.schema()["$defs"]
    bare = [
        f"{name}.{field}"
        for name, definition in definitions.items()
        for field, content in definition["properties"].items()
        if "description" not in content and field != "type"
    ]
    assert bare == []


@pytest.mark.parametrize(
    "message",
    [
        estimate(),
        estimate(latency_ms=None),
        unlabelled(),
        unlabelled(modalities=modalities()),
        transcript(),
        health(),
    ],
    ids=lambda message: type(message).__name__,
)
def test_messages_are_valid_and_come_back_as_they_were(message: Message) -> None:
    VALIDATOR.validate(published(message))
    assert decode(encode(message)) == message


@pytest.mark.parametrize(
    "spoil",
    [
        lambda m: m.update(v=2),
        lambda m: m.update(type="emotions"),
        lambda m: m.pop("seq"),
        lambda m: m.update(seq=-1),
        lambda m: m.update(label=None),
        lambda m: m.update(reason="no_person"),
        lambda m: m.update(confidence=1.5),
        lambda m: m.update(clock="wall"),
        lambda m: m["latency_ms"].pop("total"),
        lambda m: m["modalities"].pop("text"),
        lambda m: m["raw"].update(anger=None),
        lambda m: m.update(t_capture_ns=1.5),
    ],
)
def test_the_schema_alone_refuses_what_is_wrong(spoil: Any) -> None:
    message = published(estimate())
    VALIDATOR.validate(message)
    spoil(message)
    with pytest.raises(jsonschema.ValidationError):
        VALIDATOR.validate(message)


def test_fields_of_a_later_version_are_ignored_and_other_versions_refused() -> None:
    later = {**published(estimate()), "valence": 0.5}
    assert isinstance(decode(json.dumps(later).encode()), Estimate)
    with pytest.raises(WireError, match="version"):
        decode(json.dumps({**later, "v": 2}).encode())


@pytest.mark.parametrize("payload", [b"", b"nonsense", b"[]", b"\xff\xfe", b'{"type":"emotion"}', b"{}"])
def test_bytes_that_are_no_message_are_a_clear_error(payload: bytes) -> None:
    with pytest.raises(WireError):
        decode(payload)


def test_topics_end_in_a_slash() -> None:
    assert topic(estimate(source="cam1")) == "emotion/cam1/"
    assert topic(health()) == "health/demo/"
    assert topic(transcript()) == "transcript/demo/"


@pytest.mark.parametrize(
    "changes",
    [
        {"label": None},
        {"label": None, "confidence": None, "raw": None, "smoothed": None},
        {"reason": "low_confidence"},
        {"label": "joy"},
        {"raw": {}},
        {"smoothed": {**PROBS, "neutral": 0.5}},
    ],
)
def test_half_a_label_cannot_be_made(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        estimate(**changes)


def test_weights_of_the_present_sum_to_one() -> None:
    some = ModalityState(present=True, weight=0.5, age_ms=1.0, quality=1.0)
    with pytest.raises(ValueError, match="sum to"):
        Modalities(face=some, scene=nothing().scene, voice=nothing().voice, text=nothing().text)
    with pytest.raises(ValueError, match="absent"):
        ModalityState(present=False, weight=0.1, reason="stale")
    with pytest.raises(ValueError, match="absent"):
        ModalityState(present=False)


NUMBERS = st.floats(allow_nan=True, allow_infinity=True)


@given(
    bad=st.sampled_from([math.nan, math.inf, -math.inf]),
    place=st.sampled_from(
        ["confidence", "raw", "smoothed", "probs", "weight", "age_ms", "quality", "media", "bbox", "latency"]
    ),
)
def test_not_a_number_cannot_be_made_anywhere(bad: float, place: str) -> None:
    spoiled = {**PROBS, "anger": bad}
    face: dict[str, Any] = {"present": True, "weight": 1.0, "age_ms": 1.0, "quality": 1.0, "probs": PROBS}
    changes: dict[str, Any] = {
        "confidence": {"confidence": bad},
        "raw": {"raw": spoiled},
        "smoothed": {"smoothed": spoiled},
        "media": {"t_media_s": bad},
        "bbox": {"bbox": (0.0, 0.0, bad, 1.0)},
        "latency": {"latency_ms": {"face": bad}},
    }.get(place, {})
    with pytest.raises(ValueError):
        if changes:
            estimate(**changes)
        else:
            ModalityState(**{**face, place: spoiled if place == "probs" else bad})


@given(
    weights=st.lists(NUMBERS, min_size=4, max_size=4),
    quality=NUMBERS,
    age=NUMBERS,
    box=st.tuples(*[NUMBERS] * 4),
)
def test_what_can_be_made_is_valid_on_the_wire(
    weights: list[float], quality: float, age: float, box: tuple[float, float, float, float]
) -> None:
    try:
        states = [ModalityState(present=True, weight=w, age_ms=age, quality=quality) for w in weights]
        face, scene, voice, text = states
        message = estimate(
            modalities=Modalities(face=face, scene=scene, voice=voice, text=text),
            bbox=box,
            latency_ms={"face": age},
        )
    except ValueError:
        return
    found = published(message)
    VALIDATOR.validate(found)
    assert sum(state["weight"] for state in found["modalities"].values()) == pytest.approx(1, abs=1e-3)
    assert None not in (*found["bbox"], found["latency_ms"]["face"])


@given(
    st.sampled_from([EKMAN, MER]).flatmap(
        lambda labels: st.tuples(
            st.just(labels), st.lists(st.floats(0, 1e6), min_size=len(labels), max_size=len(labels))
        )
    )
)
def test_rounded_distributions_still_sum_to_one(case: tuple[tuple[str, ...], list[float]]) -> None:
    labels, values = case
    if sum(values) <= 0:
        with pytest.raises(ValueError):
            distribution(labels, np.array(values))
        return
    found = distribution(labels, np.array(values))
    assert tuple(found) == labels
    assert all(0 <= value <= 1 for value in found.values())
    assert sum(found.values()) == pytest.approx(1, abs=1e-9)
    scaled = np.array(values) / sum(values)
    assert np.abs(np.array(list(found.values())) - scaled).max() < 1e-3


@pytest.mark.parametrize(
    "values", [[math.nan] * 7, [1.0, -0.1, 0, 0, 0, 0, 0], [1.0], [0.0] * 7, [math.inf] * 7]
)
def test_what_is_no_distribution_is_refused(values: list[float]) -> None:
    with pytest.raises(ValueError):
        distribution(EKMAN, np.array(values))


@given(st.integers(0, 4_000_000_000_000_000_000))
def test_wall_time_is_rfc_3339(unix_ns: int) -> None:
    text = rfc3339(unix_ns)
    assert text.endswith("Z") and len(text) == len("2026-11-21T12:00:00.250Z")
    back = datetime.fromisoformat(text)
    assert back.timestamp() * 1e3 == pytest.approx(unix_ns // 1_000_000, abs=1)
