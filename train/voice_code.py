"""A fingerprint of code, for the keys of what that code computed."""

from __future__ import annotations

import ast
import hashlib
import inspect
import textwrap
from collections.abc import Callable
from types import ModuleType
from typing import Any

_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef)


def code_digest(*parts: ModuleType | type | Callable[..., Any]) -> str:
    """Of the source of modules, classes and functions, without comments and docstrings: words change no result."""
    digest = hashlib.sha256()
    for part in parts:
        tree = ast.parse(textwrap.dedent(inspect.getsource(part)))
        for node in ast.walk(tree):
            if isinstance(node, _DOCUMENTED):
                node.body = [entry for entry in node.body if not _is_text(entry)]
        digest.update(ast.dump(tree).encode())
    return digest.hexdigest()[:16]


def _is_text(entry: ast.stmt) -> bool:
    return (
        isinstance(entry, ast.Expr)
        and isinstance(entry.value, ast.Constant)
        and isinstance(entry.value.value, str)
    )
