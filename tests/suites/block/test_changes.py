# SPDX-License-Identifier: GPL-2.0-or-later
"""Data stays intact while the scheduler, the queue depth or the set of CPUs changes."""

from collections.abc import Iterator

import pytest

from blockyard.modules.disk import Disk
from blockyard.tests.harness.budget import Budget
from blockyard.tests.harness.requirements import feature, needs, skip
from blockyard.tests.lib.fio import VERIFIED, background_io, verified

pytestmark = [needs(program="fio"), feature("changes under load")]

CPU = "/sys/devices/system/cpu/cpu1/online"


@pytest.fixture
def scheduled_disk(data_disk: Disk) -> Iterator[Disk]:
    """A disk that keeps its data; its scheduler and queue depth are restored afterwards."""
    before, depth = data_disk.scheduler(), data_disk.queue("nr_requests")
    yield data_disk
    assert data_disk.set_queue("scheduler", before) == 0
    assert data_disk.set_queue("nr_requests", depth) == 0


def test_each_scheduler_keeps_the_data(scheduled_disk: Disk) -> None:
    for scheduler in scheduled_disk.schedulers():
        assert scheduled_disk.set_queue("scheduler", scheduler) == 0
        load = verified(
            scheduled_disk,
            bsrange="4k-64k",
            size="512k",
            ioengine="libaio",
            iodepth=16,
        )
        assert load.read_bytes == load.written_bytes == 512 << 10, scheduler


def test_data_survives_scheduler_switches(scheduled_disk: Disk, budget: Budget) -> None:
    schedulers = scheduled_disk.schedulers()
    if len(schedulers) < 2:
        skip(
            "kernel",
            f"{scheduled_disk.name} has only the scheduler {schedulers[0]}",
        )
    with background_io(scheduled_disk, **VERIFIED):
        for scheduler in schedulers * budget.times(2):
            assert scheduled_disk.set_queue("scheduler", scheduler) == 0


def test_data_survives_queue_depth_changes(scheduled_disk: Disk, budget: Budget) -> None:
    if "mq-deadline" not in scheduled_disk.schedulers():
        skip("kernel", "this kernel has no mq-deadline: without a scheduler the depth is fixed")
    assert scheduled_disk.set_queue("scheduler", "mq-deadline") == 0
    with background_io(scheduled_disk, iodepth=64, **VERIFIED):
        for depth in ("4", "64") * budget.times(4):
            assert scheduled_disk.set_queue("nr_requests", depth) == 0


def test_data_survives_a_cpu_going_offline(data_disk: Disk, budget: Budget) -> None:
    console = data_disk.console
    if console.run(f"test -w {CPU}").exit_code:
        skip("hardware", "the guest has no CPU that can go offline")
    with background_io(data_disk, numjobs=2, offset_increment="8M", **VERIFIED):
        try:
            for _ in range(budget.times(3)):
                console.check(f"echo 0 > {CPU}; echo 1 > {CPU}", timeout_s=30)
        finally:
            console.check(f"echo 1 > {CPU}")
