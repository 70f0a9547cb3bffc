# SPDX-License-Identifier: GPL-2.0-or-later
"""Zoned disks of each driver: created by configfs, or the guest's zoned namespace."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from blockyard.modules.disk import Disk
from blockyard.modules.driver import Driver
from blockyard.tests.harness import requirements
from blockyard.tests.harness.guests import Guest
from blockyard.tests.lib.zones import DATA, DATA_BYTES, MIB, Layout, ZonedDisk

# Small limits and zones, so that few writes reach the limits and fill a zone.
CREATED = Layout(64 * MIB, 4 * MIB, 3 * MIB, conventional=2, max_open=4, max_active=8)


@pytest.fixture
def zoned_disk(guest: Guest, driver: Driver) -> Iterator[ZonedDisk]:
    """A zoned disk with a capacity below the zone size and limits for open and active zones."""
    driver.console.check(f"[ -e {DATA} ] || head -c {DATA_BYTES} /dev/urandom > {DATA}")
    if driver.configfs:
        with driver.disk(**zoned_attributes(driver)) as disk:
            yield ZonedDisk(disk, CREATED)
        return
    if "disk" not in driver.capabilities:
        raise requirements.Skipped(requirements.missing_capability(driver, "disk"))
    with driver.disk() as disk:
        _check_zoned(driver, disk)
        zoned = ZonedDisk(disk, _of_namespace(guest))
        zoned.reset()
        yield zoned


def zoned_attributes(driver: Driver) -> dict[str, str]:
    """The configfs attributes of a disk like CREATED that keeps its data; skips without them."""
    attributes = {
        "size": str(CREATED.size // MIB),
        "zoned": "1",
        "zone_size": str(CREATED.zone_size // MIB),
        "zone_capacity": str(CREATED.capacity // MIB),
        "zone_nr_conv": str(CREATED.conventional),
        "zone_max_open": str(CREATED.max_open),
        "zone_max_active": str(CREATED.max_active),
        **driver.persistent_attributes(),
    }
    for name in attributes:
        if f"attribute:{name}" not in driver.capabilities:
            raise requirements.Skipped(requirements.missing_capability(driver, f"attribute:{name}"))
    return attributes


def _check_zoned(driver: Driver, disk: Disk) -> None:
    """Check that the disk of a zoned namespace is zoned; skip if kernel or driver lack support."""
    if disk.queue("zoned") != "none":
        return
    if driver.kernel.config.get("BLK_DEV_ZONED") != "y":
        raise requirements.Skipped(requirements.without_symbol(driver, "BLK_DEV_ZONED"))
    # a driver with nvme passthrough can identify the namespace, so it must support zones
    assert "nvme" not in driver.capabilities, "the disk of a zoned namespace is not zoned"
    requirements.skip("driver", f"{driver.name} does not support zoned namespaces")


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
