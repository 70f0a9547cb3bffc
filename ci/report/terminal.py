# SPDX-License-Identifier: GPL-2.0-or-later
"""Tables and run reports on the terminal: bad tests, skips and their reasons, the final table."""

from __future__ import annotations

from pathlib import Path

from blockyard.ci import output
from blockyard.ci.report.run_table import STYLES, run_table
from blockyard.ci.report.table import Style, Table
from blockyard.ci.run.record import Run
from blockyard.tests.harness.known import FILE
from blockyard.tests.harness.outcomes import BAD, CaseResult, Outcome

# Outcomes listed below the failures, with their reasons.
NOTED: dict[Outcome, str] = {
    "skip": "skipped",
    "xfail": "failed as known",
    "xpass": "passed against a known failure",
}
NAMED = 3  # more tests with the same reason are counted, not named
COLOURS: dict[Style, str] = {
    "": "",
    "good": "green",
    "bad": "bold red",
    "note": "yellow",
    "odd": "magenta",
    "quiet": "dim",
}
MOST_COLUMNS = 10_000  # width limit of a table without wrapping
LEAST_COLUMNS = 80  # a narrower terminal wraps the lines itself


def show(run: Run, path: Path) -> None:
    """Prints the report of a run on stdout. path: of run.json."""
    console = output.console()
    for test in run.tests:
        if test.outcome in BAD:
            console.print(output.plain(_failure(test, path.parent), COLOURS[STYLES[test.outcome]]))
    for outcome, head in NOTED.items():
        if lines := _reasons(run, outcome):
            output.say(f"\n{head}:")
            for line in lines:
                output.say(f"  {line}")
    for line in run.obsolete_failures:
        output.say(f"\nobsolete in {FILE}: {line}")
    output.say("")
    print_table(run_table(run), folded=False)
    kernel = run.kernel
    output.say(f"kernel       {kernel.name}: {kernel.release} ({kernel.source})")
    output.say(f"accelerator  {run.accelerator.name} ({run.accelerator.reason})")
    output.say(f"record       {path}")
    if run.resumed:
        output.say(f"started {run.started}, interrupted, resumed {', '.join(run.resumed)}")
    if run.selection.smoke:
        output.say("only the smoke tests ran; `--suite all` runs all tests")


def print_table(content: Table, *, folded: bool = True) -> None:
    """Prints a table and its footnotes; no text is cut, however narrow the terminal.

    folded: whether long cells are wrapped.
    """
    from rich import box
    from rich.table import Table as Drawn

    drawn = Drawn(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in content.columns:
        drawn.add_column(
            output.plain(column.head),
            justify="right" if column.right else "left",
            no_wrap=column.whole,
            overflow="fold",
        )
    for row in content.rows:
        drawn.add_row(*(output.plain(cell.text, COLOURS[cell.style]) for cell in row))
    console = output.console()
    widest = console.options.update(width=MOST_COLUMNS)
    needed = LEAST_COLUMNS if folded else console.measure(drawn, options=widest).maximum
    console.width = max(console.width, needed)
    console.print(drawn)
    for line in content.footnotes:
        output.say(line)


def _failure(test: CaseResult, folder: Path) -> str:
    lines = [f"\n{test.outcome}: {test.id} [{', '.join(test.where)}]"]
    lines += [f"  {line}" for line in test.reason.splitlines()]
    if test.kernel_log:
        lines.append("  kernel log:")
        lines += [f"    {line}" for line in test.kernel_log.splitlines()]
    if test.rerun:
        lines.append(f"  run it again: {test.rerun}")
    if test.guest:
        lines.append(f"  whole kernel log: {folder / test.guest / 'kernel.log'}")
    return "\n".join(lines)


def _reasons(run: Run, outcome: Outcome) -> list[str]:
    """One line per reason, since one missing feature skips many tests."""
    groups: dict[tuple[str, str], dict[str, None]] = {}
    for test in run.tests:
        if test.outcome == outcome:
            groups.setdefault(_head(test), {})[test.id] = None
    lines: dict[str, list[str]] = {}
    for (head, name), tests in groups.items():
        words = f"{name} ({len(tests)} tests)" if name else _some(list(tests))
        lines.setdefault(head, []).append(words)
    return [f"{head} {', '.join(words)}" for head, words in lines.items()]


def _head(test: CaseResult) -> tuple[str, str]:
    """The start of the line for a test's reason, and the name that is listed after it.

    All missing attributes of a driver share one line, and so do missing parameters.
    """
    kind, _, name = test.skip.what.partition(":") if test.skip else ("", "", "")
    if test.skip and test.skip.lacking == "driver" and kind in ("attribute", "parameter"):
        return f"{test.driver} has no {kind}", name
    text = test.skip.text if test.skip else test.reason.partition("\n")[0]
    return f"{text}:", ""


def _some(tests: list[str]) -> str:
    return ", ".join(tests) if len(tests) <= NAMED else f"{len(tests)} tests"
