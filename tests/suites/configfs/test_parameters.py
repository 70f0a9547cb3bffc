# SPDX-License-Identifier: GPL-2.0-or-later
"""Module parameters: disks that the module creates when it is loaded, and their defaults."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from blockyard.modules.disk import Disk
from blockyard.modules.driver import Driver
from blockyard.tests.harness.requirements import feature, needs, skip, smoke
from blockyard.tests.lib.null_blk import flags

pytestmark = [needs("module", "configfs"), feature("module parameters")]


@contextmanager
def loaded(driver: Driver, **parameters: object) -> Iterator[list[Disk]]:
    """Load the module with other parameters for the time of the block; yield its new disks."""
    for name in parameters:
        if f"parameter:{name}" not in driver.capabilities:
            skip("driver", f"{driver.name} has no parameter {name}", f"parameter:{name}")
    before = set(driver.console.check("ls /sys/block").split())
    driver.unload()
    try:
        arguments = " ".join(f"{name}={value}" for name, value in parameters.items())
        driver.console.check(f"modprobe -- {driver.manifest.modules[-1]} {arguments}", timeout_s=60)
        names = sorted(set(driver.console.check("ls /sys/block").split()) - before)
        yield [Disk(name, driver.console) for name in names]
    finally:
        driver.unload()
        driver.load()


@pytest.mark.parametrize("count", [0, 1, 3])
def test_nr_devices_sets_the_number_of_disks(driver: Driver, count: int) -> None:
    with loaded(driver, nr_devices=count, gb=1) as disks:
        assert len(disks) == count
        for disk in disks:
            assert disk.size_bytes == 1 << 30
            disk.console.check(f"dd if={disk.path} of=/dev/null bs=4k count=4 iflag=direct")


@smoke
def test_module_parameters_become_the_defaults(driver: Driver) -> None:
    """A new configfs disk has the values of the module parameters."""
    with loaded(driver, nr_devices=0, gb=2, bs=4096, submit_queues=2, irqmode=2):
        values = driver.console.check(
            f"""
            cd {driver.configfs}
            mkdir by-default
            trap 'rmdir {driver.configfs}/by-default' EXIT
            cat by-default/size by-default/blocksize by-default/submit_queues by-default/irqmode"""
        )
        assert values.split() == ["2048", "4096", "2", "2"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("queue_mode", "1"),
        ("queue_mode", "9"),
        ("queue_mode", "fast"),
        ("irqmode", "7"),
        ("requeue", "often"),  # only in the kernel variant `faults`
    ],
)
def test_invalid_parameter_prevents_loading(driver: Driver, name: str, value: str) -> None:
    if f"parameter:{name}" not in driver.capabilities:
        skip("driver", f"{driver.name} has no parameter {name}", f"parameter:{name}")
    driver.unload()
    result = driver.console.run(f"modprobe -- {driver.manifest.modules[-1]} {name}={value}")
    loaded = driver.loaded()
    if loaded:
        driver.unload()
    driver.load()
    assert not loaded, f"{driver.name} was loaded with {name}={value}"
    assert "Invalid argument" in result.output


def test_module_disk_name_is_reserved(driver: Driver) -> None:
    """configfs refuses a directory with the name of a module's disk."""
    with loaded(driver, nr_devices=1, gb=1) as (disk,):
        result = driver.console.run(f"mkdir {driver.configfs}/{disk.name}")
        assert "File exists" in result.output


def test_module_disk_can_be_memory_backed(driver: Driver) -> None:
    with loaded(driver, nr_devices=1, gb=1, memory_backed=1) as (disk,):
        disk.console.check(
            f"head -c 256K /dev/urandom > /tmp/data; "
            f"dd if=/tmp/data of={disk.path} bs=64K oflag=direct status=none; "
            f"dd if={disk.path} bs=256K count=1 iflag=direct status=none | cmp - /tmp/data"
        )


@needs(symbol="BLK_DEBUG_FS")
def test_module_disks_share_tags(driver: Driver) -> None:
    with loaded(driver, nr_devices=2, gb=1, shared_tags=1, hw_queue_depth=8) as disks:
        for disk in disks:
            assert disk.console.check(f"cat {disk.sysfs}/mq/0/nr_tags").strip() == "8"
            assert "TAG_QUEUE_SHARED" in flags(disk)
            disk.console.check(f"dd if={disk.path} of=/dev/null bs=4k count=8 iflag=direct")


def test_module_disk_can_be_zoned(driver: Driver) -> None:
    with loaded(driver, nr_devices=1, gb=1, zoned=1, zone_size=64) as (disk,):
        assert disk.queue("zoned") == "host-managed"
        assert disk.queue_number("chunk_sectors") == 64 << 11
