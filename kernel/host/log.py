# SPDX-License-Identifier: GPL-2.0-or-later
"""Logging for ``-v`` and ``-vv``.

Each module has a logger of its own name. Without -v nothing is printed; messages for every user go
through `progress.note` and `progress.step`. INFO has the commands that are run, DEBUG the traffic
of consoles and QEMU's monitors.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable
from contextlib import AbstractContextManager

from blockyard.kernel.host import progress

ROOT = "blockyard"  # the parent of all our loggers
VARIABLE = "BLOCKYARD_VERBOSE"  # passes the verbosity to child processes
SHOWN = 400  # bytes of a message that -vv prints

Around = Callable[[], AbstractContextManager[None]]

_LEVELS = (logging.WARNING, logging.INFO, logging.DEBUG)
_FORMATS = {
    logging.INFO: "%(asctime)s.%(msecs)03d %(message)s",
    logging.DEBUG: "%(asctime)s.%(msecs)03d %(name)s: %(message)s",
}

logging.getLogger(ROOT).addHandler(logging.NullHandler())


class _Notes(logging.Handler):
    """Prints log records with `progress.note`."""

    def __init__(self, around: Around) -> None:
        super().__init__()
        self._around = around

    def emit(self, record: logging.LogRecord) -> None:
        """Prints a record; a record that cannot be written is dropped."""
        with self._around():
            progress.note(self.format(record))


def setup(verbosity: int, around: Around = contextlib.nullcontext) -> None:
    """Sets what is printed: 1 the commands that run, 2 also the traffic with guests, 0 nothing.

    around: a context in which stderr leads to the user. Child processes get the same verbosity by
    VARIABLE, see `inherit`. A later call replaces an earlier one.
    """
    level = _LEVELS[max(0, min(verbosity, len(_LEVELS) - 1))]
    logger = logging.getLogger(ROOT)
    for handler in [old for old in logger.handlers if isinstance(old, _Notes)]:
        logger.removeHandler(handler)
    if level == logging.WARNING:
        logger.setLevel(logging.NOTSET)
        os.environ.pop(VARIABLE, None)
        return
    handler = _Notes(around)
    handler.setFormatter(logging.Formatter(_FORMATS[level], datefmt="%H:%M:%S"))
    logger.addHandler(handler)
    logger.setLevel(level)
    os.environ[VARIABLE] = str(verbosity)


def inherit(around: Around = contextlib.nullcontext) -> None:
    """Takes the verbosity from VARIABLE: that of the parent process, or of an earlier `setup`."""
    verbosity = os.environ.get(VARIABLE, "")
    setup(int(verbosity) if verbosity.isdecimal() and verbosity.isascii() else 0, around)


def shown(data: bytes) -> str:
    """Bytes from a guest as one readable line: text unchanged, the rest escaped, cut at SHOWN."""
    text = data[:SHOWN].replace(b"\\", b"\\\\").decode("utf-8", errors="backslashreplace")
    line = text.replace("\n", "\\n").replace("\r", "\\r")
    more = f" ... ({len(data)} bytes)" if len(data) > SHOWN else ""
    return progress.printable(f"{line}{more}")
