# SPDX-License-Identifier: GPL-2.0-or-later
"""Reads and writes: every engine, every alignment, many at once."""

import errno
from typing import Any

import pytest

from blockyard.modules.disk import Disk, error_number
from blockyard.modules.driver import Driver
from blockyard.tests.harness.requirements import feature, needs, skip, smoke
from blockyard.tests.lib.fio import background_io, fio, statistics

MIB = 1 << 20
BLOCK_SIZES = ("4k", "64k", "1M")  # one request, several segments, more than one request
ENGINES: dict[str, dict[str, Any]] = {
    "psync": {"ioengine": "psync"},
    "libaio": {"ioengine": "libaio", "iodepth": 64},
    "io_uring": {"ioengine": "io_uring", "iodepth": 64},
    "io_uring-fixed": {"ioengine": "io_uring", "iodepth": 16, "fixedbufs": 1, "registerfiles": 1},
    "io_uring-sqpoll": {"ioengine": "io_uring", "iodepth": 16, "sqthread_poll": 1},
    "mmap": {"ioengine": "mmap", "direct": 0},
}
COMMON = ("libaio", "io_uring")


@needs(program="fio")
@pytest.mark.parametrize(
    "engine",
    [
        pytest.param(engine, marks=pytest.mark.blockyard_smoke if engine in COMMON else ())
        for engine in ENGINES
    ],
)
def test_engine(disk: Disk, engine: str) -> None:
    """Each I/O interface transfers the requested amount, and the disk's statistics count it."""
    before = statistics(disk)
    load = fio(disk, rw="randrw", bs="4k", size="2M", **ENGINES[engine])
    assert load.read_bytes + load.written_bytes == 2 * MIB
    if engine != "mmap":
        moved = statistics(disk)
        assert moved["read_sectors"] - before["read_sectors"] >= load.read_bytes // 512
        assert moved["write_sectors"] - before["write_sectors"] >= load.written_bytes // 512


@needs(program="fio")
@smoke
def test_read(disk: Disk) -> None:
    load = fio(disk, rw="read", block_sizes=BLOCK_SIZES, size="4M", ioengine="psync")
    assert load.jobs == len(BLOCK_SIZES)
    assert load.read_bytes == len(BLOCK_SIZES) * 4 * MIB


@needs("disk", program="fio")
@smoke
def test_polled_io(driver: Driver) -> None:
    """Requests on poll queues complete by polling, without interrupts."""
    attributes = {"poll_queues": 1} if "attribute:poll_queues" in driver.capabilities else {}
    with driver.disk(**attributes) as disk:
        if not attributes and disk.queue("io_poll") != "1":
            skip("driver", f"{driver.name} has no poll queues")
        assert disk.queue("io_poll") == "1"
        load = fio(disk, rw="randrw", bs="4k", size="2M", ioengine="io_uring", iodepth=8, hipri=1)
        assert load.read_bytes + load.written_bytes == 2 * MIB


