# SPDX-License-Identifier: GPL-2.0-or-later
"""A running command in a guest, whose output can be read while it is printed."""

from __future__ import annotations

import codecs
from collections.abc import Generator, Iterator

from blockyard.images.console.result import Result


class Running:
    """A running command: iterate over its output, then ask for its result."""

    def __init__(self, pieces: Generator[bytes, None, Result]) -> None:
        self._pieces = pieces
        self._result: Result | None = None
        self.started = False  # whether the command was sent to the guest

    def __iter__(self) -> Iterator[bytes]:
        """Pieces of the output, as they are printed."""
        return self

    def __next__(self) -> bytes:
        self.started = True
        try:
            return next(self._pieces)
        except StopIteration as stop:
            self._result = self._result or stop.value
            raise

    def lines(self) -> Iterator[str]:
        """The output line by line, without newlines; the last line need not end in one."""
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        held = ""
        for piece in self:
            *lines, held = (held + decoder.decode(piece)).split("\n")
            yield from lines
        held += decoder.decode(b"", final=True)
        if held:
            yield held

    def result(self) -> Result:
        """Waits for the end of the command; its exit code and the output."""
        for _ in self:
            pass
        assert self._result is not None
        return self._result

    def close(self) -> None:
        """Stops reading; what was not read yet stays in the console's buffer."""
        self._pieces.close()

    @property
    def finished(self) -> bool:
        """Whether the command has ended and its exit code is known."""
        return self._result is not None
