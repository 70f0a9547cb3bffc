# SPDX-License-Identifier: GPL-2.0-or-later
"""Standard input, output and error, in whatever state they were handed to us.

A daemon closes them, a pipe's reader goes away, a terminal hangs up, a disk fills up. What a
command has found out must not be lost for that.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
from typing import Any, TextIO

_MODES = {"stdin": "r", "stdout": "w", "stderr": "w"}
# A later write may succeed; anything else (no reader, no terminal) stays as it is.
_PASSING = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EAGAIN)
STDOUT = "standard output"


class _Output(io.FileIO):
    """Standard output, whose errors can be told from those of other files: by their filename."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError as error:
            error.filename = STDOUT
            raise


def prepare() -> None:
    """To be called first: what is closed is opened again, and no letter stops us.

    A file that we open would get the number of a closed one, and have our messages written to it.
    """
    for number, (name, mode) in enumerate(_MODES.items()):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free: this one
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, closefd=False))
    # whose letters are replaced where the locale has not got them
    sys.stdout = io.TextIOWrapper(
        io.BufferedWriter(_Output(1, "w", closefd=False)),
        encoding=sys.stdout.encoding,
        errors="backslashreplace",
        line_buffering=bool(sys.stdout.line_buffering),
    )


def write(text: str, stream: TextIO) -> None:
    """Writes a line of progress or an error; one that cannot be shown is dropped.

    A stream that nobody reads any more is silent from then on, for programs that we start, too.
    """
    try:
        print(text, file=stream, flush=True)
    except ValueError:  # it was closed
        return
    except OSError as error:
        if error.errno not in _PASSING:
            silence(stream)


def silence(stream: TextIO) -> None:
    """Lets a stream's descriptor lead nowhere."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def broken(stream: TextIO) -> OSError | None:
    """Why what was printed cannot be written, or None when it was."""
    try:
        stream.flush()
    except OSError as error:
        return error
    return None


def is_output(error: OSError) -> bool:
    """Whether it came from writing to standard output."""
    return bool(error.filename == STDOUT)


def close() -> None:
    """To be called last: what cannot be written is given up, or Python would end with 120."""
    for stream in (sys.stdout, sys.stderr):
        if broken(stream):
            silence(stream)
