# SPDX-License-Identifier: GPL-2.0-or-later
"""Bad blocks: exactly the configured sectors fail, for reads and for writes."""

import errno
from collections.abc import Iterator

import pytest

from blockyard.modules.disk import Disk, error_number
from blockyard.modules.driver import Driver
from blockyard.tests.harness.requirements import needs, smoke

pytestmark = needs("configfs", "attribute:badblocks")

FIRST, LAST = 64, 71  # eight sectors, one block of 4 KiB


def access(disk: Disk, sector: int, direction: str, count: int = 1) -> int:
    """Read or write sectors with direct I/O; return the errno, 0 for success."""
    options = {
        "read": f"if={disk.path} of=/dev/null iflag=direct,skip_bytes skip={512 * sector}",
        "write": f"if=/dev/zero of={disk.path} oflag=direct,seek_bytes seek={512 * sector}",
    }[direction]
    return error_number(disk.console.run(f"dd {options} bs={512 * count} count=1 status=none"))


@pytest.fixture
def bad_disk(driver: Driver) -> Iterator[Disk]:
    """A disk of 512-byte blocks with eight bad sectors."""
    with driver.disk(blocksize=512, badblocks=f"+{FIRST}-{LAST}") as disk:
        yield disk


@pytest.mark.parametrize("direction", ["read", "write"])
@pytest.mark.parametrize(
    ("sector", "bad"), [(FIRST - 1, False), (FIRST, True), (LAST, True), (LAST + 1, False)]
)
def test_only_bad_sectors_fail(bad_disk: Disk, direction: str, sector: int, bad: bool) -> None:
    assert access(bad_disk, sector, direction) == (errno.EIO if bad else 0)


@pytest.mark.parametrize("direction", ["read", "write"])
def test_a_request_across_a_bad_sector_fails(bad_disk: Disk, direction: str) -> None:
    assert access(bad_disk, FIRST - 4, direction, count=8) == errno.EIO
    assert access(bad_disk, LAST + 1, direction, count=8) == 0


def test_bad_sectors_are_listed(bad_disk: Disk) -> None:
    """Each line has the first sector and the length of a range (block/badblocks.c)."""
    assert bad_disk.attribute("badblocks").split() == [str(FIRST), str(LAST - FIRST + 1)]


@smoke
def test_bad_sectors_can_be_cleared(bad_disk: Disk) -> None:
    """Ranges can be cleared in parts while the disk has power."""
    assert bad_disk.set_attribute("badblocks", f"-{FIRST}-{FIRST + 3}") == 0
    assert access(bad_disk, FIRST + 3, "read") == 0
    assert access(bad_disk, FIRST + 4, "read") == errno.EIO
    assert bad_disk.set_attribute("badblocks", f"-{FIRST + 4}-{LAST}") == 0
    assert access(bad_disk, LAST, "read") == 0
    assert bad_disk.attribute("badblocks") == ""


def test_the_last_sector_can_be_bad(driver: Driver) -> None:
    with driver.disk(size=1, blocksize=512) as disk:
        last = (1 << 20) // 512 - 1
        assert disk.set_attribute("badblocks", f"+{last}-{last}") == 0
        assert access(disk, last, "read") == errno.EIO
        assert access(disk, last - 1, "read") == 0


@needs("attribute:badblocks_once")
def test_badblocks_once_fails_once(driver: Driver) -> None:
    with driver.disk(blocksize=512, badblocks="+8-8", badblocks_once=1) as disk:
        assert access(disk, 8, "read") == errno.EIO
        assert access(disk, 8, "read") == 0


@needs("attribute:badblocks_partial_io", "attribute:memory_backed")
@pytest.mark.parametrize("partial", ["0", "1"])
def test_partial_io_writes_up_to_a_bad_sector(driver: Driver, partial: str) -> None:
    """With badblocks_partial_io a failing write still writes the sectors before the bad one."""
    attributes = {**driver.persistent_attributes(), "blocksize": 512}
    with driver.disk(**attributes, badblocks="+8-8", badblocks_partial_io=partial) as disk:
        disk.console.run(
            f"head -c 8K /dev/zero | tr '\\0' x > /tmp/data; "
            f"dd if=/tmp/data of={disk.path} bs=8K count=1 oflag=direct status=none"
        )
        assert disk.set_attribute("badblocks", "-8-8") == 0
        count = disk.console.check(
            f"dd if={disk.path} bs=8K count=1 iflag=direct status=none | tr -d '\\0' | wc -c"
        )
        assert int(count) == (8 * 512 if partial == "1" else 0)
