# SPDX-License-Identifier: GPL-2.0-or-later
"""Standard input for the command of `./inv boot --run`, as a shell would give it.

What is piped in is read while the guest boots, up to a limit: the guest gets it whole. A terminal
is not read. A pipe that nobody writes to is not waited for, and that is said.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from dataclasses import dataclass, field

from blockyard.kernel.host.errors import UsageError
from blockyard.kernel.host.progress import note

LIMIT = 256 << 20  # bytes; the guest holds it in memory
FIRST_S = 1.0  # after the guest's start; a pipe that is silent for longer is not waited for
END_S = 600.0  # and one that has begun ends within this


@dataclass
class Input:
    """What comes on standard input, read by a thread."""

    descriptor: int
    _pieces: list[bytes] = field(default_factory=list)
    _size: int = 0
    _begun: threading.Event = field(default_factory=threading.Event)
    _ended: threading.Event = field(default_factory=threading.Event)

    def read(self) -> None:
        """Reads up to the end, or a little more than LIMIT."""
        while self._size <= LIMIT:
            try:
                piece = os.read(self.descriptor, 1 << 20)
            except OSError:  # closed, or a folder
                break
            if not piece:
                break
            self._pieces.append(piece)
            self._size += len(piece)
            self._begun.set()
        self._begun.set()
        self._ended.set()

    def data(self) -> bytes:
        """All of it; UsageError when it is too much or has no end. A silent one gives nothing."""
        if not self._begun.wait(FIRST_S):
            note("standard input is open and nothing comes: the command gets none (</dev/null)")
            return b""
        deadline = time.monotonic() + END_S
        while not self._ended.wait(1.0):
            if time.monotonic() > deadline:
                raise UsageError(
                    f"standard input has no end after {END_S:.0f} s",
                    hint="write it to a file, and give that: < FILE",
                )
        if self._size > LIMIT:
            raise UsageError(f"more than {LIMIT >> 20} MiB on standard input")
        return b"".join(self._pieces)


def begin() -> Input | None:
    """Begins to read standard input; None when it is a terminal, or closed."""
    try:
        descriptor = sys.stdin.fileno()
        if os.isatty(descriptor):
            return None
    except (AttributeError, ValueError, OSError):
        return None
    coming = Input(descriptor)
    threading.Thread(target=coming.read, daemon=True).start()
    return coming
