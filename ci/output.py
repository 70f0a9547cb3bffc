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
from blockyard.kernel.host.errors import UsageError
from blockyard.kernel.host.progress import note, printable, printable_json
from blockyard.kernel.host.settings import user_path

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


def page_file(own: Path, *, write: bool, output: str) -> Path | None:
    """Where a command writes its page: the file of --output, with --write our own, else nowhere.

    Raises UsageError for both, and for a file in a folder that does not exist.
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
    """Writes a page that a command makes, and says so."""
    store.write(path, text.encode())
    note(f"written to {path}")
