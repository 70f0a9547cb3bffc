# SPDX-License-Identifier: GPL-2.0-or-later
"""A disk's size, block size and life."""

from contextlib import ExitStack

import pytest

from modules.disk import Disk
from modules.driver import Driver
from tests.guests import Guest
from tests.needs import needs


@needs("configfs", "attribute:size")
@pytest.mark.parametrize("size_mib", [1, 100, 4096])
def test_size_is_as_configured(driver: Driver, size_mib: int) -> None:
    with driver.disk(size=size_mib) as disk:
        assert disk.size_bytes == size_mib << 20


@needs("nvme")
def test_size_is_the_namespace_size(guest: Guest, disk: Disk) -> None:
    namespace = guest.machine.setup.topology.controllers[0].namespaces[0]
    assert disk.size_bytes == namespace.size_mib << 20
    assert disk.block_size == namespace.block_size


@needs("configfs")
def test_disk_goes_with_its_directory(driver: Driver) -> None:
    with driver.disk() as disk:
        assert disk.exists()
    assert not disk.exists(), f"{disk.path} is still there after rmdir"


@needs("configfs")
def test_many_disks_at_once(driver: Driver) -> None:
    with ExitStack() as stack:
        disks = [stack.enter_context(driver.disk()) for _ in range(6)]
        assert len({disk.name for disk in disks}) == 6
        for disk in disks:
            driver.console.check(f"dd if={disk.path} of=/dev/null bs=4k count=4 status=none")


def test_reading_past_the_end_reads_nothing(disk: Disk) -> None:
    end = disk.size_bytes // 4096
    told = disk.console.check(
        f"dd if={disk.path} bs=4k skip={end} count=1 status=none | wc -c"
    ).strip()
    assert told == "0"


def test_writing_past_the_end_is_enospc(disk: Disk) -> None:
    end = disk.size_bytes // 4096
    result = disk.console.run(
        f"dd if=/dev/zero of={disk.path} bs=4k seek={end} count=1 oflag=direct status=none"
    )
    assert result.exit_code != 0
    assert "No space left on device" in result.output
