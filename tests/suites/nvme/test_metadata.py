# SPDX-License-Identifier: GPL-2.0-or-later
"""Metadata and protection information: generated, checked, and reported as EILSEQ when wrong.

The topology has a namespace with plain metadata (8 bytes), one with protection information of type
1 (8 bytes, 16-bit guard) and one with a 64-bit guard (16 bytes). See "Protection Information
Formats" in the NVM Command Set specification.
"""

import errno

import pytest

from blockyard.kernel import versions
from blockyard.modules.disk import Disk, error_number
from blockyard.modules.driver import Driver
from blockyard.tests.harness.requirements import feature, needs, topology
from blockyard.tests.lib.nvme import GUARD_CHECK, REFERENCE_TAG_CHECK, Nvme

pytestmark = [
    feature("metadata"),
    topology("metadata"),
    needs("nvme", program="nvme", symbol="BLK_DEV_INTEGRITY"),
]

PLAIN, SHORT, LONG = 1, 2, 3  # NSIDs
CHECK_GUARD, CHECK_REFERENCE, GENERATE = 4, 1, 8  # PRINFO
DATA = "/tmp/nvme-data"


def crc16(data: bytes) -> int:
    """CRC-16 T10-DIF: polynomial 8BB7h, not reflected, not inverted."""
    value = 0
    for byte in data:
        value ^= byte << 8
        for _ in range(8):
            value = (value << 1 ^ (0x8BB7 if value & 0x8000 else 0)) & 0xFFFF
    return value


def crc64(data: bytes) -> int:
    """CRC-64 of NVMe: polynomial AD93D23594C93659h, reflected and inverted."""
    value = 0xFFFFFFFFFFFFFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ (0x9A6C9329AC4BC9B5 if value & 1 else 0)
    return value ^ 0xFFFFFFFFFFFFFFFF


def write(disk: Disk, lba: int, blocks: int = 1) -> int:
    """Write blocks through the block layer; return the errno, 0 for success."""
    size = disk.block_size
    return error_number(
        disk.console.run(
            f"dd if={DATA} of={disk.path} bs={size * blocks} count=1 seek={size * lba}B"
            " oflag=direct status=none"
        )
    )


def read(disk: Disk, lba: int, blocks: int = 1) -> int:
    """Read blocks through the block layer; return the errno, 0 for success, -1 for wrong data."""
    size = disk.block_size
    result = disk.console.run(
        f"dd if={disk.path} of=/tmp/back bs={size * blocks} count=1 skip={size * lba}B"
        f" iflag=direct status=none && cmp --bytes={size * blocks} /tmp/back {DATA}"
    )
    return error_number(result)


def command(disk: Disk, subcommand: str, lba: int, metadata: int, options: str = "") -> str:
    """nvme-cli arguments for one block with its metadata in a separate buffer, /tmp/metadata."""
    return (
        f"{subcommand} {disk.path} --start-block={lba} --block-count=0"
        f" --data-size={disk.block_size}"
        f" --metadata=/tmp/metadata --metadata-size={metadata} {options}"
    )


def metadata_of(nvme: Nvme, disk: Disk, lba: int, size: int) -> bytes:
    """The metadata of a block."""
    read = command(disk, "read", lba, size, "--data=/tmp/back")
    nvme.console.check(f"rm -f /tmp/metadata; nvme {read}")  # nvme does not truncate the file
    return nvme.console.get("/tmp/metadata")


def test_kernel_recognizes_the_formats(nvme: Nvme) -> None:
    disks = [nvme.disk(0, nsid) for nsid in (PLAIN, SHORT, LONG)]
    formats = [nvme.read(f"{disk.sysfs}/integrity/format") for disk in disks]
    assert formats == ["nop", "T10-DIF-TYPE1-CRC", "EXT-DIF-TYPE1-CRC64"]
    intervals = [nvme.read(f"{disk.sysfs}/integrity/protection_interval_bytes") for disk in disks]
    assert intervals == ["512", "512", "4096"]
    for disk, (nsid, namespace) in zip(disks, nvme.topology.attached(0).items(), strict=True):
        assert disk.size_bytes == namespace.blocks * namespace.block_size, nsid


def test_plain_metadata_is_kept(nvme: Nvme) -> None:
    """The block layer ignores it; passthrough commands write and read it."""
    disk = nvme.disk(0, PLAIN)
    nvme.console.check("head -c 8 /dev/urandom > /tmp/metadata")
    metadata = nvme.console.get("/tmp/metadata")
    nvme.console.check("nvme " + command(disk, "write", 64, 8, f"--data={DATA}"))
    assert metadata_of(nvme, disk, 64, 8) == metadata
    assert read(disk, 64) == 0


