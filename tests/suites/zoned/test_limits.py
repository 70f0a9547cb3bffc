# SPDX-License-Identifier: GPL-2.0-or-later
"""Limits of open zones and of active zones (open or closed).

The error numbers are those of Documentation/ABI/stable/sysfs-block, "max_open_zones" and
"max_active_zones".
"""

import errno

from blockyard.tests.harness.requirements import feature, needs, smoke, topology
from blockyard.tests.lib.zones import OPEN, UNIT, Condition, ZonedDisk

pytestmark = [feature("zoned"), topology("zns"), needs(program="blkzone")]


@smoke
def test_one_open_zone_too_many_is_etoomanyrefs(zoned_disk: ZonedDisk) -> None:
    first, limit = zoned_disk.first, zoned_disk.layout.max_open
    assert zoned_disk.manage("open", first, limit) == 0
    more = first + limit
    assert zoned_disk.manage("open", more) == errno.ETOOMANYREFS
    assert zoned_disk.write(more) == errno.ETOOMANYREFS, "a write opened a zone above the limit"
    assert zoned_disk.conditions(first, limit) == [Condition.EXPLICITLY_OPEN] * limit
    assert zoned_disk.conditions(more, 1) == [Condition.EMPTY]
    assert zoned_disk.manage("close", first) == 0
    assert zoned_disk.manage("open", more) == 0, "a closed zone still counts as open"


def test_writes_close_implicitly_open_zones(zoned_disk: ZonedDisk) -> None:
    """The device closes an implicitly open zone to open another one."""
    first, layout = zoned_disk.first, zoned_disk.layout
    zones = layout.max_open + 2
    for number in range(first, first + zones):
        assert zoned_disk.write(number) == 0
    conditions = zoned_disk.conditions(first, zones)
    assert sum(condition in OPEN for condition in conditions) <= layout.max_open
    assert conditions.count(Condition.CLOSED) >= zones - layout.max_open
    assert [zone.written for zone in zoned_disk.report(first, zones)] == [UNIT] * zones


def test_one_active_zone_too_many_is_eoverflow(zoned_disk: ZonedDisk) -> None:
    first, limit = zoned_disk.first, zoned_disk.layout.max_active
    for number in range(first, first + limit):
        assert zoned_disk.write(number) == 0
    more = first + limit
    assert zoned_disk.write(more) == errno.EOVERFLOW
    assert zoned_disk.manage("open", more) == errno.EOVERFLOW
    assert zoned_disk.conditions(more, 1) == [Condition.EMPTY]


def test_finished_and_reset_zones_make_room(zoned_disk: ZonedDisk) -> None:
    first, limit = zoned_disk.first, zoned_disk.layout.max_active
    more = first + limit
    for number in range(first, more):
        assert zoned_disk.write(number) == 0
    assert zoned_disk.manage("finish", more - 1) == 0
    assert zoned_disk.manage("reset", more - 2) == 0
    assert zoned_disk.write(more) == 0
    assert zoned_disk.write(more + 1) == 0
    assert zoned_disk.write(more + 2) == errno.EOVERFLOW


def test_a_closed_zone_opens_at_the_active_limit(zoned_disk: ZonedDisk) -> None:
    """It is already active; the device only has to close an implicitly open zone."""
    first, limit = zoned_disk.first, zoned_disk.layout.max_active
    for number in range(first, first + limit):
        assert zoned_disk.write(number) == 0
    assert zoned_disk.zone(first).condition == Condition.CLOSED
    assert zoned_disk.write(first, UNIT) == 0
    assert zoned_disk.zone(first).condition == Condition.IMPLICITLY_OPEN


def test_a_full_zone_is_not_active(zoned_disk: ZonedDisk) -> None:
    """Any number of zones can be finished, even from empty."""
    first, limit = zoned_disk.first, zoned_disk.layout.max_active
    for number in range(first, first + limit + 2):
        assert zoned_disk.manage("finish", number) == 0
    assert zoned_disk.conditions(first, limit + 2) == [Condition.FULL] * (limit + 2)
