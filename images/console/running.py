# SPDX-License-Identifier: GPL-2.0-or-later
"""A command that runs in a guest, for those who follow its output."""

from __future__ import annotations

import codecs
from collections.abc import Generator, Iterator

from blockyard.images.console.result import Result


class Running:
    """A command that runs: its output as it comes, and its result when it has ended."""

    def __init__(self, pieces: Generator[bytes, None, Result]) -> None:
        self._pieces = pieces
        self._result: Result | None = None
        self.begun = False  # the guest has been asked

    def __iter__(self) -> Iterator[bytes]:
        """Pieces of the output, as soon as they are printed."""
        return self

    def __next__(self) -> bytes:
        self.begun = True
        try:
            return next(self._pieces)
        except StopIteration as stop:
            self._result = self._result or stop.value
            raise

    def lines(self) -> Iterator[str]:
        """The output line by line, without newlines; a last line may lack its own."""
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        held = ""
        for piece in self:
            *lines, held = (held + decoder.decode(piece)).split("\n")
            yield from lines
        held += decoder.decode(b"", final=True)
        if held:
            yield held

    def result(self) -> Result:
        """What became of the command; waits for its end."""
        for _ in self:
            pass
        assert self._result is not None
        return self._result

    @property
    def ended(self) -> bool:
        """Whether the command has ended."""
        return self._result is not None
