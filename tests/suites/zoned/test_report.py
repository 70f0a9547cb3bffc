# SPDX-License-Identifier: GPL-2.0-or-later
"""Zone reports and the queue limits of a zoned disk."""

from blockyard.tests.harness.requirements import feature, needs, smoke, topology
from blockyard.tests.lib.zones import SECTOR, Condition, ZonedDisk

pytestmark = [feature("zoned"), topology("zns"), needs(program="blkzone")]


@smoke
def test_zones_tile_the_disk(zoned_disk: ZonedDisk) -> None:
    layout, zones = zoned_disk.layout, zoned_disk.report()
    assert [zone.start for zone in zones] == list(range(0, layout.size, layout.zone_size))
    assert {zone.size for zone in zones} == {layout.zone_size}
    assert zoned_disk.disk.size_bytes == layout.size


def test_zones_have_the_configured_capacity(zoned_disk: ZonedDisk) -> None:
    """A zone's capacity is below its size; a conventional zone has its full size."""
    layout = zoned_disk.layout
    assert layout.capacity < layout.zone_size
    for number, zone in enumerate(zoned_disk.report()):
        assert zone.conventional == (number < layout.conventional)
        assert zone.capacity == (layout.zone_size if zone.conventional else layout.capacity)


def test_zones_are_empty_at_first(zoned_disk: ZonedDisk) -> None:
    zones = zoned_disk.report(zoned_disk.first)
    assert {(zone.condition, zone.written) for zone in zones} == {(Condition.EMPTY, 0)}


def test_queue_limits_match_the_zones(zoned_disk: ZonedDisk) -> None:
    disk, layout = zoned_disk.disk, zoned_disk.layout
    assert disk.queue("zoned") == "host-managed"
    assert disk.queue_number("nr_zones") == layout.size // layout.zone_size
    assert disk.queue_number("chunk_sectors") * SECTOR == layout.zone_size
    assert disk.queue_number("max_open_zones") == layout.max_open
    assert disk.queue_number("max_active_zones") == layout.max_active
    assert disk.queue_number("zone_write_granularity") == disk.block_size
    append = disk.queue_number("zone_append_max_bytes")
    assert 0 < append < (disk.queue_number("max_hw_sectors_kb") + 1) << 10  # rounded down to KiB


def test_report_contains_the_requested_zones(zoned_disk: ZonedDisk) -> None:
    zones = zoned_disk.report()
    first = len(zones) - 3
    assert zoned_disk.report(first) == zones[first:]
    assert zoned_disk.report(first, 1) == [zones[first]]
