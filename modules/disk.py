# SPDX-License-Identifier: GPL-2.0-or-later
"""A block device in a running guest."""

from __future__ import annotations

import os
import re
import shlex
from dataclasses import dataclass

from blockyard.images.console.console import Console
from blockyard.images.console.result import Result

# The longest first: a text may end like a shorter one.
_NUMBERS = sorted(range(1, 134), key=lambda number: len(os.strerror(number)), reverse=True)
_ERRNO_BY_TEXT = {os.strerror(number): number for number in _NUMBERS}
ERROR_LETTERS = 1 << 12  # of an output, in which the last message is looked for


def error_number(result: Result) -> int:
    """The errno of a guest command, by what it printed; 0 when it succeeded, -1 unknown."""
    return 0 if result.exit_code == 0 else named_error(result.output)


def named_error(output: str) -> int:
    """The errno that a program's last message names, -1 when none does.

    A program that fails tells the C library's text for it ("write error: Invalid argument").
    """
    for line in reversed(output[-ERROR_LETTERS:].splitlines()):
        for text, number in _ERRNO_BY_TEXT.items():
            if f" {line.strip()}".endswith(f" {text}"):
                return number
    return -1


def write_file(console: Console, path: str, value: str) -> int:
    """Writes a value to a sysfs or configfs file as one write; returns the errno (0: taken)."""
    return error_number(
        console.run(f"printf %s {shlex.quote(value)} > {shlex.quote(path)}", timeout_s=30)
    )


def read_file(console: Console, path: str) -> str:
    """The contents of a small file without the final newline; CommandFailed when it has none."""
    return console.check(f"cat -- {shlex.quote(path)}", timeout_s=30).rstrip("\n")


@dataclass(frozen=True)
class Disk:
    """One disk: ``/dev/<name>``."""

    name: str
    console: Console
    directory: str = ""  # its configfs directory, when it has one

    @property
    def path(self) -> str:
        """The device node."""
        return f"/dev/{self.name}"

    @property
    def sysfs(self) -> str:
        """Its folder in sysfs."""
        return f"/sys/block/{self.name}"

    @property
    def size_bytes(self) -> int:
        """Its capacity, as an application sees it (BLKGETSIZE64)."""
        return int(self.console.check(f"blockdev --getsize64 {self.path}"))

    @property
    def block_size(self) -> int:
        """Bytes per logical block (BLKSSZGET)."""
        return int(self.console.check(f"blockdev --getss {self.path}"))

    @property
    def takes_partitions(self) -> bool:
        """Whether it can have any (a driver may say no with GENHD_FL_NO_PART)."""
        return int(read_file(self.console, f"{self.sysfs}/ext_range")) > 1

    def queue(self, attribute: str) -> str:
        """A queue attribute; for one of several choices the whole line."""
        return read_file(self.console, f"{self.sysfs}/queue/{attribute}")

    def queue_number(self, attribute: str) -> int:
        """A queue attribute that is a number."""
        return int(self.queue(attribute))

    def set_queue(self, attribute: str, value: str) -> int:
        """Writes a queue attribute; returns the errno (0: taken)."""
        return write_file(self.console, f"{self.sysfs}/queue/{attribute}", value)

    def schedulers(self) -> list[str]:
        """The I/O schedulers this kernel offers for the disk, also as modules."""
        self.console.run("modprobe --quiet --all mq-deadline kyber-iosched bfq")
        return re.sub(r"[\[\]]", "", self.queue("scheduler")).split()

    def scheduler(self) -> str:
        """The I/O scheduler in force; there are no brackets where there is no choice."""
        text = self.queue("scheduler")
        found = re.search(r"\[([^\[\]]+)\]", text)
        return found[1] if found else text

    def attribute(self, name: str) -> str:
        """A configfs attribute of the disk."""
        return read_file(self.console, f"{self.directory}/{name}")

    def set_attribute(self, name: str, value: str) -> int:
        """Writes a configfs attribute; returns the errno (0: taken)."""
        return write_file(self.console, f"{self.directory}/{name}", value)

    def exists(self) -> bool:
        """Whether the kernel (still) has the disk."""
        return self.console.run(f"test -e {self.sysfs}").exit_code == 0
