# SPDX-License-Identifier: GPL-2.0-or-later
"""A zoned disk for the suites: its zones as the kernel reports them, and what is done with them.

Zones go by their number, places and lengths by bytes. The words are those of
include/uapi/linux/blkzoned.h; conditions and their changes are the same in ZBC and in the NVMe
Zoned Namespace Command Set (section 2.1.1.3, "Zone State Machine").
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import IntEnum

from blockyard.modules.disk import Disk, error_number

SECTOR = 512
KIB, MIB = 1 << 10, 1 << 20
UNIT = 16 * KIB  # of most writes: blocks of every size fit in
DATA = "/tmp/zone-data"  # random bytes, for writes
DATA_BYTES = MIB


class Condition(IntEnum):
    """What a zone is in the middle of (enum blk_zone_cond)."""

    NO_WRITE_POINTER = 0
    EMPTY = 1
    IMPLICITLY_OPEN = 2
    EXPLICITLY_OPEN = 3
    CLOSED = 4
    READ_ONLY = 13
    FULL = 14
    OFFLINE = 15


OPEN = (Condition.IMPLICITLY_OPEN, Condition.EXPLICITLY_OPEN)


@dataclass(frozen=True)
class Zone:
    """One zone of a report."""

    start: int
    size: int
    capacity: int
    written: int  # from its start to its write pointer; nothing sensible without one
    condition: Condition
    conventional: bool


@dataclass(frozen=True)
class Layout:
    """How a disk was asked to be."""

    size: int
    zone_size: int
    capacity: int
    conventional: int  # zones, which come first
    max_open: int
    max_active: int


@dataclass(frozen=True)
class ZonedDisk:
    """A disk with zones, all of them empty when a test gets it."""

    disk: Disk
    layout: Layout

    @property
    def first(self) -> int:
        """The first zone that is written in order."""
        return self.layout.conventional

    def report(self, first: int = 0, count: int = 0) -> list[Zone]:
        """The zones from one on; all of them without a count."""
        limit = f"--count {count}" if count else ""
        told = self.disk.console.check(
            f"blkzone report --offset {self._sector(first)} {limit} {self.disk.path}"
        )
        return [_zone(line) for line in told.splitlines()]

    def zone(self, number: int) -> Zone:
        """One zone, as it is now."""
        (zone,) = self.report(number, 1)
        return zone

    def conditions(self, first: int, count: int) -> list[Condition]:
        """The conditions of some zones."""
        return [zone.condition for zone in self.report(first, count)]

    def manage(self, action: str, number: int, count: int = 1) -> int:
        """What blkzone calls open, close, finish or reset; returns the errno (0: done)."""
        return error_number(
            self.disk.console.run(
                f"blkzone {action} --offset {self._sector(number)} --count {count} {self.disk.path}"
            )
        )

    def write(self, number: int, at: int = 0, count: int = UNIT) -> int:
        """Writes the first bytes of DATA, again and again, to a place in a zone; the errno."""
        block = min(count, DATA_BYTES)
        assert count % block == 0 and at % UNIT % 4096 == 0
        place = number * self.layout.zone_size + at
        source = "; ".join([f"head -c {block} {DATA}"] * (count // block))
        return error_number(
            self.disk.console.run(
                f"({source}) | dd of={self.disk.path} bs={block} iflag=fullblock"
                f" seek={place}B oflag=direct status=none"
            )
        )

    def holds(self, number: int, at: int = 0, count: int = UNIT) -> bool:
        """Whether the first bytes of DATA are read from a place in a zone."""
        place = number * self.layout.zone_size + at
        read = f"dd if={self.disk.path} bs={count} count=1 skip={place}B iflag=direct status=none"
        differ = self.disk.console.run(f"set -o pipefail; {read} | cmp --bytes={count} - {DATA}")
        assert differ.exit_code in (0, 1) and "error reading" not in differ.output, differ.output
        return differ.exit_code == 0

    def reset(self) -> None:
        """Empties all zones."""
        self.disk.console.check(f"blkzone reset {self.disk.path}")

    def _sector(self, number: int) -> int:
        return number * self.layout.zone_size // SECTOR


def _zone(line: str) -> Zone:
    numbers = re.findall(r"(?:start:|len|cap|wptr) 0x([0-9a-f]+)", line)
    start, size, capacity, written = (int(number, 16) * SECTOR for number in numbers)
    found = re.search(r"zcond: ?(\d+)\(.*type: (\d)", line)
    assert found, f"blkzone says what we do not understand: {line}"
    return Zone(start, size, capacity, written, Condition(int(found[1])), found[2] == "1")
