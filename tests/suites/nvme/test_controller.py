# SPDX-License-Identifier: GPL-2.0-or-later
"""What an NVMe driver promises beyond a plain block device, on the emulated controller."""

import json
from typing import Any

from images.topology import Controller
from modules.disk import Disk
from modules.driver import Driver
from tests.guests import Guest
from tests.needs import needs
from tests.workload import background_io, fio

pytestmark = [needs("nvme"), needs(program="nvme")]

LBAF_4K = 4  # QEMU's nvme-ns offers 512-byte blocks as formats 0-3 and 4096-byte ones as 4-7


def controller(disk: Disk) -> str:
    """The controller's character device: /dev/nvme0 of /dev/nvme0n1."""
    return "/dev/" + disk.name[: disk.name.index("n", 4)]


def nvme(disk: Disk, command: str) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(disk.console.check(f"nvme {command} --output-format=json"))
    return told


def expected(guest: Guest) -> Controller:
    return guest.machine.setup.topology.controllers[0]


def test_identify_controller(guest: Guest, disk: Disk) -> None:
    told = nvme(disk, f"id-ctrl {controller(disk)}")
    assert told["sn"].strip() == expected(guest).serial
    assert told["mn"].startswith("QEMU NVMe Ctrl")
    assert told["sqes"] & 0xF == 6  # 64-byte submission queue entries, by the specification
    assert told["cqes"] & 0xF == 4  # 16-byte completions


def test_identify_namespace(guest: Guest, disk: Disk) -> None:
    told = nvme(disk, f"id-ns {disk.path}")
    namespace = expected(guest).namespaces[0]
    assert told["nsze"] * namespace.block_size == namespace.size_mib << 20
    data_bits = told["lbafs"][told["flbas"] & 0xF]["ds"]
    assert 1 << data_bits == namespace.block_size


def test_list_namespaces(guest: Guest, disk: Disk) -> None:
    told = nvme(disk, f"list-ns {controller(disk)}")
    ids = [entry["nsid"] for entry in told["nsid_list"]]
    assert ids == list(range(1, len(expected(guest).namespaces) + 1))


def test_smart_log_counts_reads(disk: Disk) -> None:
    before = nvme(disk, f"smart-log {controller(disk)}")
    fio(disk, rw="read", bs="64k", size="1M", ioengine="psync")
    after = nvme(disk, f"smart-log {controller(disk)}")
    assert after["critical_warning"] == 0
    assert int(after["host_read_commands"]) >= int(before["host_read_commands"]) + 16


def test_format_changes_the_block_size(disk: Disk) -> None:
    before = disk.block_size
    disk.console.check(f"nvme format {disk.path} --lbaf={LBAF_4K} --force")
    try:
        assert disk.block_size == 4096
        fio(disk, rw="randwrite", bs="4k", size="1M", ioengine="psync", verify="crc32c")
    finally:
        disk.console.check(f"nvme format {disk.path} --lbaf=0 --force")
    assert disk.block_size == before


def test_reset_under_io(disk: Disk) -> None:
    with background_io(disk):
        for _ in range(3):
            disk.console.check(f"nvme reset {controller(disk)}", timeout_s=30)
    load = fio(disk, rw="read", bs="64k", size="1M", ioengine="psync")
    assert load.read_bytes == 1 << 20


def test_rescan_keeps_the_disk(disk: Disk) -> None:
    disk.console.check(f"nvme ns-rescan {controller(disk)}")
    assert disk.exists()


def test_partition_table(disk: Disk) -> None:
    """Partitions appear, hold data of their own and go again."""
    disk.console.check(
        f"""
        printf 'label: gpt\\n,16M\\n,32M\\n' | sfdisk --quiet --wipe always {disk.path}
        for try in {{1..100}}; do [ -b {disk.path}p2 ] && break; sleep 0.05; done
        test $(blockdev --getsize64 {disk.path}p1) = $((16 << 20))
        test $(blockdev --getsize64 {disk.path}p2) = $((32 << 20))
        head -c 1M /dev/urandom > /tmp/data
        dd if=/tmp/data of={disk.path}p2 bs=1M oflag=direct status=none
        dd if={disk.path}p2 bs=1M count=1 iflag=direct status=none | cmp - /tmp/data
        start=$(cat {disk.sysfs}/{disk.name}p2/start)
        dd if={disk.path} bs=512 skip=$start count=2048 iflag=direct status=none | cmp - /tmp/data
        wipefs --quiet --all --force {disk.path}
        blockdev --rereadpt {disk.path}
        test ! -e {disk.sysfs}/{disk.name}p1"""
    )


def test_pci_removal_under_io(driver: Driver, disk: Disk) -> None:
    """A controller that is pulled takes its disk along; a rescan of the bus brings it back."""
    device = disk.console.check(f"readlink -f {disk.sysfs}/device/device").strip()
    with background_io(disk, survives=False):
        disk.console.check(f"echo 1 > {device}/remove", timeout_s=60)
        assert not disk.exists()
    disk.console.check("echo 1 > /sys/bus/pci/rescan")
    driver.wait_for_disks()
    load = fio(driver.disks()[0], rw="read", bs="64k", size="1M", ioengine="psync")
    assert load.read_bytes == 1 << 20
