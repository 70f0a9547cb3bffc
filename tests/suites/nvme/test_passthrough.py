# SPDX-License-Identifier: GPL-2.0-or-later
"""Passthrough commands by ioctl (NVME_IOCTL_IO_CMD, NVME_IOCTL_ADMIN_CMD) and by io_uring.

Opcodes are those of the NVM Command Set specification; a count of blocks is 0's based.
"""

from typing import Any

import pytest

from blockyard.tests.harness.requirements import feature, needs, skip, smoke, topology
from blockyard.tests.lib.fio import statistics, verified
from blockyard.tests.lib.nvme import (
    COMPARE_FAILURE,
    INVALID_FIELD,
    INVALID_OPCODE,
    LBA_OUT_OF_RANGE,
    Nvme,
    generic,
)

pytestmark = [feature("passthrough"), needs("nvme", program="nvme")]

FLUSH, WRITE, READ = 0x00, 0x01, 0x02
DATA = "/tmp/nvme-data"
LBA, BYTES = 512, 4096  # start and length of the transfers


def io(nvme: Nvme, path: str, opcode: int, options: str = "", lba: int = LBA) -> str:
    """nvme-cli arguments of an I/O command for BYTES bytes at `lba`."""
    blocks = BYTES // nvme.disk().block_size
    return (
        f"io-passthru {path} --opcode={opcode} --namespace-id=1"
        f" --cdw10={lba} --cdw12={blocks - 1} {options}"
    )


@pytest.mark.parametrize("node", ["block", "generic"])
@smoke
def test_passthrough_writes_and_reads(nvme: Nvme, node: str) -> None:
    """Through the block device and the generic character device; block I/O sees the same data."""
    disk = nvme.disk()
    path = disk.path if node == "block" else generic(disk)
    write = io(nvme, path, WRITE, f"--data-len={BYTES} --write --input-file={DATA}")
    read = io(nvme, path, READ, f"--data-len={BYTES} --read --raw-binary")
    device = f"{disk.path} bs={BYTES} count=1 status=none"
    skip = LBA * disk.block_size // BYTES
    nvme.console.check(
        f"""
        dd if=/dev/zero of={device} seek={skip} oflag=direct
        nvme {write}
        dd if={device} skip={skip} iflag=direct | cmp --bytes={BYTES} - {DATA}
        nvme {read} 2> /dev/null > /tmp/back
        cmp --bytes={BYTES} /tmp/back {DATA}"""
    )


def test_compare_detects_a_difference(nvme: Nvme) -> None:
    path, blocks = nvme.disk().path, BYTES // nvme.disk().block_size
    blocks_of = f"{path} --start-block={LBA} --block-count={blocks - 1} --data-size={BYTES}"
    nvme.console.check(f"nvme write {blocks_of} --data={DATA}")
    assert nvme.status(f"compare {blocks_of} --data={DATA}") == 0
    assert nvme.status(f"compare {blocks_of} --data=/dev/zero") == COMPARE_FAILURE


def test_verify_write_zeroes_and_deallocate_work(nvme: Nvme) -> None:
    """Verify, Write Zeroes and Deallocate (after which QEMU's namespaces read as zeroes)."""
    disk = nvme.disk()
    path, blocks = disk.path, BYTES // disk.block_size
    span = f"--start-block={LBA} --block-count={blocks - 1}"
    write = f"nvme write {path} {span} --data-size={BYTES} --data={DATA}"
    read = f"dd if={path} bs={disk.block_size} count={blocks} iflag=direct status=none skip={LBA}"
    nvme.console.check(
        f"""
        {write}
        nvme verify {path} {span}
        nvme write-zeroes {path} {span}
        {read} | cmp --bytes={BYTES} - /dev/zero
        {write}
        {read} | cmp --bytes={BYTES} - {DATA}
        nvme dsm {path} --ad --slbs={LBA} --blocks={blocks}
        {read} | cmp --bytes={BYTES} - /dev/zero
        nvme flush {path}"""
    )


