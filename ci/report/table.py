# SPDX-License-Identifier: GPL-2.0-or-later
"""A table as a value; `terminal` and `markdown` render it, `output.as_json` the data behind it.

A command builds one `Table` and does not know how it looks: a cell has a meaning (`Style`), not a
colour. Text of guests, logs and manifests is safe in it: the renderers make it printable.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

# good: as it should be; bad: a failure; note: worth a look; quiet: of little interest
Style = Literal["", "good", "bad", "note", "odd", "quiet"]


@dataclass(frozen=True)
class Column:
    """One column."""

    head: str
    right: bool = False  # aligned, for numbers
    whole: bool = False  # its cells are not broken into lines


@dataclass(frozen=True)
class Cell:
    """Text with a meaning."""

    text: str
    style: Style = ""


Head = Sequence[str | Column]
Row = Sequence[str | Cell]


@dataclass(frozen=True)
class Table:
    """Columns, rows and what stands below them."""

    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    footnotes: Sequence[str] = ()


def table(head: Head, rows: Iterable[Row], footnotes: Sequence[str] = ()) -> Table:
    """A table of texts, and of columns and cells where more is to be said of them."""
    return Table(
        [name if isinstance(name, Column) else Column(name) for name in head],
        [[cell if isinstance(cell, Cell) else Cell(cell) for cell in row] for row in rows],
        footnotes,
    )


class Footnotes:
    """Reasons that stand below a table once each, and in it as numbers."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def mark(self, reason: str) -> str:
        """What stands in the table: ``(1)``."""
        return f"({self._numbers.setdefault(reason, len(self._numbers) + 1)})"

    def lines(self) -> list[str]:
        """What stands below it."""
        return [f"{number}. {reason}" for reason, number in self._numbers.items()]
