# SPDX-License-Identifier: GPL-2.0-or-later
"""A zoned disk for the suites: report, write and manage its zones.

Zones are named by number; offsets and lengths are in bytes. Terms are those of
include/uapi/linux/blkzoned.h. Conditions and their transitions are the same in ZBC and in the NVMe
Zoned Namespace Command Set (section 2.1.1.3, "Zone State Machine").
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import IntEnum

from blockyard.modules.disk import Disk, error_number

SECTOR = 512
KIB, MIB = 1 << 10, 1 << 20
UNIT = 16 * KIB  # size of most writes, a multiple of every block size
DATA = "/tmp/zone-data"  # a file of random bytes in the guest
DATA_BYTES = MIB


class Condition(IntEnum):
    """Condition of a zone (enum blk_zone_cond)."""

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
    """One zone of a report; offsets and lengths in bytes."""

    start: int
    size: int
    capacity: int
    written: int  # from its start to its write pointer; undefined for conventional zones
    condition: Condition
    conventional: bool


@dataclass(frozen=True)
class Layout:
    """The configured zones of a disk; sizes in bytes."""

    size: int
    zone_size: int
    capacity: int
    conventional: int  # number of conventional zones, which come first
    max_open: int
    max_active: int


@dataclass(frozen=True)
class ZonedDisk:
    """A zoned disk; all zones are empty when a test gets it."""

    disk: Disk
    layout: Layout

    @property
    def first(self) -> int:
        """The number of the first zone that is not conventional."""
        return self.layout.conventional

    def report(self, first: int = 0, count: int = 0) -> list[Zone]:
        """The zones from number `first` on; `count` 0: all of them."""
        limit = f"--count {count}" if count else ""
        output = self.disk.console.check(
            f"blkzone report --offset {self._sector(first)} {limit} {self.disk.path}"
        )
        return [_zone(line) for line in output.splitlines()]

    def zone(self, number: int) -> Zone:
        """The current state of a zone."""
        (zone,) = self.report(number, 1)
        return zone

    def conditions(self, first: int, count: int) -> list[Condition]:
        """The conditions of `count` zones from number `first` on."""
        return [zone.condition for zone in self.report(first, count)]

    def manage(self, action: str, number: int, count: int = 1) -> int:
        """Run blkzone's open, close, finish or reset on zones; return the errno, 0 for success."""
        return error_number(
            self.disk.console.run(
                f"blkzone {action} --offset {self._sector(number)} --count {count} {self.disk.path}"
            )
        )

    def write(self, number: int, at: int = 0, count: int = UNIT) -> int:
        """Write `count` bytes of DATA, repeated, at offset `at` of a zone; the errno or 0."""
        block = min(count, DATA_BYTES)
        assert count % block == 0 and at % UNIT % 4096 == 0
        offset = number * self.layout.zone_size + at
        source = "; ".join([f"head -c {block} {DATA}"] * (count // block))
        return error_number(
            self.disk.console.run(
                f"({source}) | dd of={self.disk.path} bs={block} iflag=fullblock"
                f" seek={offset}B oflag=direct status=none"
            )
        )

    def holds(self, number: int, at: int = 0, count: int = UNIT) -> bool:
        """Whether the `count` bytes at offset `at` of a zone are those of DATA."""
        offset = number * self.layout.zone_size + at
        read = f"dd if={self.disk.path} bs={count} count=1 skip={offset}B iflag=direct status=none"
        compared = self.disk.console.run(f"set -o pipefail; {read} | cmp --bytes={count} - {DATA}")
        assert compared.exit_code in (0, 1) and "error reading" not in compared.output, (
            compared.output
        )
        return compared.exit_code == 0

    def reset(self) -> None:
        """Reset all zones."""
        self.disk.console.check(f"blkzone reset {self.disk.path}")

    def _sector(self, number: int) -> int:
        return number * self.layout.zone_size // SECTOR


def _zone(line: str) -> Zone:
    numbers = re.findall(r"(?:start:|len|cap|wptr) 0x([0-9a-f]+)", line)
    start, size, capacity, written = (int(number, 16) * SECTOR for number in numbers)
    match = re.search(r"zcond: ?(\d+)\(.*type: (\d)", line)
    assert match, f"unexpected output of blkzone: {line}"
    return Zone(start, size, capacity, written, Condition(int(match[1])), match[2] == "1")
