# SPDX-License-Identifier: GPL-2.0-or-later
"""Several namespaces on one controller: each has its own disk and its own data."""

from blockyard.modules.disk import Disk
from blockyard.tests.harness.requirements import feature, needs, topology
from blockyard.tests.lib.fio import background_io, fio, verified
from blockyard.tests.lib.nvme import Nvme

pytestmark = [
    feature("multi-namespace"),
    topology("namespaces"),
    needs("nvme", program="nvme"),
]

REMOVED_S = 5


def test_namespaces_have_separate_data(nvme: Nvme) -> None:
    """The same offset on each disk holds what was written to that disk."""
    disks = [nvme.disk(0, nsid) for nsid in nvme.topology.attached(0)]
    for number, disk in enumerate(disks):
        disk.console.check(
            f"head -c 64K /dev/urandom > /tmp/of{number}\n"
            f"dd if=/tmp/of{number} of={disk.path} bs=64K seek=1 oflag=direct status=none"
        )
    for number, disk in enumerate(disks):
        disk.console.check(
            f"dd if={disk.path} bs=64K skip=1 count=1 iflag=direct status=none |"
            f" cmp - /tmp/of{number}"
        )


@needs(program="fio")
def test_io_on_all_namespaces_at_once(nvme: Nvme) -> None:
    """Namespaces share the controller's queues, but data written to one stays on it."""
    disks = [nvme.disk(0, nsid) for nsid in nvme.topology.attached(0)]
    load = verified(
        disks[0],
        filename=":".join(disk.path for disk in disks),
        bs="4k",
        size="1536k",
        ioengine="libaio",
        iodepth=16,
        file_service_type="random",
    )
    assert load.written_bytes == load.read_bytes == 1536 << 10


def test_a_namespace_is_detached_and_attached(nvme: Nvme) -> None:
    """Its disk disappears and comes back with its data; other disks stay."""
    disk, neighbour = nvme.disk(0, 3), nvme.disk(0, 1)
    disk.console.check(
        f"dd if=/tmp/nvme-data of={disk.path} bs=64K count=1 oflag=direct status=none"
    )
    with nvme.detached(3):
        assert is_removed(disk)
        assert neighbour.exists()
        listed = nvme.query(f"list-ns {nvme.device()}")["nsid_list"]
        assert [entry["nsid"] for entry in listed] == [1, 2]
    again = nvme.disk(0, 3)
    nvme.console.check(
        f"dd if={again.path} bs=64K count=1 iflag=direct status=none |"
        f" cmp --bytes=65536 - /tmp/nvme-data"
    )
    assert again.size_bytes == 64 << 20


@needs(program="fio")
def test_a_namespace_is_detached_under_io(nvme: Nvme) -> None:
    """I/O on it fails and does not hang; I/O on another namespace goes on."""
    disk, neighbour = nvme.disk(0, 2), nvme.disk(0, 1)
    with background_io(disk, survives=False), nvme.detached(2):
        assert is_removed(disk)
        load = fio(neighbour, rw="read", bs="64k", size="1M", ioengine="psync")
        assert load.read_bytes == 1 << 20
    assert nvme.disk(0, 2).size_bytes == 256 << 20


def test_a_rescan_keeps_the_disks(nvme: Nvme) -> None:
    """A rescan without changes keeps the same disks, as their sequence numbers show."""
    disks = [nvme.disk(0, nsid) for nsid in nvme.topology.attached(0)]
    names = ("dev", "size", "diskseq")
    files = " ".join(f"{disk.sysfs}/{name}" for disk in disks for name in names)
    before = nvme.read(files)
    nvme.rescan(f"nvme ns-rescan {nvme.device()}")
    assert nvme.read(files) == before


def is_removed(disk: Disk) -> bool:
    """Wait for a disk to disappear, for REMOVED_S at most; return whether it did."""
    return disk.console.run(f"wait_until {REMOVED_S} [ ! -e {disk.sysfs} ]").exit_code == 0
