# SPDX-License-Identifier: GPL-2.0-or-later
"""A table as a value, rendered by `terminal` and `markdown`.

A cell has a meaning (`Style`), not a colour. Its text may come from guests, logs and manifests: the
renderers escape control characters.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

# good: as it should be; bad: a failure; note: worth a look; quiet: of little interest
Style = Literal["", "good", "bad", "note", "odd", "quiet"]


@dataclass(frozen=True)
class Column:
    """A column of a table: its heading and how its cells are set."""

    head: str
    right: bool = False  # right-aligned, for numbers
    whole: bool = False  # cells are never wrapped


@dataclass(frozen=True)
class Cell:
    """Text of a cell, and what it means."""

    text: str
    style: Style = ""


Head = Sequence[str | Column]
Row = Sequence[str | Cell]


@dataclass(frozen=True)
class Table:
    """Columns, rows, and lines to print below them."""

    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    footnotes: Sequence[str] = ()


def table(head: Head, rows: Iterable[Row], footnotes: Sequence[str] = ()) -> Table:
    """Makes a `Table`; plain strings become columns and cells with defaults."""
    return Table(
        [name if isinstance(name, Column) else Column(name) for name in head],
        [[cell if isinstance(cell, Cell) else Cell(cell) for cell in row] for row in rows],
        footnotes,
    )


class Footnotes:
    """Numbers the reasons of a table: each is printed once below it, and cited as ``(1)``."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def mark(self, reason: str) -> str:
        """The citation of a reason, such as ``(1)``; a new reason gets the next number."""
        return f"({self._numbers.setdefault(reason, len(self._numbers) + 1)})"

    def lines(self) -> list[str]:
        """The numbered reasons, in order."""
        return [f"{number}. {reason}" for reason, number in self._numbers.items()]
