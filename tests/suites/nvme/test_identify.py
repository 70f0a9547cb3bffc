# SPDX-License-Identifier: GPL-2.0-or-later
"""Identify data of controllers and namespaces, compared with the topology and with sysfs."""

from blockyard.images.hardware.topology import Namespace
from blockyard.tests.harness.requirements import feature, needs, smoke, topology
from blockyard.tests.lib.fio import fio
from blockyard.tests.lib.nvme import Nvme

pytestmark = [feature("identify"), needs("nvme", program="nvme")]


@smoke
def test_identify_controller(nvme: Nvme) -> None:
    identity = nvme.query(f"id-ctrl {nvme.device()}")
    controller = nvme.topology.controllers[0]
    assert identity["sn"].strip() == controller.serial
    assert identity["mn"].startswith("QEMU NVMe Ctrl")
    assert identity["mdts"] == controller.mdts
    assert identity["sqes"] & 0xF == 6  # 64-byte submission queue entries, by the specification
    assert identity["cqes"] & 0xF == 4  # 16-byte completions


def test_sysfs_matches_identify(nvme: Nvme) -> None:
    identity = nvme.query(f"id-ctrl {nvme.device()}")
    for file, field in (("serial", "sn"), ("model", "mn"), ("firmware_rev", "fr")):
        assert nvme.read(f"{nvme.sysfs()}/{file}") == identity[field].strip()
    assert int(nvme.read(f"{nvme.sysfs()}/cntlid")) == identity["cntlid"]
    assert nvme.read(f"{nvme.sysfs()}/subsysnqn") == identity["subnqn"]
    assert nvme.read(f"{nvme.sysfs()}/transport") == "pcie"
    assert nvme.read(f"{nvme.sysfs()}/address") == nvme.function().rpartition("/")[2]


@topology("4k")
def test_identify_namespace(nvme: Nvme) -> None:
    """The disk has the size and block size of the namespace, and I/O works at its end."""
    (namespace,) = nvme.topology.attached(0).values()
    disk = nvme.disk()
    _check_identity(nvme.query(f"id-ns {disk.path}"), namespace)
    assert disk.size_bytes == namespace.size_mib << 20
    assert disk.block_size == namespace.block_size
    load = fio(
        disk,
        rw="randwrite",
        bs=namespace.block_size,
        size="64k",
        ioengine="psync",
        offset=disk.size_bytes - (64 << 10),
        verify="crc32c",
        do_verify=1,
    )
    assert load.read_bytes == load.written_bytes == 64 << 10


@feature("multi-namespace")
@topology("namespaces")
def test_each_namespace_is_identified(nvme: Nvme) -> None:
    attached = nvme.topology.attached(0)
    listed = [entry["nsid"] for entry in nvme.query(f"list-ns {nvme.device()}")["nsid_list"]]
    assert listed == sorted(attached)
    for nsid, namespace in attached.items():
        _check_identity(nvme.query(f"id-ns {nvme.device()} --namespace-id={nsid}"), namespace)
        disk = nvme.disk(0, nsid)
        assert (disk.size_bytes, disk.block_size) == (
            namespace.size_mib << 20,
            namespace.block_size,
        )


def test_optional_commands_are_used_if_supported(nvme: Nvme) -> None:
    """ONCS: bit 2 is Dataset Management (used for discard), bit 3 is Write Zeroes."""
    disk, oncs = nvme.disk(), nvme.query(f"id-ctrl {nvme.device()}")["oncs"]
    assert (disk.queue_number("discard_max_bytes") > 0) == bool(oncs & 4)
    assert (disk.queue_number("write_zeroes_max_bytes") > 0) == bool(oncs & 8)


def test_disk_has_a_stable_wwid(nvme: Nvme) -> None:
    """QEMU's own identifiers are ignored (NVME_QUIRK_BOGUS_NID), so the wwid has these parts."""
    identity = nvme.query(f"id-ctrl {nvme.device()}")
    serial, model = (identity[field].strip().encode().hex() for field in ("sn", "mn"))
    wwid = f"nvme.{identity['vid']:04x}-{serial}-{model}-00000001"
    assert nvme.read(f"{nvme.disk().sysfs}/wwid") == wwid


def _check_identity(identified: dict[str, int], namespace: Namespace) -> None:
    formats: list[dict[str, int]] = identified["lbafs"]  # type: ignore[assignment]
    in_use = formats[identified["flbas"] & 0xF]
    assert 1 << in_use["ds"] == namespace.block_size
    assert identified["nsze"] == identified["ncap"] == namespace.blocks
