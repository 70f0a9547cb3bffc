# SPDX-License-Identifier: GPL-2.0-or-later
"""Reads the kernel log while QEMU writes it.

QEMU appends what the guest prints on ttyS0 to a file. Checks for a panic or a damaged image read
only what is new since the last check. On a port that the console shares, the console's lines are
skipped.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path

# "[    1.234567] text"; a console never gets the syslog level in front of it
_STAMP = re.compile(r"^\[ *\d+\.\d+\](?:\[ *[TC]\d+\])? ", re.MULTILINE)

# `wait_for` sleeps this long, then twice as long, and so on up to the second value.
FIRST_LOOK_S = 0.001
LAST_LOOK_S = 0.1

PANIC = b"Kernel panic - not syncing"
LINE_MAX = 1024  # bytes that are read again: the last check may have cut a line in two

# The kernel's messages when it cannot read the guest root (vda) or the module image (vdb); see
# block/blk-core.c and fs/erofs.
_DAMAGE = re.compile(
    rb"(?:erofs \(device vd[ab]\): (?!mounted)|I/O error, dev vd[ab],? |vd[ab]: rw=)[^\n]{0,200}"
)


# A kernel line starts with "[" (printk.time=1), possibly in the middle of a console line.
_RECORD = re.compile(rb"\[[^\n]*\n?")


class KernelLog:
    """A growing log file. Offsets are bytes from its start.

    shared: the file also has the console's lines (images.console.shared_port).
    """

    def __init__(self, path: Path, *, shared: bool = False) -> None:
        self.path = path
        self._shared = shared
        self._searched = 0  # offset up to which `panicked` has searched
        self._read = 0  # offset up to which `damage` has searched
        self._begin = 0
        self._requested: list[tuple[int, int]] = []  # start and end

    @property
    def size(self) -> int:
        """Bytes in the log now; 0 before QEMU has made the file."""
        try:
            return self.path.stat().st_size
        except FileNotFoundError:
            return 0

    def text(self, start: int = 0, end: int | None = None) -> str:
        """The log from `start` to `end` (default: its current end), with plain newlines."""
        try:
            with open(self.path, "rb") as file:
                file.seek(start)
                data = file.read() if end is None else file.read(end - start)
        except FileNotFoundError:
            return ""
        if self._shared:
            data = b"".join(_RECORD.findall(data))
        return data.decode(errors="replace").replace("\r\n", "\n")

    def begin(self) -> None:
        """Marks the current end of the log, for `since_begin`."""
        self._begin = self.size

    def since_begin(self, lines: int = 40) -> str:
        """The last lines since the last `begin`, without those that we requested."""
        end = self.size
        start = max(self._begin, end - 65536)
        return "\n".join(self.unrequested(start, end).splitlines()[-lines:])

    def mark_requested(self, start: int, end: int) -> None:
        """Marks text that the kernel printed on our request (SysRq), for `unrequested`."""
        self._requested.append((start, end))

    def unrequested(self, start: int, end: int) -> str:
        """The log between two offsets as in `text`, without the parts that we requested."""
        pieces = []
        for first, last in self._requested:
            if start < last and first < end:
                pieces.append(self.text(start, max(start, first)))
                start = last
        return "".join([*pieces, self.text(start, max(start, end))])

    def tail(self, lines: int = 25) -> str:
        """The last lines, for a message; after a panic, the lines from the panic on."""
        text = self.text(max(0, self.size - 16384))
        panic = text.rfind(PANIC.decode())
        if panic >= 0:
            return "\n".join(text[text.rfind("\n", 0, panic) + 1 :].splitlines()[: 2 * lines])
        return "\n".join(text.splitlines()[-lines:])

    def damage(self) -> str:
        """The first new line since the last call that reports an unreadable image, or ""."""
        if (size := self.size) == self._read:
            return ""
        with open(self.path, "rb") as file:
            file.seek(max(0, self._read - LINE_MAX))
            match = _DAMAGE.search(file.read())
        self._read = size
        return match[0].decode(errors="replace").strip() if match else ""

    def panicked(self) -> bool:
        """Whether the kernel has panicked since the last call."""
        size = self.size
        if size == self._searched:
            return False
        with open(self.path, "rb") as file:
            file.seek(max(0, self._searched - len(PANIC)))
            panicked = PANIC in file.read()
        self._searched = size
        return panicked

    def wait_for(
        self,
        text: str,
        start: int,
        timeout_s: float,
        watch: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> int | None:
        """Waits for a line with `text` after the offset `start`; the offset of that line's end.

        None when it did not appear within timeout_s, on `clock`. `watch` is called meanwhile; it
        raises an error when the machine has failed.
        """
        needle = text.encode()
        deadline = clock() + timeout_s
        pause_s = FIRST_LOOK_S
        while True:
            with open(self.path, "rb") as file:
                file.seek(start)
                data = file.read()
            at = data.find(needle)
            end = data.find(b"\n", at)
            if at >= 0 and end >= 0:
                return start + end + 1
            if clock() > deadline:
                return None
            if pause_s >= LAST_LOOK_S:
                watch()
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, LAST_LOOK_S)


def without_stamps(text: str) -> str:
    """The log without the time stamps, so that two logs can be compared."""
    return _STAMP.sub("", text)
