# SPDX-License-Identifier: GPL-2.0-or-later
"""Converts records and journals of schema 1 to schema 2.

Schema 1 had reasons of skips as text only, the selection in fields of the run, and no versions of
tools. What it did not record is empty, and a skip's `lacking` is "unknown".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Fields = dict[str, Any]  # of a JSON object


def run(old: Mapping[str, Any]) -> Fields:
    """A run of schema 1 with the fields of schema 2.

    Fields of the wrong type are left as they are: decoding schema 2 reports them.
    """
    fields = dict(old)
    tests = fields.get("tests")
    if isinstance(tests, list):
        fields["tests"] = [test(entry) if isinstance(entry, dict) else entry for entry in tests]
    fields["schema"] = 2
    fields["selection"] = {
        "drivers": _names(fields, "driver"),
        "consoles": _names(fields, "console"),
        "suites": [] if fields.get("upstream") else _names(fields, "suite"),
        **{name: fields.pop(name) for name in ("smoke", "topology", "budget") if name in fields},
    }
    kernel = fields.get("kernel")
    if isinstance(kernel, dict):
        fields["kernel"] = kernel = dict(kernel)
        if "left_out" in kernel:
            kernel["omitted"] = kernel.pop("left_out")
        if isinstance(source := kernel.get("source"), str):
            kernel["source"] = {"kind": "other", "text": source}
        options = {"kernel": kernel.get("name", "")}
        if "variant" in fields:
            options["variant"] = fields.pop("variant")
        fields["kernel_options"] = options
    fields["tool"] = {"version": ""}
    if "outdated" in fields:
        fields["obsolete_failures"] = fields.pop("outdated")
    if isinstance(upstream := fields.get("upstream"), str):
        folder, _, digest = upstream.rpartition(" ")
        fields["upstream"] = {"folder": folder, "digest": digest} if upstream else None
    return fields


def test(old: Mapping[str, Any]) -> Fields:
    """A test's result of schema 1 with the fields of schema 2; see `run`."""
    fields = dict(old)
    reason = fields.get("reason", "")
    if fields.get("outcome") == "skip" and isinstance(reason, str):
        fields["skip"] = {"lacking": "unknown", "text": reason.partition("\n")[0]}
    return fields


def journal_header(old: Mapping[str, Any]) -> Fields:
    """The first line of a journal of format 1, with the fields of format 2."""
    fields = dict(old) | {"format": 2}
    if isinstance(fields.get("run"), dict):
        before = run(fields["run"])
        planned = [entry for entry in fields.get("tests", ()) if isinstance(entry, dict)]
        for name, field in (("drivers", "driver"), ("consoles", "console"), ("suites", "suite")):
            before["selection"][name] = _names({"tests": planned}, field)
        fields["run"] = before
    return fields


def journal_line(old: Mapping[str, Any]) -> Fields:
    """Any other line of a journal of format 1, with the fields of format 2."""
    result = old.get("result")
    return dict(old) | ({"result": test(result)} if isinstance(result, dict) else {})


def _names(fields: Mapping[str, Any], field: str) -> list[str]:
    """The values of a field of all tests, without repetitions."""
    tests = fields.get("tests")
    if not isinstance(tests, list):
        return []
    values = (entry.get(field) for entry in tests if isinstance(entry, dict))
    return list(dict.fromkeys(name for name in values if isinstance(name, str)))
