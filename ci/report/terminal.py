# SPDX-License-Identifier: GPL-2.0-or-later
"""A run for people: the table driver × outcome and what did not pass."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from blockyard.ci import output
from blockyard.ci.run.record import Run
from blockyard.tests.harness.known import FILE
from blockyard.tests.harness.outcomes import BAD, OUTCOMES, CaseResult, Outcome

if TYPE_CHECKING:
    from rich.table import Table

ALWAYS: frozenset[Outcome] = frozenset({"pass", "fail", "skip"})  # columns shown even when empty
# Told below the failures, with their reasons.
NOTED: dict[Outcome, str] = {
    "skip": "skipped",
    "xfail": "failed as known",
    "xpass": "passed against a known failure",
}
NAMED = 3  # tests that share a reason are named up to this many, then counted
STYLES: dict[Outcome, str] = {
    "pass": "green",
    "fail": "bold red",
    "crash": "bold red",
    "timeout": "bold red",
    "lost": "bold red",
    "skip": "yellow",
    "xfail": "yellow",
    "xpass": "magenta",
}


def show(run: Run, path: Path) -> None:
    """Prints the whole report on stdout."""
    console = output.console()
    for test in run.tests:
        if test.outcome in BAD:
            console.print(output.plain(_failure(test, path.parent), STYLES[test.outcome]))
    for outcome, head in NOTED.items():
        if lines := _reasons(run, outcome):
            output.say(f"\n{head}:")
            for line in lines:
                output.say(f"  {line}")
    for line in run.obsolete_failures:
        output.say(f"\noutdated in a {FILE}: {line}")
    output.say("")
    output.print_table(_table(run), folded=False)
    kernel = run.kernel
    output.say(f"kernel       {kernel.name}: {kernel.release} ({kernel.source})")
    output.say(f"accelerator  {run.accelerator.name} ({run.accelerator.reason})")
    output.say(f"record       {path}")
    if run.resumed:
        output.say(f"begun {run.started}, interrupted, resumed {', '.join(run.resumed)}")
    if run.smoke:
        output.say("these were the smoke tests; `--suite all` runs the others too")


def _table(run: Run) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    present = {test.outcome for test in run.tests}
    columns = [outcome for outcome in OUTCOMES if outcome in present | ALWAYS]
    table.add_column("driver")
    for outcome in columns:
        table.add_column(outcome, justify="right")
    table.add_column("seconds", justify="right")
    for driver in dict.fromkeys(test.driver for test in run.tests):
        counts = run.count(driver)
        seconds = sum(test.seconds for test in run.tests if test.driver == driver)
        cells = [_cell(outcome, counts[outcome]) for outcome in columns]
        table.add_row(output.plain(driver), *cells, f"{seconds:.1f}")
    return table


def _cell(outcome: Outcome, count: int) -> str:
    return f"[{STYLES[outcome]}]{count}[/]" if count else "-"


def _failure(test: CaseResult, folder: Path) -> str:
    lines = [f"\n{test.outcome}: {test.id} [{', '.join(test.where)}]"]
    lines += [f"  {line}" for line in test.reason.splitlines()]
    if test.kernel_log:
        lines.append("  kernel log:")
        lines += [f"    {line}" for line in test.kernel_log.splitlines()]
    if test.guest:
        lines.append(f"  more in {folder / test.guest / 'kernel.log'}")
    return "\n".join(lines)


def _reasons(run: Run, wanted: Outcome) -> list[str]:
    """One line per reason: a driver without a feature skips many tests for it."""
    found: dict[tuple[str, str], dict[str, None]] = {}
    for test in run.tests:
        if test.outcome == wanted:
            found.setdefault(_head(test), {})[test.id] = None
    lines: dict[str, list[str]] = {}
    for (head, name), tests in found.items():
        words = f"{name} ({len(tests)} tests)" if name else _some(list(tests))
        lines.setdefault(head, []).append(words)
    return [f"{head} {', '.join(words)}" for head, words in lines.items()]


def _head(test: CaseResult) -> tuple[str, str]:
    """How the line of a test's reason begins, and what it names with others behind that.

    All attributes that one driver does not have are in one line, and so are parameters.
    """
    kind, _, name = test.skip.what.partition(":") if test.skip else ("", "", "")
    if test.skip and test.skip.lacking == "driver" and kind in ("attribute", "parameter"):
        return f"{test.driver} has no {kind}", name
    text = test.skip.text if test.skip else test.reason.partition("\n")[0]
    return f"{text}:", ""


def _some(tests: list[str]) -> str:
    return ", ".join(tests) if len(tests) <= NAMED else f"{len(tests)} tests"
