# SPDX-License-Identifier: GPL-2.0-or-later
"""driver_override: a PCI function goes to another driver and comes back."""

from collections.abc import Iterator

import pytest

from blockyard.modules.disk import write_file
from blockyard.tests.harness.requirements import feature, needs, skip, waits
from blockyard.tests.lib.fio import background_io, fio
from blockyard.tests.lib.nvme import Nvme

pytestmark = [feature("driver_override"), needs("nvme", program="fio"), waits()]

BUS = "/sys/bus/pci"
# drivers that bind to any function by driver_override; each is also the name of its module
OTHERS = ("rnvme", "pci-stub", "uio_pci_generic", "vfio-pci")


def owner(nvme: Nvme, function: str) -> str:
    """The name of the driver that a function is bound to; empty if none."""
    link = nvme.console.run(f"readlink {function}/driver").output
    return link.strip().rpartition("/")[2]


@pytest.fixture
def function(nvme: Nvme) -> Iterator[str]:
    """The controller's function; it is bound to the NVMe driver again afterwards."""
    function = nvme.function()
    name = function.rpartition("/")[2]
    yield function
    nvme.console.check(
        f"""
        echo > {function}/driver_override
        bound=$(readlink {function}/driver) || true
        if [ "${{bound##*/}}" != nvme ]; then
            [ -z "$bound" ] || echo {name} > {function}/driver/unbind
            echo {name} > {BUS}/drivers_probe
        fi
        for module in {" ".join(OTHERS).replace("-", "_")}; do
            [ ! -e /sys/module/$module/refcnt ] || modprobe --remove $module
        done"""
    )
    nvme.settle()


def give(nvme: Nvme, function: str, driver: str) -> None:
    """Set driver_override and probe again; with an empty name any matching driver may bind."""
    name = function.rpartition("/")[2]
    nvme.console.check(
        f"""
        echo {driver} > {function}/driver_override
        [ ! -e {function}/driver ] || echo {name} > {function}/driver/unbind
        echo {name} > {BUS}/drivers_probe"""
    )


def test_driver_override_keeps_the_driver_away(nvme: Nvme, function: str) -> None:
    """Neither probe nor bind attach the NVMe driver until the override is cleared."""
    disk, name = nvme.disk(), function.rpartition("/")[2]
    give(nvme, function, "no-such-driver")
    assert owner(nvme, function) == ""
    assert not disk.exists()
    assert write_file(nvme.console, f"{BUS}/drivers/nvme/bind", name) != 0
    assert owner(nvme, function) == ""
    give(nvme, function, "")
    assert owner(nvme, function) == "nvme"
    nvme.settle()
    assert fio(nvme.disk(), rw="read", bs="64k", size="256k", ioengine="psync").read_bytes


def test_unsuitable_driver_releases_the_function(nvme: Nvme, function: str) -> None:
    """virtio-pci probes the function, finds no virtio device and leaves it unbound."""
    if nvme.console.run(f"[ -d {BUS}/drivers/virtio-pci ]").exit_code:
        skip("kernel", "the kernel has no driver virtio-pci", "module:virtio_pci")
    give(nvme, function, "virtio-pci")
    assert owner(nvme, function) == ""
    give(nvme, function, "nvme")
    assert owner(nvme, function) == "nvme"
    nvme.settle()
    assert fio(nvme.disk(), rw="read", bs="64k", size="256k", ioengine="psync").read_bytes


def test_function_is_handed_over_under_io_and_back(nvme: Nvme, function: str) -> None:
    """I/O fails when the function is taken away; the data is unchanged when it is back."""
    loaded = (name for name in OTHERS if not nvme.console.run(f"modprobe -q -- {name}").exit_code)
    driver = next(loaded, "")
    if not driver:
        skip("kernel", f"the kernel has none of the drivers {', '.join(OTHERS)}")
    disk = nvme.disk()
    nvme.console.check(
        f"dd if=/tmp/nvme-data of={disk.path} bs=64K seek=999 count=1 oflag=direct status=none"
    )
    with background_io(disk, survives=False):
        give(nvme, function, driver)
        new_owner = owner(nvme, function)
    give(nvme, function, "nvme")
    nvme.settle()
    assert new_owner == driver
    assert owner(nvme, function) == "nvme"
    nvme.console.check(
        f"dd if={nvme.disk().path} bs=64K skip=999 count=1 iflag=direct status=none |"
        " cmp --bytes=65536 - /tmp/nvme-data"
    )
