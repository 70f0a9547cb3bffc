# SPDX-License-Identifier: GPL-2.0-or-later
"""Progress messages on stderr; stdout is for data.

On a terminal a running step shows a spinner with its seconds. Elsewhere (CI, a pipe) a step prints
a line after `QUIET_S` seconds and another when it is done. Quick steps print nothing.
"""

from __future__ import annotations

import contextlib
import re
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from blockyard.kernel.host import redact, streams

QUIET_S = 1.0  # a step that is done within this time prints nothing

# Characters that a terminal obeys or does not show: controls (all but tab and newline), direction
# marks, zero-width spaces, line separators, invisible letters, surrogates.
_UNSEEN = (
    r"\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f"
    r"\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164\ufeff\uffa0\ufff0-\ufffb\ud800-\udfff"
    r"\U000e0000-\U000e0fff"
)
# Workflow commands of CI runners: "::" at the beginning of a line (GitHub), "##[" and "##vso["
# anywhere in it (GitHub's older form, Azure, TeamCity). The patterns take linear time, since the
# text may be hostile.
_SPACE = r" \t\xa0\u1680\u2000-\u200a\u202f\u205f\u3000"
_ORDER = re.compile(rf"[{_UNSEEN}]|^[{_SPACE}]*:(?=:)|#(?=#\w*\[)", re.MULTILINE)
_ORDER_IN_JSON = re.compile(rf"[{_UNSEEN}]|#(?=#\w*\[)")


def printable(text: str) -> str:
    """Text of a guest, a log or a patch, made safe for a terminal and for the log of a CI job.

    Escapes control sequences, invisible characters and workflow commands; hides secrets in URLs.
    """
    return _ORDER.sub(_escaped, redact.text(text))


def printable_json(text: str) -> str:
    r"""The same for JSON text: such characters become ``\u001b``, which keeps the value."""
    return _ORDER_IN_JSON.sub(_escaped_in_json, text)


def _escaped(match: re.Match[str]) -> str:
    space, letter = match[0][:-1], ord(match[0][-1])
    width, prefix = (2, "x") if letter < 0x100 else (4, "u") if letter < 0x10000 else (8, "U")
    return f"{space}\\{prefix}{letter:0{width}x}"


def _escaped_in_json(match: re.Match[str]) -> str:
    units = match[0].encode("utf-16-be", errors="surrogatepass")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))


def note(text: str, stream: TextIO | None = None) -> None:
    """Prints a line for the user on stderr, or on `stream`. Raises nothing."""
    streams.write(printable(text), stream or sys.stderr)


@contextmanager
def step(what: str, *, log: Path | None = None) -> Iterator[None]:
    """Shows `what` while the block runs, and how long it took if that was over `QUIET_S`."""
    started = time.monotonic()
    spinner = contextlib.ExitStack()
    where = f" (log: {log})" if log else ""
    if sys.stderr.isatty():
        timer = threading.Timer(QUIET_S, _spin, [what, spinner])
    else:
        timer = threading.Timer(QUIET_S, note, [f"{what}{where} ..."])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
        with _without_terminal():
            spinner.close()
    seconds = time.monotonic() - started
    if seconds > QUIET_S:
        note(f"{what}: {seconds:.0f} s")


def _spin(what: str, stack: contextlib.ExitStack) -> None:
    """Starts a spinner with its seconds (rich.status has none); closing `stack` ends it."""
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    text = TextColumn("{task.description}", markup=False)
    columns = (SpinnerColumn(), text, TimeElapsedColumn())
    progress = Progress(*columns, console=Console(stderr=True), transient=True)
    progress.add_task(printable(what), total=None)
    with _without_terminal():
        stack.enter_context(progress)


def _without_terminal() -> contextlib.suppress:
    """Ignores errors of a lost terminal; rich raises SystemExit on a broken pipe."""
    return contextlib.suppress(OSError, SystemExit)
