# SPDX-License-Identifier: GPL-2.0-or-later
"""Tables as Markdown, for the pages that commands write."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from blockyard.ci.report.table import Cell, Table, table
from blockyard.kernel.host.progress import printable


def lines(content: Table) -> list[str]:
    """The lines of a table and of its footnotes; bad cells are bold."""
    found = [
        _line(column.head for column in content.columns),
        _line("---" for _ in content.columns),
        *(_line(map(_text, row)) for row in content.rows),
    ]
    return [*found, "", *content.footnotes] if content.footnotes else found


def simple(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """The lines of a table of texts."""
    return lines(table(head, rows))


def _text(cell: Cell) -> str:
    return f"**{cell.text}**" if cell.style == "bad" and cell.text else cell.text


def _line(cells: Iterable[str]) -> str:
    escaped = (printable(cell.replace("|", r"\|").replace("\n", " ")) for cell in cells)
    return f"| {' | '.join(escaped)} |"
