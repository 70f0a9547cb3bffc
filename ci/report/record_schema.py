# SPDX-License-Identifier: GPL-2.0-or-later
"""Documentation of the run record: its JSON Schema, and a table of fields for each type.

Both are made from the types in ci.run.record. `./inv dev.docs` writes them to docs/.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import msgspec

from blockyard.ci.report import markdown
from blockyard.ci.run.record import SCHEMA, Run
from blockyard.kernel.host.settings import PROJECT

FILE = PROJECT / "docs" / "run-record.schema.json"
DIALECT = "https://json-schema.org/draft/2020-12/schema"


@cache
def _schema() -> dict[str, Any]:
    return msgspec.json.schema(Run)


def text() -> str:
    """The text of docs/run-record.schema.json."""
    head = {"$schema": DIALECT, "title": f"Blockyard run record, schema {SCHEMA}"}
    data = msgspec.json.format(msgspec.json.encode(head | _schema()), indent=2)
    return data.decode() + "\n"


@dataclass(frozen=True)
class TypeTable:
    """One type of the record, as docs/run-record.md shows it."""

    about: str  # its docstring
    lines: list[str]  # Markdown table of its fields


def types() -> dict[str, TypeTable]:
    """Type name → its documentation."""
    return {name: _table(definition) for name, definition in _schema()["$defs"].items()}


def _table(definition: dict[str, Any]) -> TypeTable:
    rows = [
        (f"`{field}`", _type(about), about.get("description", ""))
        for field, about in definition["properties"].items()
    ]
    about = " ".join(definition.get("description", "").split())
    return TypeTable(about, markdown.simple(["field", "type", "meaning"], rows))


def _type(about: dict[str, Any]) -> str:
    """A field's type in JSON terms, or the name of a type of the record."""
    if reference := about.get("$ref") or about.get("allOf", [{}])[0].get("$ref"):
        return f"`{reference.rpartition('/')[2]}`"
    if "anyOf" in about:
        return " or ".join(_type(alternative) for alternative in about["anyOf"])
    if "enum" in about or "const" in about:
        return "string"
    if about.get("type") == "array":
        return f"array of {_type(about['items'])}"
    if about.get("type") == "object":
        return f"object of {_type(about['additionalProperties'])}"
    return str(about.get("type", "any"))
