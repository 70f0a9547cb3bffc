# SPDX-License-Identifier: GPL-2.0-or-later
"""Zoned disks as configured by configfs attributes."""

import errno

import pytest

from blockyard.modules.disk import Disk, error_number
from blockyard.modules.driver import CreateFailed, Driver
from blockyard.tests.harness.requirements import feature, needs
from blockyard.tests.lib.zones import MIB, SECTOR, UNIT, Condition, ZonedDisk

pytestmark = [feature("zoned"), needs("configfs", "attribute:zoned", program="blkzone")]


@needs("attribute:zone_nr_conv")
def test_conventional_zone_is_written_in_any_order(zoned_disk: ZonedDisk) -> None:
    """It has no write pointer, so blocks may be written in any order and overwritten."""
    before = zoned_disk.zone(0)
    for at in (MIB, 0, MIB):
        assert zoned_disk.write(0, at) == 0
        assert zoned_disk.holds(0, at)
    assert zoned_disk.write(0, zoned_disk.layout.capacity) == 0, "its capacity is not its size"
    assert zoned_disk.zone(0) == before
    assert before.condition == Condition.NO_WRITE_POINTER


@needs("attribute:zone_nr_conv")
def test_conventional_zone_cannot_be_managed(zoned_disk: ZonedDisk) -> None:
    """Zone actions on it fail, and a reset of all zones does not change it."""
    assert zoned_disk.write(0) == 0
    for action in ("open", "close", "finish", "reset"):
        assert zoned_disk.manage(action, 0) == errno.EIO, action
    zoned_disk.reset()
    assert zoned_disk.zone(0).condition == Condition.NO_WRITE_POINTER
    assert zoned_disk.holds(0)


@pytest.mark.parametrize(
    "attributes",
    [
        {"zone_size": 3},
        {"zone_size": 4, "zone_capacity": 5},
        {"zone_size": 128},
        {"size": 66, "zone_size": 4, "zone_capacity": 3},
    ],
    ids=["no-power-of-two", "capacity-over-size", "larger-than-disk", "smaller-last-zone"],
)
def test_invalid_zones_are_einval(driver: Driver, attributes: dict[str, int]) -> None:
    """The kernel log names the cause (null_init_zoned_dev() in null_blk/zoned.c)."""
    with pytest.raises(CreateFailed) as refused, driver.disk(zoned=1, **attributes):
        pass
    assert refused.value.errno == errno.EINVAL, str(refused.value)


def test_the_last_zone_can_be_smaller(driver: Driver) -> None:
    with driver.disk(zoned=1, zone_size=4, size=66) as disk:
        zones = disk.console.check(f"blkzone report {disk.path}").splitlines()
        assert len(zones) == disk.queue_number("nr_zones") == 17
        assert f"len 0x{2 * MIB // SECTOR:06x}" in zones[-1]
        output = f"of={disk.path} bs=1M seek=64 oflag=direct status=none"
        assert error_number(disk.console.run(f"dd if=/dev/zero count=3 {output}")) == errno.ENOSPC
        assert f"zcond:{Condition.FULL}" in _last_zone(disk)


@needs("attribute:zone_max_open", "attribute:zone_max_active")
@pytest.mark.parametrize(
    ("requested", "effective"),
    [((8, 4), (4, 4)), ((16, 0), (0, 0)), ((4, 16), (4, 0))],
    ids=["open-over-active", "open-not-reachable", "active-not-reachable"],
)
def test_ineffective_limits_are_dropped(
    driver: Driver, requested: tuple[int, int], effective: tuple[int, int]
) -> None:
    """The disk has 16 zones. Its queue and its attributes show the effective limits."""
    names = ("zone_max_open", "zone_max_active")
    attributes = dict(zip(names, requested, strict=True))
    with driver.disk(zoned=1, zone_size=4, **attributes) as disk:
        queue = (disk.queue_number("max_open_zones"), disk.queue_number("max_active_zones"))
        assert queue == effective
        assert tuple(int(disk.attribute(name)) for name in names) == effective


@needs("attribute:zone_append_max_sectors")
@pytest.mark.parametrize(
    ("sectors", "effective"), [(16, 16), (15, 8), (1 << 30, (3 * MIB) // SECTOR)]
)
def test_zone_append_max_sectors_limits_appends(
    driver: Driver, sectors: int, effective: int
) -> None:
    """Rounded to blocks and at most a zone's capacity; the limit of a request may be lower."""
    zones = {"zoned": 1, "zone_size": 4, "zone_capacity": 3, "blocksize": 4096}
    with driver.disk(**zones, zone_append_max_sectors=sectors) as disk:
        assert int(disk.attribute("zone_append_max_sectors")) == effective
        longest = min(effective * SECTOR, disk.queue_number("max_hw_sectors_kb") << 10)
        assert disk.queue_number("zone_append_max_bytes") == longest


@needs("attribute:zone_readonly", "attribute:zone_offline")
def test_read_only_and_offline_zones_refuse_writes(zoned_disk: ZonedDisk) -> None:
    """A read-only zone keeps its data, an offline zone has none; a reset restores neither."""
    first, disk = zoned_disk.first, zoned_disk.disk
    read_only, offline = first, first + 1
    for number, attribute in ((read_only, "zone_readonly"), (offline, "zone_offline")):
        assert zoned_disk.write(number) == 0
        sector = number * zoned_disk.layout.zone_size // SECTOR
        assert disk.set_attribute(attribute, str(sector)) == 0
    expected = [Condition.READ_ONLY, Condition.OFFLINE]
    assert zoned_disk.conditions(first, 2) == expected
    for number in (read_only, offline):
        assert zoned_disk.write(number, UNIT) == errno.EIO
        assert zoned_disk.manage("reset", number) == errno.EIO
    zoned_disk.reset()
    assert zoned_disk.conditions(first, 2) == expected
    assert zoned_disk.holds(read_only)
    skip = offline * zoned_disk.layout.zone_size // UNIT
    read = disk.console.run(f"dd if={disk.path} of=/dev/null bs={UNIT} skip={skip} iflag=direct")
    assert error_number(read) == errno.EIO or "Input/output error" in read.output


@needs("attribute:zone_full")
def test_zone_full_makes_full_zones(driver: Driver) -> None:
    with driver.disk(zoned=1, zone_size=4, zone_nr_conv=1, zone_full=1) as disk:
        zones = disk.console.check(f"blkzone report {disk.path}").splitlines()
        full = [f"zcond:{Condition.FULL}" in line for line in zones]
        assert full == [False] + [True] * 15


def test_power_cycle_resets_the_zones(zoned_disk: ZonedDisk) -> None:
    """Power-on scans the zones and sets up the queue again."""
    number, disk = zoned_disk.first, zoned_disk.disk
    zones, queue = zoned_disk.report(), disk.queue("nr_zones")
    assert zoned_disk.write(number) == 0
    assert disk.set_attribute("power", "0") == 0
    assert disk.set_attribute("power", "1") == 0
    assert zoned_disk.report() == zones
    assert disk.queue("nr_zones") == queue
    assert zoned_disk.write(number) == 0


def _last_zone(disk: Disk) -> str:
    return disk.console.check(f"blkzone report {disk.path}").splitlines()[-1]
