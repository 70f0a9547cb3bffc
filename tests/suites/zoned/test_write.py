# SPDX-License-Identifier: GPL-2.0-or-later
"""Sequential zones accept writes at the write pointer only, in order."""

import errno

import pytest

from blockyard.tests.harness.requirements import feature, needs, smoke, topology
from blockyard.tests.lib.fio import fio, verified
from blockyard.tests.lib.zones import KIB, MIB, OPEN, UNIT, Condition, ZonedDisk

pytestmark = [feature("zoned"), topology("zns"), needs(program="blkzone")]


@smoke
def test_a_write_moves_the_write_pointer(zoned_disk: ZonedDisk) -> None:
    number = zoned_disk.first
    for written in (UNIT, 2 * UNIT):
        assert zoned_disk.write(number, written - UNIT) == 0
        assert zoned_disk.zone(number).written == written
        assert zoned_disk.zone(number).condition in OPEN
    assert zoned_disk.holds(number, 0) and zoned_disk.holds(number, UNIT)
    assert zoned_disk.zone(number + 1).written == 0, "the next zone's write pointer moved, too"


@pytest.mark.parametrize("at", [0, 2 * UNIT], ids=["behind", "ahead"])
@smoke
def test_write_not_at_the_write_pointer_is_eio(zoned_disk: ZonedDisk, at: int) -> None:
    """It changes nothing, and the next write at the write pointer works."""
    number = zoned_disk.first
    assert zoned_disk.write(number) == 0
    assert zoned_disk.write(number, at, 4 * KIB) == errno.EIO
    assert zoned_disk.zone(number).written == UNIT
    assert zoned_disk.holds(number)
    assert zoned_disk.write(number, UNIT) == 0
    assert zoned_disk.zone(number).written == 2 * UNIT


@smoke
def test_a_zone_is_full_at_its_capacity(zoned_disk: ZonedDisk) -> None:
    number, capacity = zoned_disk.first, zoned_disk.layout.capacity
    assert zoned_disk.write(number, 0, capacity) == 0
    assert zoned_disk.zone(number).condition == Condition.FULL
    assert zoned_disk.write(number, capacity) == errno.EIO
    assert zoned_disk.holds(number, capacity - MIB, MIB)


def test_write_past_the_capacity_is_eio(zoned_disk: ZonedDisk) -> None:
    """No part of it is written."""
    number, capacity = zoned_disk.first, zoned_disk.layout.capacity
    assert zoned_disk.write(number, 0, capacity - MIB) == 0
    assert zoned_disk.write(number, capacity - MIB, MIB - UNIT) == 0
    assert zoned_disk.write(number, capacity - UNIT, 2 * UNIT) == errno.EIO
    assert zoned_disk.zone(number).written == capacity - UNIT
    assert zoned_disk.zone(number).condition != Condition.FULL


def test_zeroes_are_written_at_the_write_pointer(zoned_disk: ZonedDisk) -> None:
    """BLKZEROOUT advances the write pointer; blocks never written may read as anything."""
    number, disk = zoned_disk.first, zoned_disk.disk
    start = number * zoned_disk.layout.zone_size
    assert zoned_disk.write(number) == 0
    disk.console.check(
        f"blkdiscard --force --zeroout --offset {start + UNIT} --length {UNIT} {disk.path}"
    )
    assert zoned_disk.zone(number).written == 2 * UNIT
    disk.console.check(
        f"dd if={disk.path} bs={UNIT} skip={start // UNIT + 1} count=1 iflag=direct status=none |"
        f" cmp --bytes={UNIT} - /dev/zero"
    )


@needs(program="fio")
@pytest.mark.parametrize("engine", ["libaio", "io_uring"])
def test_writes_in_flight_stay_in_order(zoned_disk: ZonedDisk, engine: str) -> None:
    """Many writes to one zone are in flight; a reordered write would fail."""
    layout = zoned_disk.layout
    load = verified(
        zoned_disk.disk,
        rw="write",
        bs="16k",
        ioengine=engine,
        iodepth=16,
        zonemode="zbd",
        offset=zoned_disk.first * layout.zone_size,
        size=2 * layout.zone_size,
        io_size=4 * MIB,
    )
    assert load.written_bytes == load.read_bytes == 4 * MIB
    assert sum(zone.written for zone in zoned_disk.report(zoned_disk.first, 2)) >= MIB


@needs(program="fio")
def test_several_zones_are_written_at_once(zoned_disk: ZonedDisk) -> None:
    """Four jobs write within the open limit and reset full zones."""
    layout = zoned_disk.layout
    load = fio(
        zoned_disk.disk,
        rw="randwrite",
        bs="64k",
        ioengine="libaio",
        iodepth=4,
        numjobs=4,
        zonemode="zbd",
        max_open_zones=layout.max_open,
        offset=zoned_disk.first * layout.zone_size,
        size=layout.max_open * layout.zone_size,
        io_size=4 * MIB,
    )
    assert load.written_bytes == 4 * 4 * MIB
    zones = zoned_disk.report()
    assert all(zone.written <= zone.capacity or zone.condition == 14 for zone in zones)
    assert sum(zone.condition in OPEN for zone in zones) <= layout.max_open