@needs("configfs", "attribute:blocksize", program="fio")
@pytest.mark.parametrize("block_size", [512, 1024, 2048, 4096])
def test_every_block_size_works(driver: Driver, block_size: int) -> None:
    """I/O in blocks of that size at any offset, read back where the disk keeps its data."""
    attributes: dict[str, str] = {}
    options: dict[str, Any] = {"rw": "randrw"}
    if "persistent" in driver.capabilities:
        attributes = driver.persistent_attributes()
        options = {"rw": "randwrite", "verify": "crc32c", "verify_fatal": 1, "do_verify": 1}
    with driver.disk(**attributes, blocksize=block_size) as disk:
        assert disk.block_size == block_size
        assert disk.queue_number("logical_block_size") == block_size
        assert disk.queue_number("physical_block_size") >= block_size
        load = fio(disk, bs=block_size, size="256k", ioengine="psync", **options)
        moved = load.read_bytes + load.written_bytes
        assert moved == (MIB // 2 if "verify" in options else MIB // 4)


@needs(program="fio")
def test_smallest_block_size_works(disk: Disk) -> None:
    load = fio(disk, rw="randrw", bs=disk.block_size, size="256k", ioengine="psync")
    assert load.read_bytes + load.written_bytes == MIB // 4


@needs(program="fio")
def test_buffered_io(disk: Disk) -> None:
    load = fio(disk, rw="randrw", bs="16k", size="4M", ioengine="psync", direct=0, end_fsync=1)
    assert load.read_bytes + load.written_bytes == 4 * MIB


@needs(program="fio")
def test_concurrent_readers(disk: Disk) -> None:
    load = fio(disk, rw="randread", bs="4k", size="2M", ioengine="psync", numjobs=4)
    assert load.jobs == 4
    assert load.read_bytes == 8 * MIB


@pytest.mark.parametrize("misaligned", ["length", "offset"])
@smoke
def test_misaligned_direct_io_is_einval(disk: Disk, misaligned: str) -> None:
    half = disk.block_size // 2
    options = {
        "length": f"bs={half}",
        "offset": f"bs={2 * half} skip={half} iflag=skip_bytes,direct",
    }[misaligned]
    result = disk.console.run(
        f"dd if={disk.path} of=/dev/null count=1 status=none iflag=direct {options}"
    )
    assert error_number(result) == errno.EINVAL, result.output


@smoke
def test_a_read_only_disk_refuses_writes(disk: Disk) -> None:
    disk.console.check(f"blockdev --setro {disk.path}")
    try:
        result = disk.console.run(f"dd if=/dev/zero of={disk.path} bs=4k count=1 oflag=direct")
        readable = disk.console.run(f"dd if={disk.path} of=/dev/null bs=4k count=1 iflag=direct")
    finally:
        disk.console.check(f"blockdev --setrw {disk.path}")
    assert error_number(result) == errno.EPERM, result.output
    assert readable.exit_code == 0, readable.output
    disk.console.check(f"dd if=/dev/zero of={disk.path} bs=4k count=1 oflag=direct status=none")


@feature("atomic writes")
def test_atomic_write_limits_are_consistent(driver: Driver, disk: Disk) -> None:
    """Limits are zero or increasing powers of two (Documentation/ABI/stable/sysfs-block)."""
    if disk.console.run(f"test -e {disk.sysfs}/queue/atomic_write_max_bytes").exit_code:
        skip("kernel", "this kernel has no atomic writes (added in 6.11)")
    smallest = disk.queue_number("atomic_write_unit_min_bytes")
    largest = disk.queue_number("atomic_write_unit_max_bytes")
    total = disk.queue_number("atomic_write_max_bytes")
    if not total:
        assert smallest == largest == 0
        skip("driver", f"{driver.name} does not support atomic writes")
    assert smallest.bit_count() == largest.bit_count() == 1
    assert disk.block_size <= smallest <= largest <= total


@feature("atomic writes")
@needs(program="xfs_io")
def test_atomic_writes(driver: Driver, disk: Disk) -> None:
    """A write of the largest supported size succeeds; a larger one is EINVAL."""
    limit = disk.console.run(f"cat {disk.sysfs}/queue/atomic_write_unit_max_bytes").output.strip()
    if limit in ("", "0") or not limit.isdecimal():
        skip("driver", f"{driver.name} does not support atomic writes")
    if "-A" not in disk.console.run("xfs_io -c 'help pwrite'").output:
        skip("guest", "the guest's xfs_io has no pwrite -A (atomic write)")
    write = f"xfs_io -d -c 'pwrite -A -D -V 1 -b {{0}} 0 {{0}}' {disk.path}"
    disk.console.check(write.format(limit))
    refused = disk.console.run(write.format(2 * int(limit)))
    assert "Invalid argument" in refused.output, refused.output


@needs("disk", program="fio")
def test_io_is_counted_on_its_own_disk(driver: Driver) -> None:
    """I/O on one disk does not appear in the statistics of another."""
    if not driver.configfs:
        skip("driver", f"{driver.name} cannot create a second disk")
    with driver.disk() as busy, driver.disk() as other:
        before = statistics(other)
        with background_io(busy):
            after = statistics(other)
        assert (after["reads"], after["writes"]) == (before["reads"], before["writes"])
