# SPDX-License-Identifier: GPL-2.0-or-later
"""Written data is read back: across sizes, alignments, splits, discards and write zeroes."""

from typing import Any

import pytest

from blockyard.modules.disk import Disk
from blockyard.modules.driver import Driver
from blockyard.tests.harness.requirements import feature, needs, skip, smoke
from blockyard.tests.lib.fio import fio, statistics, verified

MIB = 1 << 20
PATTERNS: dict[str, dict[str, Any]] = {
    "crc32c": {"verify": "crc32c"},
    "pattern": {"verify": "pattern", "verify_pattern": "%o"},  # each word holds its own offset
    "sha1": {"verify": "sha1", "ioengine": "io_uring"},
}


@needs(program="fio")
@pytest.mark.parametrize("verify", PATTERNS)
@smoke
def test_written_data_is_read_back(data_disk: Disk, verify: str) -> None:
    sizes = ("4k", "64k")
    options = {"ioengine": "libaio", **PATTERNS[verify]}
    load = fio(
        data_disk,
        rw="randwrite",
        block_sizes=sizes,
        size="2M",
        iodepth=8,
        verify_fatal=1,
        do_verify=1,
        **options,
    )
    assert load.written_bytes == len(sizes) * 2 * MIB
    assert load.read_bytes == load.written_bytes, "fio did not read back all that it wrote"


@needs(program="fio")
def test_requests_of_any_length_keep_data(data_disk: Disk) -> None:
    """Any number of blocks at any offset: requests cross pages and are split."""
    block = data_disk.block_size
    load = verified(
        data_disk,
        bsrange=f"{block}-256k",
        blockalign=block,
        size="4M",
        ioengine="libaio",
        iodepth=8,
    )
    assert load.written_bytes == 4 * MIB


@needs(program="xfs_io")
@smoke
def test_buffered_writes_at_any_byte_keep_data(data_disk: Disk) -> None:
    """A buffered write may start and end within a block; a file gets the same writes to compare."""
    disk = data_disk
    disk.console.check(
        f"""
        head -c 1M /dev/zero > /tmp/model
        dd if=/tmp/model of={disk.path} bs=1M oflag=direct status=none
        for write in {{1..60}}; do
            commands+=(-c "pwrite -q -S $((1 + RANDOM % 255)) $((RANDOM * 30)) $((1 + RANDOM / 4))")
        done
        xfs_io "${{commands[@]}}" /tmp/model
        xfs_io "${{commands[@]}}" -c fsync {disk.path}
        blockdev --flushbufs {disk.path}
        dd if={disk.path} bs=1M count=1 iflag=direct status=none | cmp - /tmp/model"""
    )


@needs(program="fio")
def test_concurrent_writers_do_not_interfere(data_disk: Disk) -> None:
    """Four jobs write to different ranges; none finds another's data in its own."""
    load = verified(
        data_disk,
        bs="4k",
        size="1M",
        offset_increment="8M",
        numjobs=4,
        ioengine="psync",
    )
    assert load.written_bytes == load.read_bytes == 4 * MIB


@smoke
def test_the_last_block_keeps_its_data(data_disk: Disk) -> None:
    """The first and the last block hold different data."""
    disk = data_disk
    last = disk.size_bytes // disk.block_size - 1
    disk.console.check(
        f"""
        head -c {disk.block_size} /dev/urandom > /tmp/first
        head -c {disk.block_size} /dev/urandom > /tmp/last
        common="bs={disk.block_size} count=1 status=none"
        dd if=/tmp/first of={disk.path} oflag=direct $common
        dd if=/tmp/last of={disk.path} oflag=direct seek={last} $common
        dd if={disk.path} iflag=direct $common | cmp - /tmp/first
        dd if={disk.path} iflag=direct skip={last} $common | cmp - /tmp/last"""
    )


