# SPDX-License-Identifier: GPL-2.0-or-later
"""What all commands print in one way."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from kernel.host import store
from kernel.host.progress import note


def as_json(value: object) -> str:
    """JSON for scripts and for people."""
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode()


def write_page(path: Path, text: str) -> None:
    """Writes a page of docs/ that a command makes, and says so."""
    store.write(path, text.encode())
    note(f"written to {path}")


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """The lines of a table."""
    return [_line(head), _line(["---"] * len(head)), *map(_line, rows)]


def _line(cells: Sequence[str]) -> str:
    escaped = (cell.replace("|", r"\|").replace("\n", " ") for cell in cells)
    return f"| {' | '.join(escaped)} |"


class Notes:
    """Reasons that stand below a table once each, and in it as numbers."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def mark(self, reason: str) -> str:
        """What stands in the table."""
        return f"({self._numbers.setdefault(reason, len(self._numbers) + 1)})"

    def lines(self) -> list[str]:
        """What stands below it."""
        return [f"{number}. {reason}" for reason, number in self._numbers.items()]
