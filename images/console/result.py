# SPDX-License-Identifier: GPL-2.0-or-later
"""Output and exit code of a command in the guest. Long output goes to a file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

MEMORY_LIMIT = 64 << 20  # bytes of output kept in memory
FILE_LIMIT = 4 << 30  # bytes of output kept in a file; a command that prints more is killed


@dataclass(frozen=True)
class Result:
    """Result of a command in the guest."""

    exit_code: int  # as a shell reports it: 128 + signal when killed
    data: bytes  # stdout and stderr, interleaved; cut after MEMORY_LIMIT, with a note at the end
    seconds: float  # how long the command took, on the host's clock
    file: Path | None = None  # the complete output when `data` was cut

    @property
    def output(self) -> str:
        """`data` as text; invalid UTF-8 is replaced by U+FFFD."""
        return self.data.decode(errors="replace")

    def whole(self) -> bytes:
        """The complete output, also when `data` was cut."""
        return self.file.read_bytes() if self.file else self.data


class Capture:
    """Collects output. `path`: the file for output longer than MEMORY_LIMIT."""

    def __init__(self, path: Path) -> None:
        self.size = 0  # bytes so far
        self._path = path
        self._limit = MEMORY_LIMIT
        self._pieces: list[bytes] = []
        self._file: BinaryIO | None = None

    def add(self, piece: bytes) -> None:
        """Appends output; raises OverflowError past FILE_LIMIT."""
        self.size += len(piece)
        if self.size > FILE_LIMIT:
            raise OverflowError
        if self._file is None and self.size > self._limit:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = open(self._path, "wb")  # noqa: SIM115 - closed by close()
            self._file.writelines(self._pieces)
        if self._file is None:
            self._pieces.append(piece)
        else:
            self._file.write(piece)

    def tail(self, lines: int = 5) -> str:
        """The last lines so far, for an error message; empty when there are none."""
        text = self._pieces[-1][-2000:].decode(errors="replace") if self._pieces else ""
        quoted = "\n".join(f"    {line}" for line in text.splitlines()[-lines:])
        return f"\n  its last output:\n{quoted}" if quoted else ""

    def close(self) -> None:
        """Closes the file; the collected output stays."""
        if self._file is not None:
            self._file.close()

    def result(self, exit_code: int, seconds: float) -> Result:
        """Closes the capture; the result of the finished command."""
        self.close()
        data = b"".join(self._pieces)
        if self._file is None:
            return Result(exit_code, data, seconds)
        with open(self._path, "rb") as file:
            data = file.read(self._limit)
        mark = f"\n[cut after {self._limit} of {self.size} bytes; all of it: {self._path}]\n"
        return Result(exit_code, data + mark.encode(), seconds, self._path)
