# SPDX-License-Identifier: GPL-2.0-or-later
"""Volatile caches: what flushes and FUA guarantee, checked after a power loss."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from blockyard.modules.disk import Disk
from blockyard.modules.driver import Driver
from blockyard.tests.harness.requirements import feature, needs, skip, smoke
from blockyard.tests.lib import nvme
from blockyard.tests.lib.fio import fio, statistics

pytestmark = feature("write cache")


def cache(driver: Driver, **attributes: object) -> dict[str, object]:
    """Attributes of a configfs disk with a volatile cache."""
    return {**driver.persistent_attributes(), "cache_size": 16, **attributes}


@pytest.fixture
def cached_disk(driver: Driver) -> Iterator[Disk]:
    """A disk that loses unflushed data when it loses power."""
    with driver.disk(**cache(driver)) as disk:
        yield disk


@contextmanager
def disk_with_cache(driver: Driver) -> Iterator[Disk]:
    """A disk with a write-back cache, so that the kernel sends it flushes; skips without one."""
    attributes = cache(driver) if "attribute:cache_size" in driver.capabilities else {}
    with driver.disk(**attributes) as disk:
        if not attributes and disk.queue("write_cache") != "write back":
            skip("driver", f"{driver.name} has no volatile cache: the kernel sends no flushes")
        assert disk.queue("write_cache") == "write back"
        yield disk


def lose_power(disk: Disk) -> None:
    assert disk.set_attribute("power", "0") == 0
    assert disk.set_attribute("power", "1") == 0


def survives_power_loss(disk: Disk, flags: str) -> bool:
    """Write 64 KiB with these options of dd, cut the power, and compare the data."""
    disk.console.check(
        f"head -c 64K /dev/urandom > /tmp/data; "
        f"dd if=/tmp/data of={disk.path} bs=64K status=none oflag=direct{flags}"
    )
    lose_power(disk)
    disk.console.check(
        f"dd if={disk.path} of=/tmp/back bs=64K count=1 iflag=direct status=none; "
        "test $(stat --format=%s /tmp/back) = 65536"
    )
    return disk.console.run("cmp -s /tmp/back /tmp/data").exit_code == 0


@needs("disk")
@smoke
def test_flush_reaches_the_disk(driver: Driver) -> None:
    with disk_with_cache(driver) as disk:
        before = statistics(disk)["flushes"]
        write = f"dd if=/dev/zero of={disk.path} bs=4k count=1 oflag=direct conv=fsync status=none"
        disk.console.check("\n".join([write] * 4))
        assert statistics(disk)["flushes"] - before == 4


@needs("attribute:cache_size")
def test_the_cache_is_volatile(cached_disk: Disk) -> None:
    """Without a volatile cache the tests below would prove nothing."""
    assert not survives_power_loss(cached_disk, "")


@needs("attribute:cache_size")
@smoke
def test_flushed_data_survives(cached_disk: Disk) -> None:
    assert survives_power_loss(cached_disk, " conv=fsync")


@needs("attribute:cache_size", "attribute:fua")
@pytest.mark.parametrize("fua", ["0", "1"])
def test_synchronous_data_survives(driver: Driver, fua: str) -> None:
    """An O_DSYNC write has FUA; on a disk without FUA a flush follows the write."""
    with driver.disk(**cache(driver, fua=fua)) as disk:
        assert disk.queue("fua") == fua
        assert survives_power_loss(disk, ",dsync")


@needs("attribute:cache_size", "attribute:fua", program="fio")
@smoke
def test_fua_write_survives_without_a_flush(driver: Driver) -> None:
    """Asynchronous O_DSYNC writes have FUA only; a flush follows a synchronous one.

    That flush (generic_write_sync() in block/fops.c) would hide an ignored FUA flag.
    """
    with driver.disk(**cache(driver, fua=1)) as disk:
        before = statistics(disk)["flushes"]
        fio(
            disk,
            rw="write",
            bs="4k",
            size="64k",
            ioengine="libaio",
            iodepth=4,
            sync="dsync",
            buffer_pattern="0xa5",
        )
        assert statistics(disk)["flushes"] == before, "flushes hide a lost FUA"
        lose_power(disk)
        read = f"dd if={disk.path} bs=64k count=1 iflag=direct status=none"
        assert disk.console.check(f"{read} | tr -d '\\245' | wc -c").strip() == "0"


@needs("attribute:cache_size")
def test_flush_writes_the_whole_cache(cached_disk: Disk) -> None:
    """The cache holds more than one batch of pages; all of them must be written."""
    disk = cached_disk
    disk.console.check(
        f"head -c 4M /dev/urandom > /tmp/data; "
        f"dd if=/tmp/data of={disk.path} bs=128K oflag=direct conv=fsync status=none"
    )
    lose_power(disk)
    disk.console.check(
        f"dd if={disk.path} bs=1M count=4 iflag=direct status=none | cmp - /tmp/data"
    )


@needs("attribute:cache_size")
def test_full_cache_is_written_back(driver: Driver) -> None:
    """More data than the cache holds is written, and all of it is read back.

    A power loss loses only what is still in the cache; lost blocks read as zeroes.
    """
    with driver.disk(**cache(driver, cache_size=1)) as disk:
        disk.console.check(
            f"head -c 3M /dev/urandom | tr '\\0' x > /tmp/data; "
            f"dd if=/tmp/data of={disk.path} bs=256K oflag=direct status=none; "
            f"dd if={disk.path} bs=1M count=3 iflag=direct status=none | cmp - /tmp/data"
        )
        lose_power(disk)
        read = f"dd if={disk.path} bs=1M count=3 iflag=direct status=none"
        assert int(disk.console.check(f"{read} | tr -d '\\0' | wc -c")) >= 2 << 20


@needs("attribute:cache_size")
@pytest.mark.parametrize(
    ("old", "new"),
    [("direct conv=fsync", "direct"), ("direct", "direct,dsync"), ("direct,dsync", "direct")],
    ids=["flushed-cached", "cached-synchronous", "synchronous-cached"],
)
def test_read_returns_the_newest_write(cached_disk: Disk, old: str, new: str) -> None:
    """A block that is both in the cache and on the disk is read from the newer copy."""
    disk = cached_disk
    disk.console.check(
        f"""
        head -c 64K /dev/urandom > /tmp/old
        head -c 64K /dev/urandom > /tmp/new
        dd if=/tmp/old of={disk.path} bs=64K oflag={old} status=none
        dd if=/tmp/new of={disk.path} bs=64K oflag={new} status=none
        dd if={disk.path} bs=64K count=1 iflag=direct status=none | cmp - /tmp/new"""
    )


@needs("nvme", program="nvme")
def test_write_cache_matches_identify_controller(disk: Disk) -> None:
    """Identify Controller, VWC: bit 0 means that a volatile write cache is present."""
    identity = nvme.query(disk.console, f"id-ctrl {nvme.controller(disk)}")
    assert disk.queue("write_cache") == ("write back" if identity["vwc"] & 1 else "write through")


@needs("disk")
def test_write_through_sends_no_flushes(driver: Driver) -> None:
    """An administrator may change the cache mode; in write-through mode no flushes are sent."""
    with disk_with_cache(driver) as disk:
        write = f"dd if=/dev/zero of={disk.path} bs=4k count=8 oflag=direct conv=fsync status=none"
        counts = []
        try:
            for mode in ("write back", "write through"):
                assert disk.set_queue("write_cache", mode) == 0
                assert disk.queue("write_cache") == mode
                before = statistics(disk)["flushes"]
                disk.console.check(write)
                counts.append(statistics(disk)["flushes"] - before)
        finally:
            disk.set_queue("write_cache", "write back")
        assert counts == [1, 0]
