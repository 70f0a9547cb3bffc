# SPDX-License-Identifier: GPL-2.0-or-later
"""The request queue: its attributes in sysfs and its schedulers."""

import errno

import pytest

from modules.disk import Disk
from tests.needs import needs
from tests.workload import background_io


def test_limits_fit_together(disk: Disk) -> None:
    limits = {
        name: disk.queue_number(name)
        for name in (
            "logical_block_size",
            "physical_block_size",
            "minimum_io_size",
            "max_sectors_kb",
            "max_hw_sectors_kb",
            "max_segments",
            "nr_requests",
        )
    }
    assert limits["logical_block_size"] in (512, 1024, 2048, 4096)
    assert limits["physical_block_size"] >= limits["logical_block_size"]
    assert limits["minimum_io_size"] >= limits["physical_block_size"]
    assert 0 < limits["max_sectors_kb"] <= limits["max_hw_sectors_kb"]
    assert limits["max_segments"] > 0
    assert limits["nr_requests"] > 0


@pytest.mark.parametrize("attribute", ["read_ahead_kb", "nr_requests", "max_sectors_kb"])
def test_nonsense_is_einval(disk: Disk, attribute: str) -> None:
    before = disk.queue(attribute)
    assert disk.set_queue(attribute, "nonsense") == errno.EINVAL
    assert disk.queue(attribute) == before


def test_read_ahead_can_be_changed(disk: Disk) -> None:
    before = disk.queue("read_ahead_kb")
    assert disk.set_queue("read_ahead_kb", "64") == 0
    assert disk.queue("read_ahead_kb") == "64"
    assert disk.set_queue("read_ahead_kb", before) == 0


def test_max_sectors_stays_within_the_hardware(disk: Disk) -> None:
    """More than the hardware takes is refused, or taken as "as much as possible" (since 6.9)."""
    before = disk.queue("max_sectors_kb")
    hardware = disk.queue_number("max_hw_sectors_kb")
    assert disk.set_queue("max_sectors_kb", str(hardware + 1)) in (0, errno.EINVAL)
    assert disk.queue_number("max_sectors_kb") <= hardware
    assert disk.set_queue("max_sectors_kb", before) == 0


def test_unknown_scheduler_is_einval(disk: Disk) -> None:
    before = disk.scheduler()
    assert disk.set_queue("scheduler", "no-such-scheduler") == errno.EINVAL
    assert disk.scheduler() == before


@needs(program="fio")
def test_scheduler_switch_under_io(disk: Disk) -> None:
    schedulers = disk.schedulers()
    if len(schedulers) < 2:
        pytest.skip(f"this kernel offers {disk.name} no scheduler but {schedulers[0]}")
    before = disk.scheduler()
    with background_io(disk):
        for scheduler in [*schedulers, before]:
            assert disk.set_queue("scheduler", scheduler) == 0
            assert disk.scheduler() == scheduler


@needs(program="fio")
def test_nr_requests_change_under_io(disk: Disk) -> None:
    """The depth of the queue changes while it is full."""
    schedulers = disk.schedulers()
    if "mq-deadline" not in schedulers:
        pytest.skip("this kernel has no mq-deadline: without a scheduler the depth is fixed")
    before = disk.scheduler()
    assert disk.set_queue("scheduler", "mq-deadline") == 0
    depth = disk.queue("nr_requests")
    with background_io(disk):
        for value in ("4", "32", depth):
            assert disk.set_queue("nr_requests", value) == 0
            assert disk.queue("nr_requests") == value
    assert disk.set_queue("scheduler", before) == 0
