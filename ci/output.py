# SPDX-License-Identifier: GPL-2.0-or-later
"""Output of all commands: lines, JSON, tables and pages.

Text from others (guests, logs, patches, manifests, configurations) goes through `say`, `plain` or
`as_json`, which escape control sequences of terminals, of CI runners and of rich.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from blockyard.kernel.host import store
from blockyard.kernel.host.errors import UsageError
from blockyard.kernel.host.progress import note, printable, printable_json
from blockyard.kernel.host.settings import user_path

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

PIPE_COLUMNS = 120  # width of tables when stdout is not a terminal


def as_json(value: object) -> str:
    """A value as indented JSON, with control characters escaped."""
    text = msgspec.json.format(msgspec.json.encode(value), indent=2).decode()
    return printable_json(text)


def say(text: str) -> None:
    """Prints a line of a command's answer to stdout, with control characters escaped."""
    print(printable(text))


def plain(text: str, style: str = "") -> Text:
    """Text for rich, without its markup (``[link=...]``, ``:bug:``).

    "::" is escaped everywhere, because a cell of a table may start a line.
    """
    from rich.text import Text

    return Text(printable(text).replace("::", "\\x3a:"), style=style)


def console() -> Console:
    """A console of rich, for text from `plain` and for our own.

    It does not wrap lines, so that they can be copied.
    """
    from rich.console import Console

    class Plain(Console):
        def on_broken_pipe(self) -> None:  # rich would exit with 1, as if a test had failed
            raise  # noqa: PLE0704  # called in an except block

    width = None if sys.stdout.isatty() else PIPE_COLUMNS
    return Plain(highlight=False, soft_wrap=True, width=width)


def page_file(own: Path, *, write: bool, output: str) -> Path | None:
    """The file for a command's page: that of --output, with --write our own, else None.

    Raises UsageError for both options, and for a folder that does not exist.
    """
    if not output:
        return own if write else None
    if write:
        raise UsageError(f"--write and --output {output}: one page goes to one file")
    path = user_path(output, "--output")
    if not path.parent.is_dir():
        raise UsageError(f"--output {output}: the folder {path.parent} does not exist")
    return path


def write_page(path: Path, text: str) -> None:
    """Writes the page of a command and prints its path."""
    store.write(path, text.encode())
    note(f"written to {path}")