@topology("namespaces")
def test_copy(nvme: Nvme) -> None:
    """The controller copies several ranges to one.

    Not in every topology: the namespace of a hot-plugged controller has MSSRL 0.
    """
    disk = nvme.disk()
    path, blocks = disk.path, BYTES // disk.block_size
    read = f"dd if={path} bs={BYTES} iflag=direct status=none"
    first, second, target = LBA // blocks, LBA // blocks + 8, LBA // blocks + 16
    nvme.console.check(
        f"""
        dd if={DATA} of={path} bs={BYTES} count=1 seek={second} oflag=direct status=none
        dd if={DATA} of={path} bs={BYTES} count=1 seek={first} skip=1 oflag=direct status=none
        nvme copy {path} --sdlba={target * blocks} --slbs={second * blocks},{first * blocks} \
            --blocks={blocks - 1},{blocks - 1}
        {read} skip={target} count=2 | cmp --bytes={2 * BYTES} - {DATA}"""
    )


@smoke
def test_device_status_is_returned(nvme: Nvme) -> None:
    """The program gets the exact status code, not just an error."""
    path = nvme.disk().path
    read = f"--data-len={BYTES} --read"
    assert nvme.status(io(nvme, path, READ, read, lba=0xFFFFFFFF)) == LBA_OUT_OF_RANGE
    assert nvme.status(io(nvme, path, 0x7E)) == INVALID_OPCODE
    assert nvme.status(f"admin-passthru {nvme.device()} --opcode=0x7f") == INVALID_OPCODE
    unknown_log = f"get-log {nvme.device()} --log-id=0x77 --log-len=512"
    assert nvme.status(unknown_log) == INVALID_FIELD
    assert nvme.live(), "a refused command stopped the controller"


def test_command_for_another_namespace_is_einval(nvme: Nvme) -> None:
    """A namespace's device node reaches no other namespace (nvme_validate_passthru_nsid())."""
    for path in (nvme.disk().path, generic(nvme.disk())):
        result = nvme.console.run(
            f"nvme io-passthru {path} --opcode={READ} --namespace-id=2 --data-len=512 --read"
        )
        assert result.exit_code and "Invalid argument" in result.output


def test_admin_command_returns_its_data(nvme: Nvme) -> None:
    """Identify with CNS 1 (section 5.17.2.1) has the serial number at byte 4."""
    serial = nvme.console.check(
        f"nvme admin-passthru {nvme.device()} --opcode=6 --cdw10=1 --data-len=4096 --read"
        f" --raw-binary 2> /dev/null | tail --bytes=+5 | head --bytes=20"
    )
    assert serial.strip() == nvme.topology.controllers[0].serial


def test_statistics_count_passthrough_on_request(nvme: Nvme) -> None:
    """Statistics count block I/O only, unless iostats_passthrough is on (since 6.13)."""
    disk = nvme.disk()
    if nvme.console.run(f"[ -e {disk.sysfs}/queue/iostats_passthrough ]").exit_code:
        skip("kernel", "this kernel has no iostats_passthrough")
    read = io(nvme, disk.path, READ, f"--data-len={BYTES} --read")
    for value, counted in (("0", 0), ("1", 1), ("0", 0)):
        assert disk.set_queue("iostats_passthrough", value) == 0
        before = statistics(disk)
        nvme.console.check(f"nvme {read}")
        after = statistics(disk)
        assert after["reads"] - before["reads"] == counted
        assert after["read_sectors"] - before["read_sectors"] == counted * BYTES // 512


@needs(program="fio")
@pytest.mark.parametrize("buffers", ["plain", "fixed"])
@smoke
def test_io_uring_commands(nvme: Nvme, buffers: str) -> None:
    """Many commands in flight through the generic device, with plain or registered buffers."""
    fixed: dict[str, Any] = {"fixedbufs": 1, "registerfiles": 1} if buffers == "fixed" else {}
    load = verified(
        nvme.disk(),
        filename=generic(nvme.disk()),
        direct=0,  # a character device has no page cache and no O_DIRECT
        ioengine="io_uring_cmd",
        cmd_type="nvme",
        bs="4k",
        size="1M",
        iodepth=16,
        **fixed,
    )
    assert load.read_bytes == load.written_bytes == 1 << 20
