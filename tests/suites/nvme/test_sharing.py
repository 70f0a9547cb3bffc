# SPDX-License-Identifier: GPL-2.0-or-later
"""Several controllers: in one subsystem with a shared namespace, and in separate subsystems."""

from collections.abc import Iterator

import pytest

from blockyard.modules.disk import Disk
from blockyard.modules.driver import Driver
from blockyard.tests.harness.requirements import feature, needs, skip, topology, waits
from blockyard.tests.lib.fio import background_io, fio, statistics
from blockyard.tests.lib.nvme import APPEAR_S, Nvme, disk_of

pytestmark = [feature("sharing"), needs("nvme", program="nvme"), waits()]

SHARED, FIRST_ALONE, SECOND_ALONE = 1, 2, 3  # NSIDs


@pytest.fixture
def both(driver: Driver, nvme: Nvme) -> tuple[Disk, Disk]:
    """The disks of the shared namespace, one per controller."""
    if driver.kernel.config.get("NVME_MULTIPATH") == "y":
        skip("kernel", "with NVME_MULTIPATH a shared namespace has one disk")
    return nvme.disk(0, SHARED), nvme.disk(1, SHARED)


@topology("shared")
def test_controllers_report_their_subsystem(nvme: Nvme) -> None:
    """CMIC and NMIC (section 5.17.2) and the lists of controllers and namespaces."""
    names = {nvme.read(f"{nvme.sysfs(number)}/subsysnqn") for number in (0, 1)}
    assert names == {"nqn.2019-08.org.qemu:pair"}
    ids = [int(nvme.read(f"{nvme.sysfs(number)}/cntlid")) for number in (0, 1)]
    assert len(set(ids)) == 2
    device = nvme.device()
    assert nvme.query(f"id-ctrl {device}")["cmic"] & 2
    for nsid, attached, is_shared in ((SHARED, ids, 1), (FIRST_ALONE, ids[:1], 0)):
        entries = nvme.query(f"list-ctrl {device} --namespace-id={nsid}")["ctrl_list"]
        assert [entry["ctrl_id"] for entry in entries] == attached
        assert nvme.query(f"id-ns {device} --namespace-id={nsid}")["nmic"] & 1 == is_shared
    for number, nsids in enumerate(([SHARED, FIRST_ALONE], [SHARED, SECOND_ALONE])):
        entries = nvme.query(f"list-ns {nvme.device(number)}")["nsid_list"]
        assert [entry["nsid"] for entry in entries] == nsids


@topology("shared")
def test_shared_namespace_has_the_same_data(nvme: Nvme, both: tuple[Disk, Disk]) -> None:
    """Data written through one controller is read through the other, in both directions."""
    first, second = both
    assert first.name != second.name
    for writer, reader, block in ((first, second, 3), (second, first, 4)):
        nvme.console.check(
            f"""
            head -c 64K /dev/urandom > /tmp/shared
            dd if=/tmp/shared of={writer.path} bs=64K seek={block} oflag=direct status=none
            dd if={reader.path} bs=64K skip={block} count=1 iflag=direct status=none |
                cmp - /tmp/shared"""
        )


@topology("shared")
def test_private_namespace_is_hidden_from_the_other_controller(nvme: Nvme) -> None:
    """Private namespaces have their own data, and the other controller cannot access them."""
    first, second = nvme.disk(0, FIRST_ALONE), nvme.disk(1, SECOND_ALONE)
    nvme.console.check(
        f"""
        dd if=/tmp/nvme-data of={first.path} bs=64K count=1 oflag=direct status=none
        dd if=/dev/zero of={second.path} bs=64K count=1 oflag=direct status=none
        dd if={first.path} bs=64K count=1 iflag=direct status=none |
            cmp --bytes=65536 - /tmp/nvme-data"""
    )
    inactive = nvme.query(f"id-ns {nvme.device(1)} --namespace-id={FIRST_ALONE}")
    assert inactive["nsze"] == 0


@topology("shared")
@needs(program="fio")
def test_one_controller_is_reset_while_the_other_works(nvme: Nvme, both: tuple[Disk, Disk]) -> None:
    """I/O through the other controller goes on."""
    first, second = both
    with background_io(second):
        nvme.console.check(f"nvme reset {nvme.device(0)}")
        load = fio(first, rw="read", bs="64k", size="1M", ioengine="psync")
        assert load.read_bytes == 1 << 20
    assert nvme.live(0) and nvme.live(1)