@pytest.mark.parametrize("nsid", [SHORT, LONG], ids=["16-bit", "64-bit"])
def test_write_generates_protection_information(nvme: Nvme, nsid: int) -> None:
    """The guard is a CRC of the block's data, the reference tag is its LBA."""
    disk, lba = nvme.disk(0, nsid), 1000
    assert write(disk, lba, 4) == 0
    data = nvme.console.get(DATA)
    size = disk.block_size
    for block in range(2):
        piece = data[block * size :][:size]
        if nsid == SHORT:
            expected = crc16(piece).to_bytes(2) + bytes(2) + (lba + block).to_bytes(4)
        else:
            expected = crc64(piece).to_bytes(8) + bytes(2) + (lba + block).to_bytes(6)
        assert metadata_of(nvme, disk, lba + block, len(expected)).hex() == expected.hex()
    assert read(disk, lba, 4) == 0


@pytest.mark.parametrize(("nsid", "metadata"), [(SHORT, 8), (LONG, 16)], ids=["16-bit", "64-bit"])
def test_a_wrong_guard_is_eilseq(nvme: Nvme, nsid: int, metadata: int) -> None:
    """Corrupted data is not returned; the block works again once it is rewritten."""
    disk, lba = nvme.disk(0, nsid), 2000
    assert write(disk, lba) == 0
    nvme.console.check("nvme " + command(disk, "read", lba, metadata, "--data=/tmp/back"))
    # write other data with the old metadata, unchecked
    nvme.console.check("nvme " + command(disk, "write", lba, metadata, "--data=/dev/zero"))
    assert read(disk, lba) == errno.EILSEQ
    assert write(disk, lba) == 0
    assert read(disk, lba) == 0


def test_wrong_reference_tag_is_eilseq(nvme: Nvme) -> None:
    """Data and guard match, but the reference tag is that of another block."""
    disk, lba = nvme.disk(0, SHORT), 3000
    assert write(disk, lba) == 0
    nvme.console.check("nvme " + command(disk, "read", lba, 8, "--data=/tmp/back"))
    nvme.console.check("nvme " + command(disk, "write", lba + 1, 8, "--data=/tmp/back"))
    assert read(disk, lba) == 0
    assert read(disk, lba + 1) == errno.EILSEQ


@feature("passthrough")
def test_controller_checks_protection_on_request(nvme: Nvme) -> None:
    """PRCHK: each field has its own error status; a refused write changes nothing."""
    disk, lba = nvme.disk(0, SHORT), 4000
    assert write(disk, lba) == 0
    for check, status in ((CHECK_GUARD, GUARD_CHECK), (CHECK_REFERENCE, REFERENCE_TAG_CHECK)):
        nvme.console.check("head -c 8 /dev/zero | tr '\\0' 'x' > /tmp/metadata")
        options = f"--data=/dev/zero --prinfo={check} --ref-tag={lba}"
        assert nvme.status(command(disk, "write", lba, 8, options)) == status
    assert read(disk, lba) == 0


def test_controller_generates_protection_if_the_kernel_does_not(nvme: Nvme) -> None:
    """With write_generate off the driver sets PRACT, so the controller adds the protection."""
    disk, lba = nvme.disk(0, SHORT), 5000
    switch = f"{disk.sysfs}/integrity/write_generate"
    nvme.console.check(f"echo 0 > {switch}")
    try:
        assert write(disk, lba) == 0
    finally:
        nvme.console.check(f"echo 1 > {switch}")
    guard = crc16(nvme.console.get(DATA)[:512])
    expected = guard.to_bytes(2) + bytes(2) + lba.to_bytes(4)
    assert metadata_of(nvme, disk, lba, 8).hex() == expected.hex()
    assert read(disk, lba) == 0


def test_read_verify_off_disables_checking(driver: Driver, nvme: Nvme) -> None:
    """With read_verify off data is returned unchecked.

    Before 6.16 the controller checked it instead (nvme_setup_rw() set PRACT and PRCHK for a request
    without an integrity payload).
    """
    disk, lba = nvme.disk(0, SHORT), 6000
    assert write(disk, lba) == 0
    nvme.console.check("head -c 8 /dev/zero | tr '\\0' 'x' > /tmp/metadata")
    nvme.console.check("nvme " + command(disk, "write", lba, 8, f"--data={DATA}"))
    assert read(disk, lba) == errno.EILSEQ
    switch = f"{disk.sysfs}/integrity/read_verify"
    nvme.console.check(f"echo 0 > {switch}")
    unchecked = versions.within(driver.kernel.info.release, ">=6.16")
    try:
        assert read(disk, lba) == (0 if unchecked else errno.EILSEQ)
    finally:
        nvme.console.check(f"echo 1 > {switch}")
