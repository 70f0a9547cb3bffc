# SPDX-License-Identifier: GPL-2.0-or-later
"""Outcome of a test: from its exception, its phases, and reports that never arrived."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, get_args

import pytest

from blockyard.ci.run.case_id import CaseId
from blockyard.ci.run.run import of_sub_run
from blockyard.ci.run.selection import SubRun
from blockyard.ci.run.verdicts import Collector
from blockyard.images.errors import (
    BootTimeout,
    CommandFailed,
    CommandTimedOut,
    ConsoleLost,
    GuestPanicked,
    QemuDied,
)
from blockyard.tests.harness.guests import Slot
from blockyard.tests.harness.known import Known, KnownFailure
from blockyard.tests.harness.outcomes import CaseResult, Outcome, SkipReason, of_exception, worse
from blockyard.tests.harness.plugin import PROPERTY

Phase = Literal["setup", "call", "teardown"]


class TestOfException:
    @pytest.mark.parametrize(
        ("error", "outcome"),
        [
            (AssertionError("no"), "fail"),
            (CommandFailed("exit code 1"), "fail"),
            (ValueError("x"), "fail"),
            (GuestPanicked("x"), "crash"),
            (QemuDied("x"), "crash"),
            (CommandTimedOut("x"), "timeout"),
            (ConsoleLost("x"), "timeout"),
            (BootTimeout("x"), "timeout"),
        ],
    )
    def test_outcome_by_exception(self, error: Exception, outcome: Outcome) -> None:
        assert of_exception(error) == outcome


class TestWorse:
    @pytest.mark.parametrize("outcome", get_args(Outcome))
    def test_every_outcome_is_worse_than_pass(self, outcome: Outcome) -> None:
        assert worse("pass", outcome) == worse(outcome, "pass") == outcome

    @pytest.mark.parametrize(
        ("first", "second", "expected"),
        [
            ("skip", "fail", "fail"),
            ("xfail", "fail", "fail"),
            ("fail", "crash", "crash"),
            ("fail", "timeout", "timeout"),
            ("timeout", "crash", "crash"),
            ("crash", "lost", "lost"),
        ],
    )
    def test_more_severe_outcome_wins(
        self, first: Outcome, second: Outcome, expected: Outcome
    ) -> None:
        assert worse(first, second) == worse(second, first) == expected


NAMES = {
    f"tests/suites/test_io.py::test_{name}[nvme-serial]": CaseId("io", name, Slot("nvme", "serial"))
    for name in ("read", "write", "trim")
}
READ, WRITE, TRIM = NAMES
NOTHING_KNOWN = Known((), "7.3.4", "plain")


def report(
    nodeid: str, when: Phase, *, failed: bool = False, facts: dict[str, Any] | None = None
) -> pytest.TestReport:
    """Return the report of one phase, as a worker sends it."""
    return pytest.TestReport(
        nodeid,
        ("test_io.py", 1, nodeid),
        {},
        "failed" if failed else "passed",
        None,
        when,
        duration=0.5,
        user_properties=[(PROPERTY, {"outcome": "pass", **(facts or {})})],
    )


def fail(reason: str, outcome: Outcome = "fail", log: str = "") -> dict[str, Any]:
    return {"outcome": outcome, "reason": reason, "kernel_log": log, "guest": "guests/g1"}


def died(nodeid: str) -> pytest.TestReport:
    """Return what pytest-xdist reports for the test that a worker ran when it died."""
    text: Any = "worker 'gw0' crashed while running a test"
    when: Any = "???"
    return pytest.TestReport(nodeid, ("test_io.py", None, "x"), {}, "failed", text, when)


def outcome_of(*reports: pytest.TestReport) -> CaseResult:
    """Return the result of the only test that reported."""
    collector = Collector(NAMES, NOTHING_KNOWN)
    for phase in reports:
        collector.pytest_runtest_logreport(phase)
    (result,) = collector.results
    return result


class TestCollector:
    def test_three_passed_phases_are_one_pass(self) -> None:
        result = outcome_of(report(READ, "setup"), report(READ, "call"), report(READ, "teardown"))
        assert (result.id, result.suite, result.driver, result.console) == (
            "io/read",
            "io",
            "nvme",
            "serial",
        )
        assert (result.outcome, result.reason, result.seconds) == ("pass", "", 1.5)

    def test_no_result_before_the_last_phase(self) -> None:
        collector = Collector(NAMES, NOTHING_KNOWN)
        collector.pytest_runtest_logreport(report(READ, "setup"))
        collector.pytest_runtest_logreport(report(READ, "call"))
        assert collector.results == []

    def test_worst_phase_gives_outcome_and_reason(self) -> None:
        result = outcome_of(
            report(READ, "setup"),
            report(READ, "call", failed=True, facts=fail("assert 1 == 2")),
            report(READ, "teardown", failed=True, facts=fail("panicked", "crash", "last words")),
        )
        assert (result.outcome, result.reason, result.kernel_log) == (
            "crash",
            "panicked",
            "last words",
        )

    def test_splat_is_quoted_when_the_test_failed_before(self) -> None:
        result = outcome_of(
            report(READ, "setup"),
            report(READ, "call", failed=True, facts=fail("assert 1 == 2")),
            report(READ, "teardown", failed=True, facts=fail("WARNING: x", log="the splat")),
        )
        assert (result.outcome, result.kernel_log) == ("fail", "the splat")
        assert "assert 1 == 2" in result.reason

    def test_splat_fails_a_test_that_passed(self) -> None:
        result = outcome_of(
            report(READ, "setup"),
            report(READ, "call"),
            report(READ, "teardown", failed=True, facts=fail("WARNING: x", log="the splat")),
        )
        assert (result.outcome, result.reason) == ("fail", "WARNING: x")

    def test_skip_has_a_structured_reason(self) -> None:
        skip = {"lacking": "kernel", "what": "symbol:X", "text": "without CONFIG_X"}
        facts = fail("without CONFIG_X\nand more", "skip") | {"skip": skip}
        result = outcome_of(report(READ, "setup", facts=facts), report(READ, "teardown"))
        assert result.skip == SkipReason(**skip)  # type: ignore[arg-type]
        assert result.reason == "without CONFIG_X\nand more"

    def test_skip_in_setup(self) -> None:
        result = outcome_of(
            report(READ, "setup", facts=fail("no fio", "skip")), report(READ, "teardown")
        )
        assert (result.outcome, result.reason) == ("skip", "no fio")

    def test_failed_phase_without_facts_is_not_a_pass(self) -> None:
        silent = report(READ, "call", failed=True)
        silent.user_properties = [(PROPERTY, {})]
        result = outcome_of(report(READ, "setup"), silent, report(READ, "teardown"))
        assert result.outcome in ("fail", "lost")

    def test_phases_without_facts_give_one_result(self) -> None:
        phases = [report(READ, when) for when in get_args(Phase)]
        for phase in phases:
            phase.user_properties = []
        assert outcome_of(*phases).id == "io/read"

    def test_test_of_a_dead_worker_is_lost(self) -> None:
        result = outcome_of(report(READ, "setup"), died(READ))
        assert result.outcome == "lost"
        assert "crashed" in result.reason

    def test_worker_death_after_the_test_changes_nothing(self) -> None:
        result = outcome_of(report(READ, "call"), report(READ, "teardown"), died(READ))
        assert result.outcome == "pass"

    def test_test_without_a_report_is_lost(self) -> None:
        collector = Collector(NAMES, NOTHING_KNOWN)
        for when in get_args(Phase):
            collector.pytest_runtest_logreport(report(READ, when))
        collector.pytest_runtest_logreport(report(WRITE, "setup"))
        outcomes = {result.id: result.outcome for result in collector.finish()}
        assert outcomes == {"io/read": "pass", "io/write": "lost", "io/trim": "lost"}

    def test_test_that_was_not_reached_names_the_reason(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        collector = Collector(NAMES, NOTHING_KNOWN, silent=True)
        collector.stopped = "stopping after 1 failures"
        for when in get_args(Phase):
            collector.pytest_runtest_logreport(report(READ, when))
        collector.pytest_runtest_logstart(WRITE)
        results = {result.id: (result.outcome, result.reason) for result in collector.finish()}
        assert results == {
            "io/read": ("pass", ""),
            "io/write": ("lost", "the run ended during this test"),
            "io/trim": ("lost", "not run: stopping after 1 failures"),
        }
        assert capsys.readouterr().err == ""

    def test_tests_after_the_stop_of_a_sub_run_are_not_lost(self, tmp_path: Path) -> None:
        collector = Collector(NAMES, NOTHING_KNOWN, SubRun(tmp_path, stop=True))
        assert len(collector.finish()) == len(NAMES), "nothing failed, so it did not stop early"
        collector = Collector(NAMES, NOTHING_KNOWN, SubRun(tmp_path, stop=True))
        collector.pytest_runtest_logreport(report(READ, "setup"))
        collector.pytest_runtest_logreport(report(READ, "call", failed=True, facts=fail("bad")))
        collector.pytest_runtest_logreport(report(READ, "teardown"))
        assert [result.id for result in collector.finish()] == ["io/read"]

    def test_sub_run_deselects_known_failures(self, tmp_path: Path) -> None:
        is_known = Known((KnownFailure("io/write", "why"),), "7.3.4", "plain")
        left, arguments = of_sub_run(NAMES, SubRun(tmp_path), is_known)
        assert list(left) == [READ, TRIM]
        assert arguments == [f"--deselect={WRITE}"]

    def test_sub_run_deselects_all_other_tests(self, tmp_path: Path) -> None:
        sub_run = SubRun(tmp_path, frozenset({("io/read", "")}), stop=True)
        left, arguments = of_sub_run(NAMES, sub_run, NOTHING_KNOWN)
        assert list(left) == [READ]
        assert arguments == [f"--deselect={WRITE}", f"--deselect={TRIM}", "--maxfail=1"]

    def test_finishing_twice_adds_nothing(self) -> None:
        collector = Collector(NAMES, NOTHING_KNOWN)
        assert collector.finish() == collector.finish()
        assert len(collector.results) == len(NAMES)

    def test_progress_prints_a_line_per_test(self, capsys: pytest.CaptureFixture[str]) -> None:
        facts = fail("assert 1 == 2\nmore")
        outcome_of(
            report(TRIM, "setup"),
            report(TRIM, "call", failed=True, facts=facts),
            report(TRIM, "teardown"),
        )
        assert capsys.readouterr().err == (
            "[1/3] fail    io/trim[nvme-serial] 1.5 s  assert 1 == 2\n"
        )
