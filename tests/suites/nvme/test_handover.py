# SPDX-License-Identifier: GPL-2.0-or-later
"""driver_override: a function is another driver's for a while, and comes back."""

from collections.abc import Iterator

import pytest

from blockyard.modules.disk import write_file
from blockyard.tests.harness.requirements import feature, needs, skip, waits
from blockyard.tests.lib.fio import background_io, fio
from blockyard.tests.lib.nvme import Nvme

pytestmark = [feature("driver_override"), needs("nvme", program="fio"), waits()]

BUS = "/sys/bus/pci"
# Drivers that take any function by driver_override; their modules are called the same
OTHERS = ("rnvme", "pci-stub", "uio_pci_generic", "vfio-pci")


def owner(nvme: Nvme, function: str) -> str:
    """The driver a function is bound to; empty when there is none."""
    told = nvme.console.run(f"readlink {function}/driver").output
    return told.strip().rpartition("/")[2]


@pytest.fixture
def function(nvme: Nvme) -> Iterator[str]:
    """The controller's function, which is the NVMe driver's again afterwards."""
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
    """Has the bus look for a driver of that name only; an empty one: for whoever matches."""
    name = function.rpartition("/")[2]
    nvme.console.check(
        f"""
        echo {driver} > {function}/driver_override
        [ ! -e {function}/driver ] || echo {name} > {function}/driver/unbind
        echo {name} > {BUS}/drivers_probe"""
    )


def test_driver_override_keeps_the_driver_away(nvme: Nvme, function: str) -> None:
    """Neither a probe nor a bind gives it to the NVMe driver; without the override it is back."""
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
    """virtio-pci is made to look at it and finds no virtio; nothing is left to be cleaned up."""
    if nvme.console.run(f"[ -d {BUS}/drivers/virtio-pci ]").exit_code:
        skip("kernel", "the kernel has no virtio-pci", "module:virtio_pci")
    give(nvme, function, "virtio-pci")
    assert owner(nvme, function) == ""
    give(nvme, function, "nvme")
    assert owner(nvme, function) == "nvme"
    nvme.settle()
    assert fio(nvme.disk(), rw="read", bs="64k", size="256k", ioengine="psync").read_bytes


def test_function_is_handed_over_under_io_and_back(nvme: Nvme, function: str) -> None:
    """The other driver has it, the disk's users got errors; afterwards the data is as it was."""
    there = (name for name in OTHERS if not nvme.console.run(f"modprobe -q -- {name}").exit_code)
    driver = next(there, "")
    if not driver:
        skip("kernel", f"the kernel has none of {', '.join(OTHERS)}")
    disk = nvme.disk()
    nvme.console.check(
        f"dd if=/tmp/nvme-data of={disk.path} bs=64K seek=999 count=1 oflag=direct status=none"
    )
    with background_io(disk, survives=False):
        give(nvme, function, driver)
        taken = owner(nvme, function)
    give(nvme, function, "nvme")
    nvme.settle()
    assert taken == driver
    assert owner(nvme, function) == "nvme"
    nvme.console.check(
        f"dd if={nvme.disk().path} bs=64K skip=999 count=1 iflag=direct status=none |"
        " cmp --bytes=65536 - /tmp/nvme-data"
    )
