# SPDX-License-Identifier: GPL-2.0-or-later
"""Reads and writes."""

import errno
from typing import Any

import pytest

from modules.disk import Disk, error_number
from modules.driver import Driver
from tests.needs import needs
from tests.workload import background_io, fio, statistics

pytestmark = needs(program="fio")

MIB = 1 << 20


BLOCK_SIZES = ("4k", "64k", "1M")  # one request, several segments, more than one request


def test_read(disk: Disk) -> None:
    load = fio(disk, rw="read", block_sizes=BLOCK_SIZES, size="4M", ioengine="psync")
    assert load.jobs == len(BLOCK_SIZES)
    assert load.read_bytes == len(BLOCK_SIZES) * 4 * MIB


def test_written_data_is_read_back(storing_disk: Disk) -> None:
    load = fio(
        storing_disk,
        rw="randwrite",
        block_sizes=BLOCK_SIZES,
        size="4M",
        ioengine="libaio",
        iodepth=8,
        verify="crc32c",
        verify_fatal=1,
        do_verify=1,
    )
    assert load.jobs == len(BLOCK_SIZES)
    assert load.written_bytes == len(BLOCK_SIZES) * 4 * MIB
    assert load.read_bytes == load.written_bytes, "fio did not read all of it back"


@needs("configfs", "attribute:blocksize")
@pytest.mark.parametrize("block_size", [512, 1024, 2048, 4096])
def test_every_block_size_works(driver: Driver, block_size: int) -> None:
    """Blocks of the disk's own size, at odd places; read back where the disk keeps its data."""
    attributes: dict[str, str] = {}
    options: dict[str, Any] = {"rw": "randrw"}
    if "store" in driver.capabilities:
        attributes = driver.store_attributes()
        options = {"rw": "randwrite", "verify": "crc32c", "verify_fatal": 1, "do_verify": 1}
    with driver.disk(**attributes, blocksize=block_size) as disk:
        assert disk.block_size == block_size
        assert disk.queue_number("logical_block_size") == block_size
        assert disk.queue_number("physical_block_size") >= block_size
        load = fio(disk, bs=block_size, size="512k", ioengine="psync", **options)
        moved = load.read_bytes + load.written_bytes
        assert moved == (MIB if "verify" in options else MIB // 2)


def test_blocks_of_the_smallest_size(disk: Disk) -> None:
    load = fio(disk, rw="randrw", bs=disk.block_size, size="512k", ioengine="psync")
    assert load.read_bytes + load.written_bytes == MIB // 2


@pytest.mark.parametrize("engine", ["libaio", "io_uring"])
def test_deep_queue(disk: Disk, engine: str) -> None:
    load = fio(disk, rw="randrw", bs="4k", size="8M", ioengine=engine, iodepth=64)
    assert load.read_bytes + load.written_bytes == 8 * MIB


def test_buffered_io(disk: Disk) -> None:
    load = fio(disk, rw="randrw", bs="16k", size="4M", ioengine="psync", direct=0, end_fsync=1)
    assert load.read_bytes + load.written_bytes == 4 * MIB


def test_concurrent_readers(disk: Disk) -> None:
    load = fio(disk, rw="randread", bs="4k", size="2M", ioengine="psync", numjobs=4)
    assert load.jobs == 4
    assert load.read_bytes == 8 * MIB


def test_misaligned_direct_io_is_einval(disk: Disk) -> None:
    half = disk.block_size // 2
    result = disk.console.run(
        f"dd if={disk.path} of=/dev/null bs={half} count=1 iflag=direct status=none"
    )
    assert error_number(result) == errno.EINVAL, result.output


def test_statistics_count_what_was_read(disk: Disk) -> None:
    before = statistics(disk)
    disk.console.check(f"dd if={disk.path} of=/dev/null bs=64k count=16 iflag=direct status=none")
    after = statistics(disk)
    # other readers (partition scans) may add to it, nothing may take away
    assert after["read_sectors"] - before["read_sectors"] >= MIB // 512
    assert after["reads"] - before["reads"] >= 1
    assert after["in_flight"] == 0


@needs("disk")
def test_flush_reaches_the_disk(driver: Driver) -> None:
    attributes = {}
    if "attribute:cache_size" in driver.capabilities:
        attributes = {**driver.store_attributes(), "cache_size": "16"}
    with driver.disk(**attributes) as disk:
        if not attributes and disk.queue("write_cache") != "write back":
            pytest.skip(f"{driver.name} has no volatile write cache: the kernel sends no flushes")
        assert disk.queue("write_cache") == "write back"
        before = statistics(disk)["flushes"]
        load = fio(disk, rw="write", bs="4k", size="256k", ioengine="psync", fsync=8)
        assert load.written_bytes == 256 << 10
        assert statistics(disk)["flushes"] > before


@needs("disk")
def test_discard(driver: Driver) -> None:
    """What was discarded may read as anything; its neighbours keep their data."""
    attributes = driver.store_attributes()
    if "attribute:discard" in driver.capabilities:
        attributes["discard"] = "1"
    if not set(attributes) <= {name.removeprefix("attribute:") for name in driver.capabilities}:
        pytest.skip(f"{driver.name} has no attribute {' or '.join(attributes)}")
    with driver.disk(**attributes) as disk:
        if "discard" not in attributes and disk.queue_number("discard_max_bytes") == 0:
            pytest.skip(f"{driver.name} takes no discards")
        assert disk.queue_number("discard_max_bytes") > 0
        disk.console.check(
            f"""
            head -c 3M /dev/urandom > /tmp/data
            dd if=/tmp/data of={disk.path} bs=1M oflag=direct status=none
            blkdiscard --offset 1M --length 1M {disk.path}
            dd if={disk.path} of=/tmp/back bs=1M count=3 iflag=direct status=none
            cmp -n 1048576 /tmp/data /tmp/back
            cmp -i 2097152 -n 1048576 /tmp/data /tmp/back"""
        )
        assert statistics(disk)["discards"] > 0


def test_write_zeroes(storing_disk: Disk) -> None:
    storing_disk.console.check(
        f"""
        head -c 1M /dev/urandom | dd of={storing_disk.path} bs=1M oflag=direct status=none
        blkdiscard --zeroout --offset 256K --length 512K {storing_disk.path}
        dd if={storing_disk.path} bs=256K skip=1 count=2 iflag=direct status=none |
            cmp -n 524288 - /dev/zero"""
    )


@needs("configfs")
def test_power_off_under_io(driver: Driver) -> None:
    """A disk that goes while it is used fails its users' I/O, and nothing else."""
    with driver.disk() as disk, background_io(disk, survives=False):
        assert disk.set_attribute("power", "0") == 0
        assert not disk.exists()


@needs("configfs")
def test_removal_under_io(driver: Driver) -> None:
    disk = driver.create({})
    with background_io(disk, survives=False):
        driver.remove(disk)
    assert not disk.exists()
