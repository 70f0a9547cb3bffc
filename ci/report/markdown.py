# SPDX-License-Identifier: GPL-2.0-or-later
"""Tables and runs as Markdown, for pages that commands write."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from blockyard.ci.report.run_table import run_table
from blockyard.ci.report.table import Cell, Table, table
from blockyard.ci.run.record import Run
from blockyard.kernel.host.progress import printable
from blockyard.tests.harness.outcomes import BAD


def lines(content: Table) -> list[str]:
    """The Markdown lines of a table and its footnotes; bad cells are bold."""
    rendered = [
        _line(column.head for column in content.columns),
        _line("---" for _ in content.columns),
        *(_line(map(_text, row)) for row in content.rows),
    ]
    return [*rendered, "", *content.footnotes] if content.footnotes else rendered


def simple(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """The Markdown lines of a table whose cells are plain texts."""
    return lines(table(head, rows))


def of_run(run: Run) -> str:
    """report.md of a run: its kernel, a table of outcomes, and each bad test with its reason."""
    kernel = run.kernel
    page = [f"# {kernel.name}: {kernel.release}", "", *lines(run_table(run))]
    bad = [
        [test.id, ", ".join(test.where), test.outcome, test.reason.partition("\n")[0]]
        for test in run.tests
        if test.outcome in BAD
    ]
    if bad:
        page += ["", *simple(["test", "where", "outcome", "reason"], bad)]
    return "\n".join(page) + "\n"


def _text(cell: Cell) -> str:
    return f"**{cell.text}**" if cell.style == "bad" and cell.text else cell.text


def _line(cells: Iterable[str]) -> str:
    escaped = (printable(cell.replace("|", r"\|").replace("\n", " ")) for cell in cells)
    return f"| {' | '.join(escaped)} |"
