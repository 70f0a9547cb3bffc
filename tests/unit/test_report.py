# SPDX-License-Identifier: GPL-2.0-or-later
"""The report on the terminal at the end of a run."""

from __future__ import annotations

from pathlib import Path

import pytest

from blockyard.ci.report.terminal import show
from blockyard.tests.harness.outcomes import CaseResult
from blockyard.tests.unit.samples import result, run_of

RUN = run_of(
    result("pass"),
    result("pass", "io/write"),
    result(
        "fail",
        "io/trim",
        reason="WARNING: WARNING: a.c:1 at f+0x1/0x2, CPU#0: sh/1\nsecond [line]",
        kernel_log="[    1.0] WARNING: a.c:1\n[    1.1] Call Trace:",
        rerun="./inv test --kernel 7.3 -k 'test_trim[null_blk-serial]'",
    ),
    result("skip", "zone/report", reason="the guest has no program blkzone"),
    result("skip", "zone/reset", reason="the guest has no program blkzone"),
    result("crash", "io/read", driver="nvme", console="ssh", reason="the guest's kernel panicked"),
)

GOLDEN = """\

fail: io/trim [null_blk, serial]
  WARNING: WARNING: a.c:1 at f+0x1/0x2, CPU#0: sh/1
  second [line]
  kernel log:
    [    1.0] WARNING: a.c:1
    [    1.1] Call Trace:
  run it again: ./inv test --kernel 7.3 -k 'test_trim[null_blk-serial]'
  whole kernel log: /results/run/guests/null_blk-serial-1/kernel.log

crash: io/read [nvme, ssh]
  the guest's kernel panicked
  whole kernel log: /results/run/guests/nvme-ssh-1/kernel.log

skipped:
  the guest has no program blkzone: zone/report, zone/reset

driver   | pass | fail | crash | skip | seconds
null_blk | 2 | 1 | - | 2 | 6.2
nvme | - | - | 1 | - | 1.2

kernel       7.3: 7.3.4 (debian linux-source-7.3 7.3.4-1)
accelerator  tcg (no /dev/kvm)
record       /results/run/run.json
"""


@pytest.fixture(autouse=True)
def no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "80")


def shown(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Return the lines on stdout, without the rules and padding of tables."""
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    return [" ".join(line.split()) for line in lines if line.strip(" \u2500\u2550-")]


def test_report_matches_the_golden_text(capsys: pytest.CaptureFixture[str]) -> None:
    show(RUN, Path("/results/run/run.json"))
    expected = [" ".join(line.replace("|", " ").split()) for line in GOLDEN.splitlines()]
    assert shown(capsys) == [line for line in expected if line]


def test_long_paths_and_reasons_are_not_wrapped(capsys: pytest.CaptureFixture[str]) -> None:
    """Wrapped lines cannot be copied."""
    reason = "word " * 60 + "end"
    path = Path("/" + "long/" * 40 + "run.json")
    show(run_of(result("fail", reason=reason)), path)
    out = capsys.readouterr().out
    assert reason in out
    assert str(path) in out


def test_report_of_a_good_run_is_short(capsys: pytest.CaptureFixture[str]) -> None:
    show(run_of(result("pass")), Path("/r"))
    lines = shown(capsys)
    assert lines[:2] == ["driver pass fail skip seconds", "null_blk 1 - - 1.2"]
    assert len(lines) == 5


def test_shared_reason_is_printed_once(capsys: pytest.CaptureFixture[str]) -> None:
    show(run_of(*(result("skip", f"io/{n}", reason="no Rust") for n in range(20))), Path("/r"))
    out = capsys.readouterr().out
    assert out.count("no Rust") == 1
    assert "no Rust: 20 tests" in out


def driver_lacks(name: str, what: str) -> CaseResult:
    return result("skip", name, "rnull", reason="(not read)", what=what, lacking="driver")


def test_missing_features_of_a_driver_are_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    run = run_of(
        result("pass"),
        *(driver_lacks(f"z/{n}", "attribute:zoned") for n in range(4)),
        driver_lacks("z/mbps", "attribute:mbps"),
        result("skip", "z/x", reason="rnull is not an NVMe driver"),
    )
    show(run, Path("/results/run/run.json"))
    out = capsys.readouterr().out
    assert "  rnull has no attribute zoned (4 tests), mbps (1 tests)\n" in out
    assert "  rnull is not an NVMe driver: z/x\n" in out


def test_known_failures_are_listed_without_details(capsys: pytest.CaptureFixture[str]) -> None:
    run = run_of(
        result("xfail", "z/a", reason="mode 0660\nassert 1 == 2"),
        result("xpass", "z/b", reason="expected to fail: slow"),
    )
    show(run, Path("/results/run/run.json"))
    out = capsys.readouterr().out
    assert "failed as known:\n  mode 0660: z/a\n" in out
    assert "passed against a known failure:\n  expected to fail: slow: z/b\n" in out