@topology("shared")
@needs(symbol="NVME_MULTIPATH", program="fio")
@feature("multipath")
def test_multipath_io_uses_the_remaining_path(nvme: Nvme) -> None:
    """No I/O fails when one controller is reset and then the other."""
    head = nvme.disk(0, SHARED)
    before = statistics(head)
    nvme.console.check(f"dd if={head.path} of=/dev/null bs=4k count=1 iflag=direct status=none")
    if statistics(head) == before:
        skip(
            "kernel",
            "multipath heads of this kernel have no I/O statistics",
        )
    with background_io(head):
        for number in (0, 1):
            nvme.console.check(f"nvme reset {nvme.device(number)}")
            load = fio(head, rw="read", bs="64k", size="1M", ioengine="psync")
            assert load.read_bytes == 1 << 20
    assert nvme.live(0) and nvme.live(1)


@pytest.fixture
def virtual(nvme: Nvme) -> Iterator[Disk]:
    """The shared namespace as a disk of a virtual function, which has its own controller.

    The virtual function gets two vectors (resource 1) and three queues (resource 0) of the physical
    one (section 8.26, "Virtualization Enhancements"). Action 8 assigns them, 9 sets it online.
    """
    device = f"{nvme.sysfs()}/device"
    manage = f"nvme virt-mgmt {nvme.device()} --cntlid=1"
    names = nvme.console.check(
        f"""
        echo 0 > {device}/sriov_drivers_autoprobe
        echo 1 > {device}/sriov_numvfs
        {manage} --rt=1 --act=8 --nr=2
        {manage} --rt=0 --act=8 --nr=3
        {manage} --rt=0 --act=9 --nr=0
        echo 1 > {device}/sriov_drivers_autoprobe
        basename $(readlink {device}/virtfn0) > /sys/bus/pci/drivers/nvme/bind
        wait_until {APPEAR_S} eval '[ -e {device}/virtfn0/nvme/nvme*/nvme*n*/queue ]'
        ls {device}/virtfn0/nvme"""
    )
    yield disk_of(nvme.console, names.split()[-1], SHARED)
    nvme.console.check(
        f"""
        echo 0 > {device}/sriov_numvfs
        {manage} --rt=1 --act=8 --nr=0
        {manage} --rt=0 --act=8 --nr=0"""
    )


@topology("sriov")
@needs(symbol="PCI_IOV", program="fio")
@feature("virtual functions")
def test_a_virtual_function_works_beside_the_physical_one(nvme: Nvme, virtual: Disk) -> None:
    """I/O on the virtual function works, and the physical function reads what it wrote."""
    disk = nvme.disk(0, SHARED)
    load = fio(virtual, rw="randwrite", bs="4k", size="1M", ioengine="libaio", verify="crc32c")
    assert load.read_bytes == load.written_bytes == 1 << 20
    nvme.console.check(
        f"""
        dd if=/tmp/nvme-data of={virtual.path} bs=64K seek=99 count=1 oflag=direct status=none
        dd if={disk.path} bs=64K skip=99 count=1 iflag=direct status=none |
            cmp --bytes=65536 - /tmp/nvme-data"""
    )


@topology("controllers")
def test_separate_subsystems_have_separate_namespaces(nvme: Nvme) -> None:
    """The same NSID names a different namespace in each subsystem."""
    names = {nvme.read(f"{nvme.sysfs(number)}/subsysnqn") for number in (0, 1)}
    assert len(names) == 2
    first, second = nvme.disk(0), nvme.disk(1)
    nvme.console.check(
        f"""
        dd if=/tmp/nvme-data of={first.path} bs=64K count=1 oflag=direct status=none
        dd if=/dev/zero of={second.path} bs=64K count=1 oflag=direct status=none
        dd if={first.path} bs=64K count=1 iflag=direct status=none |
            cmp --bytes=65536 - /tmp/nvme-data"""
    )
    for number, disk in enumerate((first, second)):
        namespace = nvme.topology.attached(number)[1]
        assert (disk.size_bytes, disk.block_size) == (
            namespace.size_mib << 20,
            namespace.block_size,
        )
