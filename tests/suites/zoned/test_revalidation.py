# SPDX-License-Identifier: GPL-2.0-or-later
"""Zones after a controller reset and after changes that bypass the kernel."""

import errno

from blockyard.tests.harness.requirements import feature, needs, topology, waits
from blockyard.tests.lib import nvme
from blockyard.tests.lib.zones import OPEN, UNIT, Condition, ZonedDisk

pytestmark = [
    feature("zoned"),
    topology("zns"),
    needs("nvme", program="nvme"),
    waits(),
]


def test_zones_survive_a_controller_reset(zoned_disk: ZonedDisk) -> None:
    """Write pointers stay, and zones that were open are still active.

    The specification closes them (NVMe ZNS, "Zone State Machine"); QEMU leaves them open.
    """
    disk = zoned_disk.disk
    assert zoned_disk.write(0) == 0
    assert zoned_disk.manage("open", 1) == 0
    assert zoned_disk.write(1) == 0
    assert zoned_disk.manage("finish", 2) == 0
    disk.console.check(f"nvme reset {nvme.controller(disk)}")
    zones = zoned_disk.report(0, 4)
    assert [zone.written for zone in zones[:2]] == [UNIT, UNIT]
    assert all(zone.condition in (Condition.CLOSED, *OPEN) for zone in zones[:2])
    assert zones[2].condition == Condition.FULL
    assert zones[3].condition == Condition.EMPTY
    assert disk.queue_number("nr_zones") == len(zoned_disk.report())
    for number in (0, 1):
        assert zoned_disk.write(number, UNIT) == 0
        assert zoned_disk.holds(number) and zoned_disk.holds(number, UNIT)


def test_kernel_recovers_from_a_passthrough_zone_reset(zoned_disk: ZonedDisk) -> None:
    """The kernel tracks write pointers since 6.10, so it may refuse one write after the reset.

    A zone report updates them (BLK_ZONE_WPLUG_NEED_WP_UPDATE in block/blk-zoned.c).
    """
    disk = zoned_disk.disk
    assert zoned_disk.write(0) == 0
    disk.console.check(f"nvme zns reset-zone {disk.path} --start-lba=0")
    assert zoned_disk.zone(0).condition == Condition.EMPTY
    assert zoned_disk.write(0) in (0, errno.EIO)
    written = zoned_disk.zone(0).written
    assert zoned_disk.write(0, written) == 0
    assert zoned_disk.zone(0).written == written + UNIT


def test_kernel_and_device_report_the_same_zones(zoned_disk: ZonedDisk) -> None:
    """Both reports have the same write pointers, capacities and states."""
    disk = zoned_disk.disk
    assert zoned_disk.write(0) == 0
    assert zoned_disk.manage("open", 1) == 0
    assert zoned_disk.manage("finish", 2) == 0
    device = nvme.query(disk.console, f"zns report-zones {disk.path} --descs=4")["zone_list"]
    assert [zone["state"] for zone in device] == ["IMP_OPENED", "EXP_OPENED", "FULL", "EMPTY"]
    zones = zoned_disk.report(0, 4)
    block = disk.block_size
    assert [zone["cap"] * block for zone in device] == [zone.capacity for zone in zones]
    assert (device[0]["wp"] - device[0]["slba"]) * block == zones[0].written == UNIT
