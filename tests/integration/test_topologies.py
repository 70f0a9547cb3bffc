# SPDX-License-Identifier: GPL-2.0-or-later
"""Each topology that Blockyard ships boots, and the guest sees the devices that it describes."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest

from blockyard.ci.run import boot_env
from blockyard.images.boot import boot
from blockyard.images.console.console import Console
from blockyard.images.hardware import topologies
from blockyard.images.hardware.topology import Controller, Namespace, Topology
from blockyard.images.log.splats import find
from blockyard.images.machine import hotplug, qemu_features
from blockyard.images.machine.machine import Machine
from blockyard.images.machine.vm_config import BootEnv
from blockyard.kernel.host.errors import UsageError
from blockyard.kernel.spec import KernelSpec
from blockyard.modules import manifest
from blockyard.modules.disk import Disk, named_error
from blockyard.modules.driver import Driver
from blockyard.tests.lib.nvme import controllers, disk_of, qemu_log, query, settle_script

SECTOR = 512  # the unit of sysfs, independent of the block size


@dataclass(frozen=True)
class Guest:
    """A guest of a topology, with the NVMe driver loaded."""

    machine: Machine
    controllers: tuple[str, ...]  # their names in the guest, in the topology's order

    @property
    def console(self) -> Console:
        return self.machine.serial

    @property
    def topology(self) -> Topology:
        return self.machine.setup.topology

    def has(self, symbol: str) -> bool:
        """Whether the kernel is built with a symbol."""
        return self.machine.setup.kernel.config.get(symbol, "n") != "n"

    def read(self, path: str) -> str:
        return self.console.check(f"cat {path}").strip()

    def nvme(self, command: str) -> Any:
        return query(self.console, command)

    def disk(self, controller: int = 0, nsid: int = 1) -> Disk:
        """The disk of a namespace; its number in the name need not be its NSID."""
        return disk_of(self.console, self.controllers[controller], nsid)

    def bar_size(self, bar: int, controller: int = 0) -> int:
        """Bytes of one of a controller's PCI regions."""
        lines = self.read(f"/sys/class/nvme/{self.controllers[controller]}/device/resource")
        first, last, _ = (int(word, 16) for word in lines.splitlines()[bar].split())
        return last + 1 - first


@pytest.fixture
def start(ready: BootEnv, tmp_path: Path) -> Callable[[str], Any]:
    """Boots a guest with the topology of that name and loads the driver."""

    @contextmanager
    def start(name: str) -> Iterator[Guest]:
        topology = topologies.load(name)
        if reason := qemu_features.missing_feature(topology, ready.tools):
            pytest.skip(reason)
        with boot(ready.setup(tmp_path / "guest", topology=topology)) as guest:
            if topology.controllers:
                Driver(manifest.load("nvme"), ready.kernel, guest.serial).load()
            else:
                guest.serial.check("modprobe nvme")
            guest.serial.check(settle_script(topology))
            yield Guest(guest, controllers(guest.serial, topology))

    return start


def has_all_namespaces(guest: Guest) -> None:
    """Check the controllers, and the NSIDs, sizes and formats of the namespaces."""
    for number, (name, controller) in enumerate(
        zip(guest.controllers, guest.topology.controllers, strict=True)
    ):
        identity = guest.nvme(f"id-ctrl /dev/{name}")
        assert identity["sn"].strip() == controller.serial
        assert identity["mdts"] == controller.mdts
        listed = [entry["nsid"] for entry in guest.nvme(f"list-ns /dev/{name}")["nsid_list"]]
        attached = guest.topology.attached(number)
        assert listed == sorted(attached)
        for nsid, namespace in attached.items():
            identified = guest.nvme(f"id-ns /dev/{name} --namespace-id={nsid}")
            in_use = identified["lbafs"][identified["flbas"] & 0xF]
            assert (1 << in_use["ds"], in_use["ms"]) == (namespace.block_size, namespace.ms)
            assert identified["nsze"] == namespace.blocks
            disk = guest.disk(number, nsid)
            assert disk.block_size == namespace.block_size
            assert disk.size_bytes == namespace.blocks * namespace.block_size