def test_split_request_keeps_its_data(data_disk: Disk) -> None:
    """A transfer that is split into many requests arrives in order."""
    disk = data_disk
    before = disk.queue("max_sectors_kb")
    smallest = max(4, disk.queue_number("logical_block_size") >> 10)
    assert disk.set_queue("max_sectors_kb", str(smallest)) == 0
    try:
        counts = statistics(disk)
        disk.console.check(
            f"""
            head -c 1M /dev/urandom > /tmp/data
            dd if=/tmp/data of={disk.path} bs=1M oflag=direct status=none
            dd if={disk.path} bs=1M count=1 iflag=direct status=none | cmp - /tmp/data"""
        )
        requests = statistics(disk)["writes"] - counts["writes"]
    finally:
        assert disk.set_queue("max_sectors_kb", before) == 0
    assert requests >= (1024 // smallest), "the write was not split as max_sectors_kb says"


def test_new_disk_reads_as_zeroes(driver: Driver) -> None:
    """A new disk does not show data of a removed one."""
    if not (driver.configfs and "persistent" in driver.capabilities):
        skip("driver", f"{driver.name} cannot create disks that keep their data", "persistent")
    attributes = driver.persistent_attributes()
    with driver.disk(**attributes) as disk:
        disk.console.check(
            f"head -c 4M /dev/urandom | "
            f"dd of={disk.path} bs=1M count=4 iflag=fullblock oflag=direct status=none"
        )
    with driver.disk(**attributes) as disk:
        disk.console.check(
            f"dd if={disk.path} bs=1M count=4 iflag=direct status=none | cmp -n 4M - /dev/zero"
        )


@needs("persistent")
def test_unwritten_block_reads_as_zeroes(driver: Driver) -> None:
    """The read must clear the buffer: dd reads both blocks into the same one."""
    if not driver.configfs:
        skip("driver", f"{driver.name} cannot create disks that keep their data", "persistent")
    with driver.disk(**driver.persistent_attributes()) as disk:
        disk.console.check(
            f"""
            head -c 4K /dev/urandom | dd of={disk.path} bs=4k oflag=direct status=none
            dd if={disk.path} bs=4k count=2 iflag=direct status=none | tail -c 4096 |
                cmp -n 4096 - /dev/zero"""
        )


@needs("disk")
@feature("discard")
@smoke
def test_discard(driver: Driver) -> None:
    """Discarded blocks may read as anything, and as zeroes on a disk in memory.

    Blocks around them keep their data.
    """
    attributes = driver.persistent_attributes()
    if "attribute:discard" in driver.capabilities:
        attributes["discard"] = "1"
    if not set(attributes) <= {name.removeprefix("attribute:") for name in driver.capabilities}:
        skip("driver", f"{driver.name} has no attribute {' or '.join(attributes)}")
    with driver.disk(**attributes) as disk:
        if "discard" not in attributes and disk.queue_number("discard_max_bytes") == 0:
            skip("driver", f"{driver.name} does not support discard")
        assert disk.queue_number("discard_max_bytes") > 0
        zeroed = "cmp -i 1048576:0 -n 1048576 /tmp/back /dev/zero" if driver.configfs else ""
        disk.console.check(
            f"""
            head -c 3M /dev/urandom > /tmp/data
            dd if=/tmp/data of={disk.path} bs=1M oflag=direct status=none
            blkdiscard --offset 1M --length 1M {disk.path}
            dd if={disk.path} of=/tmp/back bs=1M count=3 iflag=direct status=none
            cmp -n 1048576 /tmp/data /tmp/back
            cmp -i 2097152 -n 1048576 /tmp/data /tmp/back
            {zeroed}"""
        )
        assert statistics(disk)["discards"] > 0


@feature("discard")
def test_unsupported_discard_is_eopnotsupp(driver: Driver, disk: Disk) -> None:
    if disk.queue_number("discard_max_bytes"):
        pytest.skip(f"{driver.name} supports discard")
    before = statistics(disk)["discards"]
    result = disk.console.run(f"blkdiscard --force --length 4096 {disk.path}")
    assert "Operation not supported" in result.output
    assert statistics(disk)["discards"] == before


@feature("secure erase")
def test_secure_erase_is_done_or_refused(disk: Disk) -> None:
    """A disk must not claim to have erased data that it only unmapped."""
    write = f"dd of={disk.path} bs=1M iflag=fullblock oflag=direct status=none"
    disk.console.check(f"head -c 1M /dev/urandom | {write}")
    result = disk.console.run(f"blkdiscard --force --secure --length 1M {disk.path}")
    if result.exit_code:
        assert "Operation not supported" in result.output, result.output
    else:
        disk.console.check(f"dd if={disk.path} bs=1M count=1 status=none | cmp -n 1M - /dev/zero")


@feature("write zeroes")
@smoke
def test_write_zeroes(data_disk: Disk) -> None:
    """Exactly the given range is zeroed, by the device or by writes of the kernel."""
    data_disk.console.check(
        f"""
        head -c 1M /dev/urandom > /tmp/data
        dd if=/tmp/data of={data_disk.path} bs=1M oflag=direct status=none
        blkdiscard --zeroout --offset 256K --length 512K {data_disk.path}
        dd if={data_disk.path} of=/tmp/back bs=1M count=1 iflag=direct status=none
        cmp -n 262144 /tmp/data /tmp/back
        cmp -i 262144:0 -n 524288 /tmp/back /dev/zero
        cmp -i 786432 -n 262144 /tmp/data /tmp/back"""
    )
