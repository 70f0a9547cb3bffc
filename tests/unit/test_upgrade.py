# SPDX-License-Identifier: GPL-2.0-or-later
"""Records and journals of schema 1 are converted to schema 2."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from blockyard.ci.run import past_run, record
from blockyard.ci.run.circumstances import BlktestsCheckout, Tool
from blockyard.kernel.host.errors import UsageError
from blockyard.tests.harness.outcomes import SkipReason

TESTS = [
    {
        "id": "block/size",
        "suite": "block",
        "driver": "null_blk",
        "console": "serial",
        "topology": "",
        "features": ["size"],
        "outcome": "pass",
        "seconds": 1.5,
        "reason": "",
        "kernel_log": "",
        "guest": "guests/null_blk-serial-1",
    },
    {
        "id": "zoned/report",
        "suite": "zoned",
        "driver": "rnull",
        "console": "ssh",
        "outcome": "skip",
        "seconds": 0.1,
        "reason": "rnull has no attribute zoned\nmore of it",
    },
]
RUN: dict[str, Any] = {
    "schema": 1,
    "run": "20260102-030405-7.3-abcd",
    "started": "2026-01-02T03:04:05Z",
    "seconds": 12.5,
    "host": {"name": "builder", "kernel": "6.1.0", "cpus": 2, "memory_mib": 24000},
    "accelerator": {"name": "tcg", "reason": "no /dev/kvm"},
    "kernel": {
        "schema": 1,
        "key": "0123456789abcdef",
        "name": "7.3",
        "release": "7.3.4",
        "source": "debian linux-source-7.3 7.3.4-1",
        "config_sha256": "0" * 64,
        "toolchain": {},
        "left_out": {"Rust": "no rustc"},
    },
    "topology": "zns",
    "variant": "kasan",
    "smoke": True,
    "budget": "quick",
    "upstream": "",
    "outdated": ["block/x [nvme]: no known kernel is in '<5'"],
    "booted": True,
    "interrupted": False,
    "under_way": [],
    "resumed": [],
    "trusted_tests": [],
    "tests": TESTS,
}


def read(folder: Path, fields: object) -> record.Run:
    (folder / "run.json").write_text(json.dumps(fields))
    return record.read(folder / "run.json")


def test_record_is_converted(tmp_path: Path) -> None:
    run = read(tmp_path, RUN)
    assert run.schema == record.SCHEMA
    assert run.kernel.omitted == {"Rust": "no rustc"}
    assert (run.kernel_options.kernel, run.kernel_options.variant) == ("7.3", "kasan")
    selection = run.selection
    assert (selection.drivers, selection.consoles) == (("null_blk", "rnull"), ("serial", "ssh"))
    assert (selection.topology, selection.smoke, selection.budget) == ("zns", True, "quick")
    assert run.obsolete_failures == ("block/x [nvme]: no known kernel is in '<5'",)
    assert (run.tool, run.guest_packages, run.boots, run.upstream) == (Tool(""), {}, (), None)


def test_skip_keeps_its_text_with_unknown_cause(tmp_path: Path) -> None:
    passed, skipped = read(tmp_path, RUN).tests
    assert passed.skip is None
    assert skipped.skip == SkipReason(lacking="unknown", text="rnull has no attribute zoned")
    assert skipped.reason == "rnull has no attribute zoned\nmore of it"


def test_blktests_checkout_is_converted(tmp_path: Path) -> None:
    run = read(tmp_path, RUN | {"upstream": "/home/me/my blktests 0123abcd"})
    assert run.upstream == BlktestsCheckout("/home/me/my blktests", "0123abcd")


@pytest.mark.parametrize("field", ["tests", "kernel", "smoke", "upstream", "outdated", "run"])
@pytest.mark.parametrize("value", [5, [6], {"x": 1}])
def test_field_of_another_type_is_one_error(tmp_path: Path, field: str, value: object) -> None:
    with pytest.raises(UsageError, match="is not a run record"):
        read(tmp_path, RUN | {field: value})


def test_later_schema_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is a run record of schema 99, expected 1 to 2"):
        read(tmp_path, RUN | {"schema": 99})


def test_journal_is_converted(tmp_path: Path) -> None:
    planned = [{key: test[key] for key in ("id", "suite", "driver", "console")} for test in TESTS]
    names = ["block/size[null_blk-serial]", "zoned/report[rnull-ssh]"]
    lines = [
        {
            "line": "run",
            "format": 1,
            "asked": {"kernel": "7.3"},
            "inputs": {},
            "run": RUN | {"tests": []},
            "tests": [{"name": name, **test} for name, test in zip(names, planned, strict=True)],
        },
        {"line": "started", "test": names[1], "seconds": 1.0},
        {"line": "finished", "test": names[1], "seconds": 2.0, "booted": True, "result": TESTS[1]},
        {"line": "started", "test": names[0], "seconds": 2.5},
    ]
    (tmp_path / "journal.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    run = past_run.read(tmp_path)
    assert [(test.id, test.outcome) for test in run.tests] == [
        ("block/size", "lost"),
        ("zoned/report", "skip"),
    ]
    assert run.tests[1].skip == SkipReason(lacking="unknown", text="rnull has no attribute zoned")
    assert run.selection.suites == ("block", "zoned")
    assert run.interrupted
