# SPDX-License-Identifier: GPL-2.0-or-later
"""The request queue: its attributes in sysfs and its schedulers."""

import errno
from typing import Any

import pytest

from blockyard.modules.disk import Disk
from blockyard.tests.harness.requirements import needs, skip, smoke
from blockyard.tests.lib.fio import background_io, fio, statistics


@smoke
def test_queue_limits_are_consistent(disk: Disk) -> None:
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


def test_read_ahead_follows_its_setting(disk: Disk) -> None:
    """Reading page by page makes large requests, and small ones without read-ahead."""
    before = disk.queue("read_ahead_kb")
    counts = {}
    try:
        for value in ("128", "0"):
            assert disk.set_queue("read_ahead_kb", value) == 0
            disk.console.check(f"blockdev --flushbufs {disk.path}")
            first = statistics(disk)["reads"]
            disk.console.check(f"dd if={disk.path} of=/dev/null bs=4k count=256 status=none")
            counts[value] = statistics(disk)["reads"] - first
    finally:
        assert disk.set_queue("read_ahead_kb", before) == 0
    assert counts["128"] <= 64, "nothing was read ahead: 1 MiB took many small requests"
    assert counts["0"] >= 256, "data was read ahead with read_ahead_kb 0"


@needs(program="fio")
def test_adjacent_requests_are_merged_unless_disabled(disk: Disk) -> None:
    """Adjacent requests of one batch are merged with nomerges 0, and not with nomerges 2."""
    before = disk.queue("nomerges")
    merged = {}
    try:
        for value in ("0", "2"):
            assert disk.set_queue("nomerges", value) == 0
            first = statistics(disk)["read_merges"]
            depth = {"iodepth": 16, "iodepth_batch": 16, "iodepth_low": 1}
            options: dict[str, Any] = {"rw": "read", "bs": "4k", "size": "1M", **depth}
            fio(disk, ioengine="libaio", **options)
            merged[value] = statistics(disk)["read_merges"] - first
    finally:
        assert disk.set_queue("nomerges", before) == 0
    assert merged["0"] > 0
    assert merged["2"] == 0


def test_hardware_queues_cover_all_cpus(disk: Disk) -> None:
    """/sys/block/*/mq: each CPU has a queue, and all queues have the same depth."""
    listing = disk.console.check(f"cd {disk.sysfs}/mq; grep . */nr_tags */cpu_list")
    tags = [int(line.partition(":")[2]) for line in listing.splitlines() if "/nr_tags:" in line]
    lists = [line.partition(":")[2] for line in listing.splitlines() if "/cpu_list:" in line]
    cpus = [int(cpu) for line in lists for cpu in line.split(",") if cpu.strip()]
    online = int(disk.console.check("nproc --all"))
    assert len(set(tags)) == 1
    assert tags[0] >= 1
    assert set(cpus) == set(range(online))


@pytest.mark.parametrize("attribute", ["read_ahead_kb", "nr_requests", "max_sectors_kb"])
def test_invalid_queue_value_is_einval(disk: Disk, attribute: str) -> None:
    before = disk.queue(attribute)
    assert disk.set_queue(attribute, "nonsense") == errno.EINVAL
    assert disk.queue(attribute) == before


def test_max_sectors_stays_within_the_hardware_limit(disk: Disk) -> None:
    """A value above the hardware limit is refused, or clamped to it (since 6.9)."""
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
@smoke
def test_scheduler_switch_under_io(disk: Disk) -> None:
    schedulers = disk.schedulers()
    if len(schedulers) < 2:
        skip("kernel", f"{disk.name} has only the scheduler {schedulers[0]}")
    before = disk.scheduler()
    with background_io(disk):
        for scheduler in [*schedulers, before]:
            assert disk.set_queue("scheduler", scheduler) == 0
            assert disk.scheduler() == scheduler


@needs(program="fio")
def test_nr_requests_change_under_io(disk: Disk) -> None:
    """The queue depth changes while the queue is full."""
    schedulers = disk.schedulers()
    if "mq-deadline" not in schedulers:
        skip("kernel", "this kernel has no mq-deadline: without a scheduler the depth is fixed")
    before = disk.scheduler()
    assert disk.set_queue("scheduler", "mq-deadline") == 0
    depth = disk.queue("nr_requests")
    with background_io(disk, iodepth=256):
        for value in ("4", "32", depth):
            assert disk.set_queue("nr_requests", value) == 0
            assert disk.queue("nr_requests") == value
    assert disk.set_queue("scheduler", before) == 0
