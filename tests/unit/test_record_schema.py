# SPDX-License-Identifier: GPL-2.0-or-later
"""The JSON Schema and the documentation of the run record match its types."""

from __future__ import annotations

import json

from blockyard.ci.report import record_schema


def test_schema_in_docs_is_current() -> None:
    assert record_schema.FILE.read_text() == record_schema.text(), "run ./inv dev.docs"


def test_every_field_has_a_description() -> None:
    definitions = json.loads(record_schema.text())["$defs"]
    assert {"Run", "CaseResult", "SkipReason", "KernelInfo"} <= set(definitions)
    for name, definition in definitions.items():
        for field, about in definition["properties"].items():
            if field != "kind":  # the tag of a type with others beside it
                assert about.get("description"), f"{name}.{field}"


def test_tables_use_json_type_names() -> None:
    lines = record_schema.types()["Run"].lines
    assert (
        "| `tests` | array of `CaseResult` | one object per test, driver, console and topology |"
        in lines
    )
    assert any(line.startswith("| `upstream` | `BlktestsCheckout` or null |") for line in lines)
    assert any(line.startswith("| `guest_packages` | object of string |") for line in lines)
