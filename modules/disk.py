# SPDX-License-Identifier: GPL-2.0-or-later
"""A block device in a running guest: its attributes in sysfs and configfs."""

from __future__ import annotations

import os
import re
import shlex
from dataclasses import dataclass

from blockyard.images.console.console import Console
from blockyard.images.console.result import Result

# The longest text first, because one text may end with another.
_NUMBERS = sorted(range(1, 134), key=lambda number: len(os.strerror(number)), reverse=True)
_ERRNO_BY_TEXT = {os.strerror(number): number for number in _NUMBERS}
ERROR_LETTERS = 1 << 12  # characters at the end of an output that are searched for a message


def error_number(result: Result) -> int:
    """The errno of a guest command, from its output; 0 when it succeeded, -1 when unknown."""
    return 0 if result.exit_code == 0 else named_error(result.output)


def named_error(output: str) -> int:
    """The errno in the last error message of a program; -1 when there is none.

    Programs print the C library's text for it ("write error: Invalid argument").
    """
    for line in reversed(output[-ERROR_LETTERS:].splitlines()):
        for text, number in _ERRNO_BY_TEXT.items():
            if f" {line.strip()}".endswith(f" {text}"):
                return number
    return -1


def write_file(console: Console, path: str, value: str) -> int:
    """Writes a value to a sysfs or configfs file in one write; the errno (0: accepted)."""
    return error_number(
        console.run(f"printf %s {shlex.quote(value)} > {shlex.quote(path)}", timeout_s=30)
    )


def read_file(console: Console, path: str) -> str:
    """The contents of a small file without final newlines; CommandFailed if it is unreadable."""
    return console.check(f"cat -- {shlex.quote(path)}", timeout_s=30).rstrip("\n")


@dataclass(frozen=True)
class Disk:
    """One disk: ``/dev/<name>``."""

    name: str
    console: Console
    directory: str = ""  # its configfs directory; empty when it has none

    @property
    def path(self) -> str:
        """The path of the device node."""
        return f"/dev/{self.name}"

    @property
    def sysfs(self) -> str:
        """Its folder in sysfs."""
        return f"/sys/block/{self.name}"

    @property
    def size_bytes(self) -> int:
        """The capacity in bytes, as an application sees it (BLKGETSIZE64)."""
        return int(self.console.check(f"blockdev --getsize64 {self.path}"))

    @property
    def block_size(self) -> int:
        """Bytes per logical block (BLKSSZGET)."""
        return int(self.console.check(f"blockdev --getss {self.path}"))

    @property
    def takes_partitions(self) -> bool:
        """Whether the disk can have partitions (a driver can set GENHD_FL_NO_PART)."""
        return int(read_file(self.console, f"{self.sysfs}/ext_range")) > 1

    def queue(self, attribute: str) -> str:
        """The contents of a queue attribute; for a choice the whole line, such as ``a [b]``."""
        return read_file(self.console, f"{self.sysfs}/queue/{attribute}")

    def queue_number(self, attribute: str) -> int:
        """The value of a numeric queue attribute."""
        return int(self.queue(attribute))

    def set_queue(self, attribute: str, value: str) -> int:
        """Writes a queue attribute; the errno (0: accepted)."""
        return write_file(self.console, f"{self.sysfs}/queue/{attribute}", value)

    def schedulers(self) -> list[str]:
        """The I/O schedulers that this kernel has for the disk, including modules."""
        self.console.run("modprobe --quiet --all mq-deadline kyber-iosched bfq")
        return re.sub(r"[\[\]]", "", self.queue("scheduler")).split()

    def scheduler(self) -> str:
        """The active I/O scheduler."""
        text = self.queue("scheduler")
        match = re.search(r"\[([^\[\]]+)\]", text)  # no brackets when there is only one
        return match[1] if match else text

    def attribute(self, name: str) -> str:
        """The value of a configfs attribute of the disk."""
        return read_file(self.console, f"{self.directory}/{name}")

    def set_attribute(self, name: str, value: str) -> int:
        """Writes a configfs attribute; the errno (0: accepted)."""
        return write_file(self.console, f"{self.directory}/{name}", value)

    def exists(self) -> bool:
        """Whether the kernel has the disk now."""
        return self.console.run(f"test -e {self.sysfs}").exit_code == 0
