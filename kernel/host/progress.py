# SPDX-License-Identifier: GPL-2.0-or-later
"""A line of progress for everything that takes long, on stderr so that stdout stays data.

On a terminal a running step shows a spinner with its seconds; elsewhere (CI, a pipe) each step
prints a line when it starts to take long and one when it is done. Quick steps print nothing.
"""

from __future__ import annotations

import re
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kernel.host import redact

QUIET_S = 1.0  # a step that ends within this time leaves no trace


_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # all but tab and newline
_COMMAND = re.compile(r"^(\s*):(?=:)", re.MULTILINE)


def printable(text: str) -> str:
    """What a guest or a log may have said, for a terminal and for the log of a CI job.

    Both take orders: by escape sequences, and by lines that begin with two colons (GitHub's
    workflow commands). Here they are only read. Secrets in URLs are hidden.
    """
    plain = _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", redact.text(text))
    return _COMMAND.sub(r"\1\\x3a", plain)


def note(text: str) -> None:
    """One line for the user, at once."""
    print(printable(text), file=sys.stderr, flush=True)


@contextmanager
def step(what: str, *, log: Path | None = None) -> Iterator[None]:
    """Shows `what` while the block runs, and how long it took when it was long."""
    begun = time.monotonic()
    where = f" (log: {log})" if log else ""
    with _spinner(what) if sys.stderr.isatty() else _announcement(what + where):
        yield
    seconds = time.monotonic() - begun
    if seconds > QUIET_S:
        note(f"{what}: {seconds:.0f} s")


@contextmanager
def _announcement(text: str) -> Iterator[None]:
    timer = threading.Timer(QUIET_S, note, [f"{text} ..."])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


@contextmanager
def _spinner(what: str) -> Iterator[None]:
    stopped = threading.Event()

    def show() -> None:
        from rich.console import Console
        from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
        with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
            progress.add_task(what, total=None)
            stopped.wait()

    def show_when_slow() -> None:
        if not stopped.wait(QUIET_S):
            show()

    thread = threading.Thread(target=show_when_slow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()