def keeps_data(disk: Disk, at: int = 1 << 20, count: int = 1 << 16) -> None:
    """Check that the device returns the data that was written to it."""
    disk.console.check(
        f"""
        head -c {count} /dev/urandom > /tmp/data
        dd if=/tmp/data of={disk.path} bs={count} seek={at // count} oflag=direct status=none
        dd if={disk.path} bs={count} skip={at // count} count=1 iflag=direct status=none |
            cmp - /tmp/data"""
    )


def check_default(guest: Guest) -> None:
    keeps_data(guest.disk())
    # QEMU has no option for scatter/gather lists: every controller supports them
    assert guest.nvme(f"id-ctrl /dev/{guest.controllers[0]}")["sgls"] & 0x3


def check_4k(guest: Guest) -> None:
    keeps_data(guest.disk())


def check_namespaces(guest: Guest) -> None:
    for nsid in (1, 2, 3):
        keeps_data(guest.disk(0, nsid))


def check_controllers(guest: Guest) -> None:
    names = {guest.read(f"/sys/class/nvme/{name}/subsysnqn") for name in guest.controllers}
    assert len(names) == 2
    keeps_data(guest.disk(0))
    keeps_data(guest.disk(1))


def check_shared(guest: Guest) -> None:
    (host,) = guest.nvme("list-subsys")
    (subsystem,) = host["Subsystems"]
    assert subsystem["NQN"] == "nqn.2019-08.org.qemu:pair"
    assert {path["Name"] for path in subsystem["Paths"]} == set(guest.controllers)
    first, second = guest.disk(0), guest.disk(1)
    guest.console.check(
        f"""
        head -c 64K /dev/urandom > /tmp/data
        dd if=/tmp/data of={first.path} bs=64K oflag=direct status=none
        dd if={second.path} bs=64K count=1 iflag=direct status=none | cmp - /tmp/data"""
    )
    keeps_data(guest.disk(0, 2))
    keeps_data(guest.disk(1, 3))


def check_metadata(guest: Guest) -> None:
    plain, protected, long = (guest.disk(0, nsid) for nsid in (1, 2, 3))
    types = [guest.nvme(f"id-ns {disk.path}")["dps"] & 0x7 for disk in (plain, protected, long)]
    assert types == [0, 1, 1]
    formats = [guest.read(f"{disk.sysfs}/integrity/format") for disk in (plain, protected, long)]
    assert formats == ["nop", "T10-DIF-TYPE1-CRC", "EXT-DIF-TYPE1-CRC64"]
    for disk in (plain, protected, long):
        keeps_data(disk)


