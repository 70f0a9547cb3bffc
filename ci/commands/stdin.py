# SPDX-License-Identifier: GPL-2.0-or-later
"""Standard input for the command of `./inv boot --run`.

A thread reads it while the guest boots, up to a limit, and the guest gets all of it at once. A
terminal is not read. A pipe without data is not waited for, and a message says so.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from dataclasses import dataclass, field

from blockyard.kernel.host.errors import UsageError
from blockyard.kernel.host.progress import note

LIMIT = 256 << 20  # bytes; the guest keeps it in memory
FIRST_S = 1.0  # to wait for the first byte once the guest is up
END_S = 600.0  # to wait for the end


@dataclass
class Input:
    """Standard input, read by a thread."""

    descriptor: int
    _pieces: list[bytes] = field(default_factory=list)
    _size: int = 0
    _started: threading.Event = field(default_factory=threading.Event)
    _finished: threading.Event = field(default_factory=threading.Event)

    def read(self) -> None:
        """Reads until the end, or until it has more than LIMIT."""
        while self._size <= LIMIT:
            try:
                piece = os.read(self.descriptor, 1 << 20)
            except OSError:  # closed, or a folder
                break
            if not piece:
                break
            self._pieces.append(piece)
            self._size += len(piece)
            self._started.set()
        self._started.set()
        self._finished.set()

    def data(self) -> bytes:
        """All input; b"" when nothing comes. Raises UsageError for too much, or without an end."""
        if not self._started.wait(FIRST_S):
            note("no data on standard input: the command gets none (</dev/null avoids the wait)")
            return b""
        deadline = time.monotonic() + END_S
        while not self._finished.wait(1.0):
            if time.monotonic() > deadline:
                raise UsageError(
                    f"standard input has no end after {END_S:.0f} s",
                    hint="write it to a file, then use < FILE",
                )
        if self._size > LIMIT:
            raise UsageError(f"more than {LIMIT >> 20} MiB on standard input")
        return b"".join(self._pieces)


def begin() -> Input | None:
    """Starts to read standard input; None when it is a terminal or closed."""
    try:
        descriptor = sys.stdin.fileno()
        if os.isatty(descriptor):
            return None
    except (AttributeError, ValueError, OSError):
        return None
    piped = Input(descriptor)
    threading.Thread(target=piped.read, daemon=True).start()
    return piped
