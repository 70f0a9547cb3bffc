# SPDX-License-Identifier: GPL-2.0-or-later
"""What all commands print in one way.

Text that is not ours (of guests, logs, patches, manifests, configurations) goes through `say`,
`plain` or `as_json`: it is read, never obeyed by a terminal, a CI's runner or rich.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from blockyard.kernel.host import store
from blockyard.kernel.host.progress import note, printable, printable_json

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

PIPE_COLUMNS = 120  # a pipe has no width


def as_json(value: object) -> str:
    """JSON for scripts and for people: any text stays what it is, and is safe to look at."""
    text = msgspec.json.format(msgspec.json.encode(value), indent=2).decode()
    return printable_json(text)


def say(text: str) -> None:
    """A line of a command's answer, on stdout."""
    print(printable(text))


def plain(text: str, style: str = "") -> Text:
    """The same for rich, which takes orders, too: ``[link=...]``, ``:bug:``.

    Also for the cells of a table, where a line may begin anywhere: no "::" is left in them.
    """
    from rich.text import Text

    return Text(printable(text).replace("::", "\\x3a:"), style=style)


def console() -> Console:
    """rich's, for what `plain` made and for words of ours.

    Lines are as long as they have to be: those that were broken cannot be copied.
    """
    from rich.console import Console

    class Plain(Console):
        def on_broken_pipe(self) -> None:  # rich ends the process, as if a test had failed
            raise  # noqa: PLE0704  # it is called where the error is handled

    width = None if sys.stdout.isatty() else PIPE_COLUMNS
    return Plain(highlight=False, soft_wrap=True, width=width)


def write_page(path: Path, text: str) -> None:
    """Writes a page of docs/ that a command makes, and says so."""
    store.write(path, text.encode())
    note(f"written to {path}")
