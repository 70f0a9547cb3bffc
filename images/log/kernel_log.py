# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel's log, read while QEMU writes it.

QEMU appends what the guest prints on ttyS0 to a file. This class reads on from where it was, so
that watching a log costs as much as what is new in it. On a port that the console shares, the
console's lines are left out.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path

# "[    1.234567] text"; a syslog level in front never reaches a console
_STAMP = re.compile(r"^\[ *\d+\.\d+\](?:\[ *[TC]\d+\])? ", re.MULTILINE)

# A line is looked for after this long, then after twice that, and so on.
FIRST_LOOK_S = 0.001
LAST_LOOK_S = 0.1

PANIC = b"Kernel panic - not syncing"
LINE_MAX = 1024  # bytes; a line of the kernel's that is cut in two by a look at the log

# What it says when it cannot read the guest's root (vda) or its modules (vdb); see block/blk-core.c
# and fs/erofs.
_DAMAGE = re.compile(
    rb"(?:erofs \(device vd[ab]\): (?!mounted)|I/O error, dev vd[ab],? |vd[ab]: rw=)[^\n]{0,200}"
)


# What the kernel prints on a port begins with a bracket, wherever it cuts in (printk.time=1).
_RECORD = re.compile(rb"\[[^\n]*\n?")


class KernelLog:
    """A growing log file. Offsets are bytes from its start.

    shared: the console's lines are in it too (images.console.shared_port).
    """

    def __init__(self, path: Path, *, shared: bool = False) -> None:
        self.path = path
        self._shared = shared
        self._searched = 0
        self._read = 0  # up to here `damage` has looked
        self._begun = 0
        self._asked: list[tuple[int, int]] = []

    @property
    def size(self) -> int:
        """How much there is now."""
        try:
            return self.path.stat().st_size
        except FileNotFoundError:
            return 0

    def text(self, start: int = 0, end: int | None = None) -> str:
        """The log from `start` to `end` (to now), with plain newlines."""
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
        """Notes that something begins here: see `since_begin`."""
        self._begun = self.size

    def since_begin(self, lines: int = 40) -> str:
        """The last lines since the last `begin`, but for what the kernel was asked to say."""
        end = self.size
        start = max(self._begun, end - 65536)
        return "\n".join(self.unasked(start, end).splitlines()[-lines:])

    def asked_for(self, start: int, end: int) -> None:
        """Notes that the kernel has said this because it was asked to: see `unasked`."""
        self._asked.append((start, end))

    def unasked(self, start: int, end: int) -> str:
        """The log between two offsets, as `text`, but for what the kernel was asked to say."""
        pieces = []
        for first, last in self._asked:
            if start < last and first < end:
                pieces.append(self.text(start, max(start, first)))
                start = last
        return "".join([*pieces, self.text(start, max(start, end))])

    def tail(self, lines: int = 25) -> str:
        """The last lines, for a message; from a panic on when there was one."""
        text = self.text(max(0, self.size - 16384))
        panic = text.rfind(PANIC.decode())
        if panic >= 0:
            return "\n".join(text[text.rfind("\n", 0, panic) + 1 :].splitlines()[: 2 * lines])
        return "\n".join(text.splitlines()[-lines:])

    def damage(self) -> str:
        """The first line since this was last asked that says that an image cannot be read."""
        if (size := self.size) == self._read:
            return ""
        with open(self.path, "rb") as file:
            file.seek(max(0, self._read - LINE_MAX))
            found = _DAMAGE.search(file.read())
        self._read = size
        return found[0].decode(errors="replace").strip() if found else ""

    def panicked(self) -> bool:
        """Whether the kernel panicked since this was last asked."""
        size = self.size
        if size == self._searched:
            return False
        with open(self.path, "rb") as file:
            file.seek(max(0, self._searched - len(PANIC)))
            found = PANIC in file.read()
        self._searched = size
        return found

    def wait_for(
        self,
        text: str,
        start: int,
        timeout_s: float,
        watch: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> int | None:
        """Waits until a line with `text` stands in the log; the offset of that line's end.

        None when it did not come in time: the kernel prints late, or not at all. `watch` is
        called meanwhile and raises what is wrong with the machine. clock: of the deadline.
        """
        needle = text.encode()
        deadline = clock() + timeout_s
        pause_s = FIRST_LOOK_S
        while True:
            with open(self.path, "rb") as file:
                file.seek(start)
                data = file.read()
            found = data.find(needle)
            end = data.find(b"\n", found)
            if found >= 0 and end >= 0:
                return start + end + 1
            if clock() > deadline:
                return None
            if pause_s >= LAST_LOOK_S:
                watch()
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, LAST_LOOK_S)


def without_stamps(text: str) -> str:
    """The log without its time stamps, for comparing."""
    return _STAMP.sub("", text)
