# SPDX-License-Identifier: GPL-2.0-or-later
"""Controllers are removed and come back: by sysfs, by unbinding, by their slot."""

from blockyard.images.hardware.topology import Controller, Namespace
from blockyard.images.machine import hotplug
from blockyard.modules.disk import Disk, write_file
from blockyard.tests.harness.requirements import feature, needs, smoke, topology, waits
from blockyard.tests.lib.fio import background_io, fio
from blockyard.tests.lib.nvme import APPEAR_S, Nvme, disk_of

pytestmark = [feature("hot-plug"), needs("nvme", program="fio"), waits()]

DRIVER = "/sys/bus/pci/drivers/nvme"


def works(disk: Disk) -> bool:
    """Whether written data is read back."""
    load = fio(
        disk,
        rw="randwrite",
        bs="4k",
        size="256k",
        ioengine="psync",
        verify="crc32c",
        do_verify=1,
    )
    return load.read_bytes == 256 << 10


@smoke
def test_pci_removal_under_io(nvme: Nvme) -> None:
    """Removing the function removes its disk; a bus rescan brings it back."""
    disk, function = nvme.disk(), nvme.function()
    with background_io(disk, survives=False):
        nvme.console.check(f"echo 1 > {function}/remove", timeout_s=60)
        assert not disk.exists()
        assert nvme.console.run(f"[ -e {nvme.device()} ]").exit_code == 1
    nvme.console.check("echo 1 > /sys/bus/pci/rescan")
    nvme.settle()
    assert works(nvme.disk())


@smoke
def test_unbind_under_io(nvme: Nvme) -> None:
    """Unbinding removes the disk; after binding it has the same data."""
    disk, function = nvme.disk(), nvme.function()
    name = function.rpartition("/")[2]
    block = f"{disk.path} bs=64K count=1 status=none"
    nvme.console.check(f"dd if=/tmp/nvme-data of={block} seek=4096 oflag=direct")
    with background_io(disk, survives=False):
        assert write_file(nvme.console, f"{DRIVER}/unbind", name) == 0
        assert not disk.exists()
        assert nvme.console.run(f"ls {function}/msi_irqs").exit_code, "its vectors still exist"
    assert write_file(nvme.console, f"{DRIVER}/bind", name) == 0
    nvme.settle()
    again = nvme.disk()
    block = f"{again.path} bs=64K count=1 status=none"
    nvme.console.check(f"dd if={block} skip=4096 iflag=direct | cmp --bytes=65536 - /tmp/nvme-data")


@topology("slots")
def test_controller_is_plugged_and_unplugged(nvme: Nvme) -> None:
    """Unplugging by the attention button removes the disk and fails its I/O.

    The disk of the other controller keeps working.
    """
    plugged = Controller("plugged", (Namespace(64, 4096),))
    hotplug.plug(nvme.machine, plugged, 0)
    disk = _disk(nvme, "plugged")
    try:
        assert (disk.size_bytes, disk.block_size) == (64 << 20, 4096)
        assert works(disk)
        with background_io(disk, survives=False, bs=4096):
            hotplug.unplug(nvme.machine, plugged, 0)
            assert not disk.exists()
    except BaseException:
        hotplug.unplug(nvme.machine, plugged, 0)
        raise
    assert works(nvme.disk())


@topology("slots")
def test_slot_is_powered_off_under_io(nvme: Nvme) -> None:
    """A new controller in the slot is a new disk."""
    for serial, size_mib in (("first", 64), ("second", 32)):
        controller = Controller(serial, (Namespace(size_mib),))
        hotplug.plug(nvme.machine, controller, 1)
        disk = _disk(nvme, serial)
        assert disk.size_bytes == size_mib << 20
        assert works(disk)
        with background_io(disk, survives=False):
            nvme.console.check("echo 0 > /sys/bus/pci/slots/2/power", timeout_s=60)
            assert not disk.exists()
        hotplug.unplug(nvme.machine, controller, 1)
    assert works(nvme.disk())


def _disk(nvme: Nvme, serial: str) -> Disk:
    """The disk of a controller that was just plugged in; waits for it."""
    name = nvme.console.check(
        f"""
        found() {{
            for folder in /sys/class/nvme/nvme*; do
                read -r serial < $folder/serial
                [ "$serial" = {serial} ] && [ -e $folder/nvme*n1/queue ] && return
            done
            return 1
        }}
        wait_until {APPEAR_S} found || {{ echo "no controller {serial}"; exit 1; }}
        echo ${{folder##*/}}"""
    )
    return disk_of(nvme.console, name.strip(), 1)
