# SPDX-License-Identifier: GPL-2.0-or-later
"""Mutants for people: which test caught which, and what none did."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from blockyard.ci import output
from blockyard.ci.report import markdown, terminal
from blockyard.ci.report.table import Cell, Column, Head, Row, Table, table
from blockyard.ci.studies import mutants
from blockyard.ci.studies.mutants import Conditions, Mutant, Report, Verdict, outcome
from blockyard.kernel.host.settings import PROJECT

PAGE = PROJECT / "docs" / "mutants.md"
NAMED = 3  # catching tests that are named in the table; the others are counted


def show(
    wanted: Sequence[Mutant], conditions: Conditions, *, page_file: Path | None, as_json: bool
) -> bool:
    """Tries mutants and prints the report; whether all were caught."""
    report = mutants.examine(wanted, conditions)
    if page_file:
        output.write_page(page_file, page(report))
    if as_json:
        print(output.as_json(report))
    else:
        _print(report)
    return report.ok


def _print(report: Report) -> None:
    terminal.print_table(_table(report))
    for line in _rest(report):
        output.say(line)
    output.say(total(report))


def _table(report: Report) -> Table:
    head: Head = [
        Column("mutant", whole=True),
        "kernel",
        "what came of it",
        Column("seconds", right=True),
    ]
    rows: list[Row] = [
        [
            one.mutant,
            one.variant,
            Cell(outcome(one), "good" if one.caught_by else "bad"),
            f"{one.seconds:.0f}",
        ]
        for one in report.verdicts
    ]
    return table(head, rows)


def total(report: Report) -> str:
    """How many were caught."""
    return f"caught {report.caught} of {len(report.verdicts)}"


def _rest(report: Report) -> Iterator[str]:
    """What stands below the table."""
    for verdict in report.verdicts:
        if verdict.problem:
            yield f"{verdict.mutant} was not tried: {verdict.problem}"
        elif not verdict.caught_by:
            yield f"{verdict.mutant} was missed: {verdict.about} (record: {verdict.record})"
    if report.baseline_failures:
        yield "bad without a bug, so they catch none:"
        yield from (f"  {line}" for line in report.baseline_failures)
    if report.never_failed:
        yield f"{len(report.never_failed)} tests ran and caught nothing:"
        yield from (f"  {one.test} (of {', '.join(one.about)})" for one in report.never_failed)


HEAD = """# Planted bugs

What the suites notice, by `./inv dev.mutants --write`. Each line is a bug that was planted in a
driver of Linux by a patch in [tests/mutants](../tests/mutants); the driver was built alone, put in
the place of the kernel's own, and tested by all suites with `--quick` over the serial console.
A bug is caught by a test that fails with it and does not without.
"""


IDLE = """## Tests that caught none of them

They ran with some of these bugs and passed. The right column says what they are there for.
"""


def page(report: Report) -> str:
    """docs/mutants.md."""
    how = "All tests were run." if report.every_test else "The first test that caught it is named."
    lines = [HEAD, f"Run {report.date} on Linux {report.kernel} with {report.accelerator}: "]
    lines[-1] += f"**{total(report)}**. {how}\n"
    lines += markdown.simple(["bug", "what is wrong", "caught by"], map(_row, report.verdicts))
    if report.never_failed:
        rows = [[one.test, ", ".join(one.about)] for one in report.never_failed]
        lines += ["", IDLE, *markdown.simple(["test", "of"], rows)]
    return "\n".join(lines) + "\n"


def _row(verdict: Verdict) -> list[str]:
    name = verdict.mutant.partition("/")[2]
    link = f"[{verdict.mutant}](../tests/mutants/{verdict.mutant.partition('/')[0]}/{name}.patch)"
    # a test with many parameters is one test here
    tests = list(dict.fromkeys(catch.test.partition("(")[0] for catch in verdict.caught_by))
    words = ", ".join(tests[:NAMED]) + (f" and {len(tests) - NAMED} more" if tests[NAMED:] else "")
    if verdict.problem:
        words = "**not tried**"
    return [link, verdict.about, words or "**missed**"]
