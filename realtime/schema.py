"""The JSON schema of the wire, made from the structs; `python -m realtime.schema` writes the shipped file anew.

`ecmf-listen --schema` prints it.
"""

from __future__ import annotations

import ast
import inspect
import json
import textwrap
from pathlib import Path
from typing import Any

from realtime import health, message

FILE = Path(message.__file__).with_name("message.schema.json")
_TOLD = ("label", "confidence", "raw", "smoothed")


def schema() -> dict[str, Any]:
    """JSON Schema 2020-12 of any message: an estimate, a transcript or a health report."""
    import msgspec

    (root,), definitions = msgspec.json.schema_components([message.Message], ref_template="#/$defs/{name}")
    for name, definition in definitions.items():
        for field, text in _descriptions(getattr(message, name, None) or getattr(health, name)).items():
            definition["properties"][field]["description"] = text
    # msgspec checks this in the struct; subscribers in other languages have only the schema. Not as oneOf: generators
    # of code would make of it two types that nobody can use.
    definitions["Estimate"] |= {
        "if": {"properties": {"reason": {"type": "null"}}},
        "then": {"properties": {key: {"not": {"type": "null"}} for key in _TOLD}},
        "else": {"properties": {key: {"type": "null"} for key in _TOLD}},
    }
    for name in ("Estimate", "Transcript", "Health"):
        # the publisher always sends these; as struct fields they have defaults only until it stamps them
        required = set(definitions[name]["required"]) | {"v", "type", "seq", "t_publish_ns", "wall"}
        definitions[name]["required"] = [key for key in definitions[name]["properties"] if key in required]
        definitions[name]["properties"]["wall"]["format"] = "date-time"
    del root["discriminator"]  # is OpenAPI's, and refused by strict validators of JSON Schema
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "ECMF live, message v1",
        **root,
        "$defs": definitions,
    }


def text() -> str:
    """The content of the shipped file."""
    return json.dumps(schema(), indent=1, ensure_ascii=False) + "\n"


def _descriptions(struct: type) -> dict[str, str]:
    """The sentence under each field, its bases' included."""
    found: dict[str, str] = {}
    for base in reversed(struct.__mro__):
        if base.__module__ not in (message.__name__, health.__name__):
            continue
        (body,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body
        assert isinstance(body, ast.ClassDef)
        for field, below in zip(body.body, body.body[1:], strict=False):
            match field, below:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(
                    value=ast.Constant(value=str(sentence))
                ):
                    found[name] = " ".join(sentence.split())
    return found


if __name__ == "__main__":
    FILE.write_text(text(), "utf-8")
