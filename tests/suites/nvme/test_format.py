# SPDX-License-Identifier: GPL-2.0-or-later
"""Formatting a namespace changes its disk."""

from collections.abc import Iterator

import pytest

from blockyard.modules.disk import Disk
from blockyard.tests.harness.requirements import feature, needs, skip, waits
from blockyard.tests.lib.fio import background_io, fio
from blockyard.tests.lib.nvme import INVALID_FORMAT, Nvme

pytestmark = [feature("format"), needs("nvme", program="nvme"), waits()]

# QEMU's nvme-ns offers 512-byte blocks as formats 0-3 and 4096-byte ones as 4-7, each without
# metadata and with 8, 16 and 64 bytes of it.
LBAF_METADATA = 1
LBAF_4K = 4


@pytest.fixture
def formatted(nvme: Nvme) -> Iterator[Disk]:
    """A disk to format; its original format is restored afterwards."""
    namespaces = list(nvme.topology.attached(0).values())
    if len(namespaces) > 1 or (namespaces[0].block_size, namespaces[0].ms) != (512, 0):
        skip("hardware", "needs a single namespace with blocks of 512 bytes without metadata")
    disk = nvme.disk()
    yield disk
    nvme.console.check(f"nvme format {disk.path} --lbaf=0 --force")
    assert disk.block_size == 512, "the disk did not change with its namespace"


def test_format_changes_the_block_size(formatted: Disk) -> None:
    disk, size = formatted, formatted.size_bytes
    disk.console.check(f"nvme format {disk.path} --lbaf={LBAF_4K} --force")
    assert disk.block_size == disk.queue_number("physical_block_size") == 4096
    assert disk.size_bytes == size
    load = fio(disk, rw="randwrite", bs="4k", size="1M", ioengine="psync", verify="crc32c")
    assert load.read_bytes == 1 << 20
    half = disk.console.run(f"dd if={disk.path} of=/dev/null bs=512 count=1 iflag=direct")
    assert "Invalid argument" in half.output, "half a block was read"


def test_format_erases(formatted: Disk) -> None:
    """QEMU's namespaces read as zeroes afterwards, and the page cache is dropped."""
    path = formatted.path
    formatted.console.check(
        f"""
        dd if=/tmp/nvme-data of={path} bs=64K count=1 conv=fsync status=none
        nvme format {path} --lbaf=0 --force
        dd if={path} bs=64K count=1 status=none | cmp -n 65536 - /dev/zero"""
    )


def test_format_with_metadata_makes_the_disk_smaller(nvme: Nvme, formatted: Disk) -> None:
    """Metadata takes space; data is written and read as before."""
    disk, size = formatted, formatted.size_bytes
    nvme.console.check(f"nvme format {disk.path} --lbaf={LBAF_METADATA} --force")
    (namespace,) = nvme.topology.attached(0).values()
    assert disk.size_bytes == (namespace.size_mib << 20) // (512 + 8) * 512 < size
    load = fio(disk, rw="randwrite", bs="4k", size="256k", ioengine="psync", verify="crc32c")
    assert load.read_bytes == 256 << 10


def test_unknown_format_is_refused(nvme: Nvme, formatted: Disk) -> None:
    disk = formatted
    assert nvme.status(f"format {disk.path} --lbaf=63 --force") == INVALID_FORMAT
    assert disk.block_size == 512
    assert fio(disk, rw="read", bs="4k", size="64k", ioengine="psync").read_bytes == 64 << 10


def test_format_under_io(formatted: Disk) -> None:
    """The queue is frozen during the format (nvme_passthru_start()): requests wait, none fails."""
    with background_io(formatted, rw="randread", bs="4k"):
        formatted.console.check(f"nvme format {formatted.path} --lbaf=0 --force", timeout_s=30)
