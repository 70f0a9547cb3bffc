# SPDX-License-Identifier: GPL-2.0-or-later
"""Zoned disks of each driver: made by configfs, or the zoned namespace that the guest has."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from blockyard.modules.disk import Disk
from blockyard.modules.driver import Driver
from blockyard.tests.harness import requirements
from blockyard.tests.harness.guests import Guest
from blockyard.tests.lib.zones import DATA, DATA_BYTES, MIB, Layout, ZonedDisk

# Limits that a few writes reach, and zones that are full soon.
MADE = Layout(64 * MIB, 4 * MIB, 3 * MIB, conventional=2, max_open=4, max_active=8)


@pytest.fixture
def zoned_disk(guest: Guest, driver: Driver) -> Iterator[ZonedDisk]:
    """A disk whose zones hold less than their size, with limits for open and active ones."""
    driver.console.check(f"[ -e {DATA} ] || head -c {DATA_BYTES} /dev/urandom > {DATA}")
    if driver.configfs:
        with driver.disk(**made_attributes(driver)) as disk:
            yield ZonedDisk(disk, MADE)
        return
    if "disk" not in driver.capabilities:
        raise requirements.Skipped(requirements.missing_capability(driver, "disk"))
    with driver.disk() as disk:
        _is_zoned(driver, disk)
        zoned = ZonedDisk(disk, _of_namespace(guest))
        zoned.reset()
        yield zoned


def made_attributes(driver: Driver) -> dict[str, str]:
    """The configfs attributes of a disk like MADE, which keeps its data."""
    wanted = {
        "size": str(MADE.size // MIB),
        "zoned": "1",
        "zone_size": str(MADE.zone_size // MIB),
        "zone_capacity": str(MADE.capacity // MIB),
        "zone_nr_conv": str(MADE.conventional),
        "zone_max_open": str(MADE.max_open),
        "zone_max_active": str(MADE.max_active),
        **driver.store_attributes(),
    }
    for name in wanted:
        if f"attribute:{name}" not in driver.capabilities:
            raise requirements.Skipped(requirements.missing_capability(driver, f"attribute:{name}"))
    return wanted


def _is_zoned(driver: Driver, disk: Disk) -> None:
    """The namespace is zoned, and so has the disk to be, unless the kernel or the driver cannot."""
    if disk.queue("zoned") != "none":
        return
    if driver.kernel.config.get("BLK_DEV_ZONED") != "y":
        raise requirements.Skipped(requirements.without_symbol(driver, "BLK_DEV_ZONED"))
    # a driver that lets a program identify the namespace knows what it is
    assert "nvme" not in driver.capabilities, "the disk of a zoned namespace has no zones"
    requirements.skip("driver", f"{driver.name} does not make a zoned disk of a zoned namespace")


def _of_namespace(guest: Guest) -> Layout:
    (namespace,) = guest.machine.setup.topology.attached(0).values()
    zoned = namespace.zoned
    assert zoned is not None
    return Layout(
        size=namespace.size_mib * MIB,
        zone_size=zoned.zone_size_kib << 10,
        capacity=zoned.zone_capacity_kib << 10,
        conventional=0,
        max_open=zoned.max_open,
        max_active=zoned.max_active,
    )
