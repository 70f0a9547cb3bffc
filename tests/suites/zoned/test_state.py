# SPDX-License-Identifier: GPL-2.0-or-later
"""Zone states: open, close, finish, reset."""

import errno

import pytest

from blockyard.tests.harness.requirements import feature, needs, smoke, topology
from blockyard.tests.lib.zones import UNIT, Condition, ZonedDisk

pytestmark = [feature("zoned"), topology("zns"), needs(program="blkzone")]


@smoke
def test_open_close_finish_reset(zoned_disk: ZonedDisk) -> None:
    """A zone goes through its states; open and close leave the write pointer alone."""
    number = zoned_disk.first
    assert zoned_disk.write(number) == 0
    for action, condition in (
        ("open", Condition.EXPLICITLY_OPEN),
        ("close", Condition.CLOSED),
        ("open", Condition.EXPLICITLY_OPEN),
    ):
        assert zoned_disk.manage(action, number) == 0
        assert zoned_disk.zone(number).condition == condition
        assert zoned_disk.zone(number).written == UNIT
    assert zoned_disk.manage("finish", number) == 0
    assert zoned_disk.zone(number).condition == Condition.FULL
    assert zoned_disk.write(number, UNIT) == errno.EIO, "a finished zone accepted a write"
    assert zoned_disk.holds(number), "a finished zone lost its data"
    assert zoned_disk.manage("reset", number) == 0
    assert zoned_disk.zone(number).condition == Condition.EMPTY
    assert zoned_disk.zone(number).written == 0


def test_a_closed_zone_opens_for_a_write(zoned_disk: ZonedDisk) -> None:
    number = zoned_disk.first
    assert zoned_disk.write(number) == 0
    assert zoned_disk.manage("close", number) == 0
    assert zoned_disk.write(number, UNIT) == 0
    assert zoned_disk.zone(number).condition == Condition.IMPLICITLY_OPEN
    assert zoned_disk.zone(number).written == 2 * UNIT


def test_an_open_zone_stays_explicitly_open(zoned_disk: ZonedDisk) -> None:
    """Writes advance its write pointer and do not change its condition."""
    number = zoned_disk.first
    assert zoned_disk.manage("open", number) == 0
    for written in (UNIT, 2 * UNIT):
        assert zoned_disk.write(number, written - UNIT) == 0
        assert zoned_disk.zone(number).condition == Condition.EXPLICITLY_OPEN
        assert zoned_disk.zone(number).written == written


@pytest.mark.parametrize(
    ("before", "action"), [("finish", "open"), ("finish", "close"), ("reset", "close")]
)
def test_invalid_zone_action_is_eio(zoned_disk: ZonedDisk, before: str, action: str) -> None:
    """A full zone cannot be opened or closed, an empty one cannot be closed."""
    number = zoned_disk.first
    assert zoned_disk.manage(before, number) == 0
    condition = zoned_disk.zone(number).condition
    assert zoned_disk.manage(action, number) == errno.EIO
    assert zoned_disk.zone(number).condition == condition


@pytest.mark.parametrize("action", ["open", "finish", "reset"])
def test_repeated_zone_action_succeeds(zoned_disk: ZonedDisk, action: str) -> None:
    number = zoned_disk.first
    assert zoned_disk.manage(action, number) == 0
    first = zoned_disk.zone(number)
    assert zoned_disk.manage(action, number) == 0
    assert zoned_disk.zone(number) == first


@smoke
def test_reset_zone_is_empty(zoned_disk: ZonedDisk) -> None:
    """Its data is gone, and it can be written from the start."""
    number = zoned_disk.first
    assert zoned_disk.write(number) == 0
    assert zoned_disk.manage("reset", number) == 0
    assert not zoned_disk.holds(number), "the data is still there after a reset"
    assert zoned_disk.write(number) == 0
    assert zoned_disk.holds(number)


def test_reset_leaves_other_zones_alone(zoned_disk: ZonedDisk) -> None:
    first = zoned_disk.first
    for number in range(first, first + 4):
        assert zoned_disk.write(number) == 0
    assert zoned_disk.manage("reset", first + 1, 2) == 0
    assert [zone.written for zone in zoned_disk.report(first, 4)] == [UNIT, 0, 0, UNIT]
    assert zoned_disk.holds(first) and zoned_disk.holds(first + 3)


def test_reset_all_empties_every_zone(zoned_disk: ZonedDisk) -> None:
    """One operation empties open, closed and full zones, which then no longer count as open."""
    first, layout = zoned_disk.first, zoned_disk.layout
    for _ in range(2):
        for number in range(first, first + layout.max_open):
            assert zoned_disk.manage("open", number) == 0
            assert zoned_disk.write(number) == 0
        assert zoned_disk.manage("finish", first) == 0
        assert zoned_disk.manage("close", first + 1) == 0
        zoned_disk.reset()
        assert {zone.condition for zone in zoned_disk.report(first)} == {Condition.EMPTY}
