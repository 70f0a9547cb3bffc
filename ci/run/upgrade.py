# SPDX-License-Identifier: GPL-2.0-or-later
"""Records and journals of schema 1, as schema 2 has them.

Schema 1 had reasons of skips as text only, the selection in fields of the run, and nothing on the
tools. What cannot be known any more is empty, and a skip's `lacking` is "unknown".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Fields = dict[str, Any]  # of a JSON object


def run(old: Mapping[str, Any]) -> Fields:
    """A run of schema 1 with the fields of schema 2.

    What is in the wrong shape stays there, for the reader of schema 2 to complain about.
    """
    fields = dict(old)
    tests = fields.get("tests")
    if isinstance(tests, list):
        fields["tests"] = [test(one) if isinstance(one, dict) else one for one in tests]
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
    """A test's result of schema 1 with the fields of schema 2."""
    fields = dict(old)
    reason = fields.get("reason", "")
    if fields.get("outcome") == "skip" and isinstance(reason, str):
        fields["skip"] = {"lacking": "unknown", "text": reason.partition("\n")[0]}
    return fields


def journal_header(old: Mapping[str, Any]) -> Fields:
    """The first line of a journal of format 1, as format 2 has it."""
    fields = dict(old) | {"format": 2}
    if isinstance(fields.get("run"), dict):
        before = run(fields["run"])
        planned = [one for one in fields.get("tests", ()) if isinstance(one, dict)]
        for name, field in (("drivers", "driver"), ("consoles", "console"), ("suites", "suite")):
            before["selection"][name] = _names({"tests": planned}, field)
        fields["run"] = before
    return fields


def journal_line(old: Mapping[str, Any]) -> Fields:
    """Another line of it."""
    result = old.get("result")
    return dict(old) | ({"result": test(result)} if isinstance(result, dict) else {})


def _names(fields: Mapping[str, Any], field: str) -> list[str]:
    """What the tests have in a field, each once."""
    tests = fields.get("tests")
    objects = [one for one in tests if isinstance(one, dict)] if isinstance(tests, list) else []
    found = (one.get(field) for one in objects)
    return list(dict.fromkeys(name for name in found if isinstance(name, str)))
