# SPDX-License-Identifier: GPL-2.0-or-later
"""Standard input, output and error that may be closed or broken.

A daemon closes them, a pipe's reader exits, a terminal hangs up, a disk fills up. A command must
not lose its results because of that.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
from typing import Any, TextIO

_MODES = {"stdin": "r", "stdout": "w", "stderr": "w"}
# After these a later write may succeed; other errors (no reader, no terminal) are permanent.
_TEMPORARY = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EAGAIN)
STDOUT = "standard output"


class _Output(io.FileIO):
    """Standard output; its errors have the filename `STDOUT`, see `is_output`."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError as error:
            error.filename = STDOUT
            raise


def prepare() -> None:
    """Opens closed streams on /dev/null, and escapes characters that stdout cannot encode.

    Call it first: otherwise a file that we open later gets descriptor 1 or 2, and our messages.
    """
    for number, (name, mode) in enumerate(_MODES.items()):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number: this one
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, closefd=False))
    # backslashreplace: for characters that the locale's encoding lacks
    sys.stdout = io.TextIOWrapper(
        io.BufferedWriter(_Output(1, "w", closefd=False)),
        encoding=sys.stdout.encoding,
        errors="backslashreplace",
        line_buffering=bool(sys.stdout.line_buffering),
    )


def write(text: str, stream: TextIO) -> None:
    """Prints a line of progress or an error; drops it when it cannot be written.

    A stream without a reader is then redirected to /dev/null, for our child processes as well.
    """
    try:
        print(text, file=stream, flush=True)
    except ValueError:  # it was closed
        return
    except OSError as error:
        if error.errno not in _TEMPORARY:
            silence(stream)


def silence(stream: TextIO) -> None:
    """Redirects a stream's descriptor to /dev/null."""
    with contextlib.suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)


def broken(stream: TextIO) -> OSError | None:
    """The error of flushing a stream; None when all of it was written."""
    try:
        stream.flush()
    except OSError as error:
        return error
    return None


def is_output(error: OSError) -> bool:
    """Whether an error comes from writing to standard output."""
    return bool(error.filename == STDOUT)


def close() -> None:
    """Drops output that cannot be written; call it last, or Python would exit with 120."""
    for stream in (sys.stdout, sys.stderr):
        if broken(stream):
            silence(stream)
