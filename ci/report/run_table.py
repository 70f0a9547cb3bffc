# SPDX-License-Identifier: GPL-2.0-or-later
"""The table at the end of a run: tests per driver and outcome."""

from __future__ import annotations

from blockyard.ci.report.table import Cell, Column, Row, Style, Table, table
from blockyard.ci.run.record import Run
from blockyard.tests.harness.outcomes import OUTCOMES, Outcome

ALWAYS: frozenset[Outcome] = frozenset({"pass", "fail", "skip"})  # columns shown even when empty
STYLES: dict[Outcome, Style] = {
    "pass": "good",
    "fail": "bad",
    "crash": "bad",
    "timeout": "bad",
    "lost": "bad",
    "skip": "note",
    "xfail": "note",
    "xpass": "odd",
}


def run_table(run: Run) -> Table:
    """One row per driver: tests by outcome, and the tests' total time in seconds."""
    present = {test.outcome for test in run.tests}
    outcomes = [outcome for outcome in OUTCOMES if outcome in present | ALWAYS]
    rows: list[Row] = []
    for driver in dict.fromkeys(test.driver for test in run.tests):
        counts = run.count(driver)
        seconds = sum(test.seconds for test in run.tests if test.driver == driver)
        cells = [_count(outcome, counts[outcome]) for outcome in outcomes]
        rows.append([driver, *cells, f"{seconds:.1f}"])
    return table(
        ["driver", *(Column(outcome, right=True) for outcome in (*outcomes, "seconds"))], rows
    )


def _count(outcome: Outcome, count: int) -> Cell:
    return Cell(str(count), STYLES[outcome]) if count else Cell("-")