def check_zns(guest: Guest) -> None:
    disk = guest.disk()
    assert disk.queue("zoned") == "host-managed"
    assert disk.queue_number("chunk_sectors") * SECTOR == 16 << 20
    assert (disk.queue("max_open_zones"), disk.queue("max_active_zones")) == ("4", "8")
    zones = guest.nvme(f"zns report-zones {disk.path} --descs=2")
    assert zones["nr_zones"] == 32
    first, second = zones["zone_list"]
    assert (first["slba"], second["slba"]) == (0, (16 << 20) // 4096)
    assert first["cap"] == (12 << 20) // 4096
    keeps_data(disk, at=0)
    # a second write to the same sectors is not at the write pointer
    again = guest.console.run(f"dd if=/tmp/data of={disk.path} bs=64K oflag=direct status=none")
    assert again.exit_code != 0


def check_fdp(guest: Guest) -> None:
    (group,) = guest.nvme(f"fdp configs /dev/{guest.controllers[0]} --endgrp-id=1")["configs"]
    assert (group["nruh"], group["nrg"], group["runs"]) == (4, 1, 16 << 20)
    disk = guest.disk()
    handles = guest.nvme(f"fdp status {disk.path}")["ruhss"]
    assert [handle["ruhid"] for handle in handles] == [0, 1, 2, 3]
    keeps_data(disk)


def check_sriov(guest: Guest) -> None:
    name = guest.controllers[0]
    caps = guest.nvme(f"primary-ctrl-caps /dev/{name}")
    assert (caps["vqfrt"], caps["vifrt"]) == (6, 4)
    listed = guest.nvme(f"list-secondary /dev/{name}")
    assert len(listed["secondary-controllers"]) == 2
    keeps_data(guest.disk())


def check_cmb(guest: Guest) -> None:
    assert guest.bar_size(2) == 16 << 20
    size = int(guest.read(f"/sys/class/nvme/{guest.controllers[0]}/cmbsz"))
    assert size >> 12 == 16 and size >> 8 & 0xF == 2  # 16 units of 1 MiB (CMBSZ.SZ, .SZU)
    keeps_data(guest.disk())


def check_pmr(guest: Guest) -> None:
    assert guest.bar_size(4) == 16 << 20
    keeps_data(guest.disk())


def check_queues(guest: Guest) -> None:
    assert guest.read("/sys/devices/system/cpu/online") == "0-3"
    name, disk = guest.controllers[0], guest.disk()
    assert guest.read(f"/sys/class/nvme/{name}/queue_count") == "3"  # with the admin queue
    assert guest.read(f"/sys/class/nvme/{name}/sqsize") == "31"
    assert len(guest.console.check(f"ls {disk.sysfs}/mq").split()) == 2
    keeps_data(disk)


def check_errors(guest: Guest) -> None:
    disk = guest.disk()

    def fails(options: str) -> bool:
        result = guest.console.run(f"dd bs=512 count=1 status=none {options}")
        assert not result.exit_code or named_error(result.output) > 0, result.output
        return result.exit_code != 0

    def failed() -> int:
        """The number of requests that failed in QEMU, including those that the driver retried."""
        return qemu_log(guest.machine).count("aio failed")

    before = failed()
    assert not fails(f"if={disk.path} of=/dev/null iflag=direct skip=8192")
    assert failed() == before + 1
    reads = {
        lba: fails(f"if={disk.path} of=/dev/null iflag=direct skip={lba}")
        for lba in (2047, 2048, 2055, 2056, 4096)
    }
    assert [lba for lba, failed in reads.items() if failed] == [2048, 2055]
    writes = {
        lba: fails(f"if=/dev/zero of={disk.path} oflag=direct seek={lba}")
        for lba in (2048, 4095, 4096, 4103, 4104)
    }
    assert [lba for lba, failed in writes.items() if failed] == [4096, 4103]


def check_null(guest: Guest) -> None:
    disk = guest.disk()
    guest.console.check(
        f"""
        head -c 64K /dev/urandom > /tmp/data
        dd if=/tmp/data of={disk.path} bs=64K oflag=direct status=none
        dd if={disk.path} bs=64K count=1 iflag=direct status=none | cmp --bytes=65536 - /dev/zero"""
    )
    assert list(guest.machine.directory.glob("*.raw")) == []


def check_memory(guest: Guest) -> None:
    keeps_data(guest.disk())
    assert list(guest.machine.directory.glob("*.raw")) == []


def check_hotplug(guest: Guest) -> None:
    """Plug in, use and unplug a controller; a second one is powered off by the guest."""
    with pytest.raises(UsageError, match="unknown port 4: the guest has ports 0 to 3"):
        hotplug.plug(guest.machine, Controller("a"), 4)
    for serial, block_size in {"first": 512, "second": 4096}.items():
        controller = Controller(serial, (Namespace(64, block_size),))
        hotplug.plug(guest.machine, controller, 1)
        topology = Topology(controllers=(controller,))
        plugged = Guest(guest.machine, controllers(guest.console, topology))
        disk = plugged.disk()
        assert (disk.block_size, disk.size_bytes) == (block_size, 64 << 20)
        keeps_data(disk)
        assert list(guest.machine.directory.glob("*.raw")) == []
        if serial == "second":
            guest.console.check("echo 0 > /sys/bus/pci/slots/2/power")
        hotplug.unplug(guest.machine, controller, 1)
        assert not disk.exists()


def check_slots(guest: Guest) -> None:
    """A second controller can be plugged in beside the one that the guest boots with."""
    keeps_data(guest.disk())
    second = Controller("second", (Namespace(64),))
    hotplug.plug(guest.machine, second, 0)
    both = Topology(controllers=(*guest.topology.controllers, second))
    plugged = Guest(guest.machine, controllers(guest.console, both))
    guest.console.check(settle_script(both))
    keeps_data(plugged.disk(1))
    guest.console.check("echo 0 > /sys/bus/pci/slots/1/power")
    hotplug.unplug(guest.machine, second, 0)


def check_virtio(guest: Guest) -> None:
    keeps_data(guest.disk())
    serials = {"blockyard1": "/sys/block/vd*/serial"}
    if guest.has("SCSI_VIRTIO"):
        guest.console.check("modprobe --all virtio_scsi sd_mod")
        serials["blockyard2"] = "/sys/block/sd*/device/vpd_pg80"
    for serial, files in serials.items():
        script = f"grep --files-with-matches --text {shlex.quote(serial)} {files}"
        (path,) = guest.console.check(script).split()
        disk = Disk(path.split("/")[3], guest.console)
        assert disk.size_bytes == 512 << 20
        keeps_data(disk)


CHECKS = {
    "4k": check_4k,
    "cmb": check_cmb,
    "controllers": check_controllers,
    "default": check_default,
    "errors": check_errors,
    "fdp": check_fdp,
    "hotplug": check_hotplug,
    "memory": check_memory,
    "metadata": check_metadata,
    "namespaces": check_namespaces,
    "null": check_null,
    "pmr": check_pmr,
    "queues": check_queues,
    "shared": check_shared,
    "slots": check_slots,
    "sriov": check_sriov,
    "virtio": check_virtio,
    "zns": check_zns,
}


@pytest.mark.parametrize("name", topologies.names())
def test_guest_sees_the_devices_of_its_topology(name: str, start: Callable[[str], Any]) -> None:
    with start(name) as guest:
        has_all_namespaces(guest)
        CHECKS[name](guest)
        assert find(guest.machine.log.text()) == []


def test_virtual_functions_come_online(tmp_path: Path) -> None:
    """On a Debian kernel; on Blockyard's own, the suite `nvme` tests it."""
    ready = boot_env.ready(KernelSpec("7.2-debian"))
    topology = topologies.load("sriov")
    if reason := qemu_features.missing_feature(topology, ready.tools):
        pytest.skip(reason)
    with boot(ready.setup(tmp_path / "guest", topology=topology)) as machine:
        Driver(manifest.load("nvme"), ready.kernel, machine.serial).load()
        guest = Guest(machine, controllers(machine.serial, topology))
        device = f"/sys/class/nvme/{guest.controllers[0]}/device"
        assert guest.read(f"{device}/sriov_totalvfs") == "2"
        # two vectors and three queues for the first function; -a 8 assigns, -a 9 brings online
        guest.console.check(
            f"""
            echo 0 > {device}/sriov_drivers_autoprobe
            echo 2 > {device}/sriov_numvfs
            manage="nvme virt-mgmt /dev/{guest.controllers[0]} --cntlid=1"
            $manage --rt=1 --act=8 --nr=2
            $manage --rt=0 --act=8 --nr=3
            $manage --rt=0 --act=9 --nr=0
            echo 1 > {device}/sriov_drivers_autoprobe
            basename $(readlink {device}/virtfn0) > /sys/bus/pci/drivers/nvme/bind"""
        )
        function = Controller("blockyard0", (), subsystem="functions")
        both = msgspec.structs.replace(topology, controllers=(*topology.controllers, function))
        _, name = controllers(guest.console, both)
        assert guest.read(f"/sys/class/nvme/{name}/cntlid") == "1"
        assert [entry["nsid"] for entry in guest.nvme(f"list-ns /dev/{name}")["nsid_list"]] == [1]
