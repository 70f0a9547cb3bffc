# SPDX-License-Identifier: GPL-2.0-or-later
"""Bad blocks: which errors reach users, the kernel log and the error log.

In the topology `errors`, blocks 2048 to 2055 cannot be read, 4096 to 4103 cannot be written, and
8192 fails once.
"""

import errno

from blockyard.modules.disk import Disk, error_number, write_file
from blockyard.tests.harness.requirements import feature, needs, skip, topology
from blockyard.tests.lib.nvme import INVALID_OPCODE, UNRECOVERED_READ, Nvme, qemu_log

pytestmark = [feature("errors"), topology("errors"), needs("nvme", program="nvme")]

BAD_READ, BAD_WRITE, BAD_ONCE, BAD_BLOCKS = 2048, 4096, 8192, 8


def read(disk: Disk, lba: int, blocks: int = 1) -> int:
    """Read blocks with direct I/O; return the errno, 0 for success."""
    return error_number(
        disk.console.run(
            f"dd if={disk.path} of=/dev/null bs={512 * blocks} count=1 skip={512 * lba}B"
            f" iflag=direct status=none"
        )
    )


def write(disk: Disk, lba: int, blocks: int = 1) -> int:
    """Write blocks with direct I/O; return the errno, 0 for success."""
    return error_number(
        disk.console.run(
            f"dd if=/tmp/nvme-data of={disk.path} bs={512 * blocks} count=1 seek={512 * lba}B"
            f" oflag=direct status=none"
        )
    )


def test_unreadable_block_is_enodata(nvme: Nvme) -> None:
    """A medium error (BLK_STS_MEDIUM) is ENODATA, not EIO. Blocks next to it can be read."""
    disk = nvme.disk()
    results = {lba: read(disk, lba) for lba in (2047, 2048, 2055, 2056)}
    assert results == {2047: 0, 2048: errno.ENODATA, 2055: errno.ENODATA, 2056: 0}
    assert read(disk, BAD_READ - 8, 16) == errno.ENODATA, "a partial error was not reported"
    assert write(disk, BAD_READ) == 0, "an unreadable block cannot be written"


def test_unwritable_block_is_enodata(nvme: Nvme) -> None:
    disk = nvme.disk()
    results = {lba: write(disk, lba) for lba in (4095, 4096, 4103, 4104)}
    assert results == {4095: 0, 4096: errno.ENODATA, 4103: errno.ENODATA, 4104: 0}
    assert read(disk, BAD_WRITE) == 0


def test_buffered_write_error_is_reported_by_fsync(nvme: Nvme) -> None:
    """The page cache takes the data; fsync() reports the error once."""
    disk = nvme.disk()
    bad = f"of={disk.path} bs=4k seek={BAD_WRITE // 8} count=1 conv=fsync,notrunc"
    result = disk.console.run(f"dd if=/tmp/nvme-data {bad} status=none")
    assert error_number(result) == errno.EIO and "fsync" in result.output, result.output
    good = f"of={disk.path} bs=4k seek={BAD_WRITE // 8 + 64} count=1 conv=fsync,notrunc"
    disk.console.check(f"dd if=/tmp/nvme-data {good} status=none")


def test_buffered_read_stops_at_the_bad_block(nvme: Nvme) -> None:
    """Read-ahead hits the bad block first; the blocks before it are still read."""
    disk = nvme.disk()
    result = disk.console.run(f"dd if={disk.path} bs=4k count=512 status=none | wc -c")
    assert result.output.split()[-1] == str(BAD_READ * 512)


def test_failed_command_is_retried(nvme: Nvme) -> None:
    """The status lacks Do Not Retry, so the driver retries and the reader sees no error."""
    disk = nvme.disk()
    before = qemu_log(nvme.machine).count("aio failed")
    expected = 0 if "spent" in nvme.console.run("cat /tmp/once").output else 1
    assert read(disk, BAD_ONCE) == 0
    nvme.console.check("echo spent > /tmp/once")  # the block fails once in the guest's life
    assert qemu_log(nvme.machine).count("aio failed") - before == expected


def test_the_kernel_log_names_block_and_status(nvme: Nvme) -> None:
    """Status Code Type 2 is "Media and Data Integrity Errors"; code 81h is a read error."""
    disk = nvme.disk()
    assert read(disk, BAD_READ + 3) == errno.ENODATA
    line = nvme.console.check("dmesg | grep 'I/O Cmd' | tail -n 1")
    assert f"{disk.name}: I/O Cmd(0x2) @ LBA {BAD_READ + 3}, 1 blocks" in line
    assert "(sct 0x2 / sc 0x81)" in line


@feature("passthrough")
def test_passthrough_errors_are_logged_on_request(nvme: Nvme) -> None:
    """The program gets the status; the kernel logs it only if that is switched on (since 6.9)."""
    disk = nvme.disk()
    io = f"io-passthru {disk.path} --opcode=2 --namespace-id=1 --cdw10={BAD_READ} --data-len=512"
    admin = f"admin-passthru {nvme.device()} --opcode=0x7f"
    for command, switch, status, logged in (
        (
            f"{io} --read",
            f"{disk.sysfs}/passthru_err_log_enabled",
            UNRECOVERED_READ,
            "I/O Cmd(0x2)",
        ),
        (
            admin,
            f"{nvme.sysfs()}/passthru_err_log_enabled",
            INVALID_OPCODE,
            "Admin Cmd(0x7f)",
        ),
    ):
        if nvme.console.run(f"[ -e {switch} ]").exit_code:
            skip("kernel", "this kernel has no passthru_err_log_enabled")
        for value, count in (("off", 0), ("on", 1), ("off", 0)):
            assert write_file(nvme.console, switch, value) == 0
            nvme.console.check("dmesg --clear")
            assert nvme.status(command) == status
            assert nvme.console.check("dmesg").count(logged) == count, value


@feature("smart")
def test_the_error_log_can_be_read(nvme: Nvme) -> None:
    """It has as many entries as ELPE says (0's based) and as many errors as SMART counts.

    QEMU's error log stays empty.
    """
    read(nvme.disk(), BAD_READ)
    entries = nvme.query(f"error-log {nvme.device()}")["errors"]
    identity = nvme.query(f"id-ctrl {nvme.device()}")
    assert len(entries) == identity["elpe"] + 1
    counted = int(nvme.query(f"smart-log {nvme.device()}")["num_err_log_entries"])
    assert sum(entry["error_count"] != 0 for entry in entries) == min(counted, len(entries))
