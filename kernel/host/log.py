# SPDX-License-Identifier: GPL-2.0-or-later
"""What Blockyard does while it does it, for those who ask: ``-v`` and ``-vv``.

Each module logs with a logger of its own name. Without -v nothing of it is printed; the lines that
everybody gets are `progress.note` and `progress.step`. INFO has the commands that are run, DEBUG
what consoles and QEMU's monitors send and receive.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable
from contextlib import AbstractContextManager

from blockyard.kernel.host import progress

ROOT = "blockyard"  # the logger above all of ours
VARIABLE = "BLOCKYARD_VERBOSE"  # the verbosity, for processes that are started from here
SHOWN = 400  # bytes of a message that are printed with -vv

Around = Callable[[], AbstractContextManager[None]]

_LEVELS = (logging.WARNING, logging.INFO, logging.DEBUG)
_FORMATS = {
    logging.INFO: "%(asctime)s.%(msecs)03d %(message)s",
    logging.DEBUG: "%(asctime)s.%(msecs)03d %(name)s: %(message)s",
}

logging.getLogger(ROOT).addHandler(logging.NullHandler())


class _Notes(logging.Handler):
    """Prints records as notes: on stderr, beside the lines of progress."""

    def __init__(self, around: Around) -> None:
        super().__init__()
        self._around = around

    def emit(self, record: logging.LogRecord) -> None:
        """Prints one record; what cannot be written is dropped."""
        with self._around():
            progress.note(self.format(record))


def setup(verbosity: int, around: Around = contextlib.nullcontext) -> None:
    """Prints commands as they run (1), also the traffic with guests (2), or neither (0).

    around: a block in which stderr leads to the user. Processes that are started from here get the
    same verbosity by VARIABLE, see `inherit`. A later call replaces an earlier one.
    """
    level = _LEVELS[max(0, min(verbosity, len(_LEVELS) - 1))]
    logger = logging.getLogger(ROOT)
    for handler in [one for one in logger.handlers if isinstance(one, _Notes)]:
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
    """Does what the process that started this one was asked for, or this one so far."""
    verbosity = os.environ.get(VARIABLE, "")
    setup(int(verbosity) if verbosity.isdecimal() and verbosity.isascii() else 0, around)


def shown(data: bytes) -> str:
    """Bytes of a guest as one readable line: text as it is, all else escaped, cut at SHOWN."""
    text = data[:SHOWN].replace(b"\\", b"\\\\").decode("utf-8", errors="backslashreplace")
    line = text.replace("\n", "\\n").replace("\r", "\\r")
    more = f" ... ({len(data)} bytes)" if len(data) > SHOWN else ""
    return progress.printable(f"{line}{more}")
