# SPDX-License-Identifier: GPL-2.0-or-later
"""Command time-outs: the driver aborts the command, then resets the controller.

QEMU throttles a namespace, so that commands really time out, or the block layer drops completions
(FAIL_IO_TIMEOUT), so that the driver has to find them.
"""

import errno
from collections.abc import Iterator

import pytest

from blockyard.modules.disk import Disk, read_file, write_file
from blockyard.tests.harness.requirements import feature, needs, skip, waits
from blockyard.tests.lib.fio import background_io, verified
from blockyard.tests.lib.nvme import Nvme

pytestmark = [feature("timeouts"), needs("nvme", program="nvme"), waits()]

TIMEOUT_MS = 1000  # the block layer checks once a second
AT_MIB = 64  # nothing else reads there
FAIL = "/sys/kernel/debug/fail_io_timeout"


@pytest.fixture
def impatient(nvme: Nvme) -> Iterator[Disk]:
    """A disk with a short time-out; the kernel log is cleared."""
    disk = nvme.disk()
    before = disk.queue("io_timeout")
    assert disk.set_queue("io_timeout", str(TIMEOUT_MS)) == 0
    nvme.console.check("dmesg --clear")
    yield disk
    nvme.throttle(1, 0)
    assert disk.set_queue("io_timeout", before) == 0


def start_reads(disk: Disk, count: int) -> None:
    """Start reads of 4 KiB in the background, each in its own process."""
    read = f"dd if={disk.path} of=/tmp/back.$i bs=4k count=1 iflag=direct status=none"
    disk.console.check(
        f"""
        rm -f /tmp/back.*
        dd if=/tmp/nvme-data of={disk.path} bs=1M seek={AT_MIB} count=1 oflag=direct status=none"""
    )
    start = AT_MIB << 8
    disk.console.check(
        f"""
        for i in {{1..{count}}}; do
            ({read} skip=$(({start} + i)); echo $? > /tmp/back.$i.code) > /tmp/back.log 2>&1 &
        done"""
    )


def check_reads(disk: Disk, count: int) -> None:
    """Wait for the reads; check that they succeeded and returned the right data."""
    disk.console.check(
        f"""
        for i in {{1..{count}}}; do
            wait_until 10 [ -s /tmp/back.$i.code ]
            [ "$(cat /tmp/back.$i.code)" = 0 ] || {{ cat /tmp/back.log; exit 1; }}
            cmp --bytes=4096 --ignore-initial=0:$((i * 4096)) /tmp/back.$i /tmp/nvme-data
        done"""
    )


def wait_for_log(disk: Disk, text: str, timeout_s: int = 10) -> None:
    """Wait for a text in the kernel log."""
    disk.console.check(
        f"""
        logged() {{ dmesg | grep --quiet -e {text!r}; }}
        wait_until {timeout_s} logged ||
            {{ dmesg | tail; echo "not in the kernel log: {text}"; exit 1; }}"""
    )


def test_slow_controller_gets_an_abort_then_a_reset(nvme: Nvme, impatient: Disk) -> None:
    """The first time-out of a command aborts it, the second resets the controller.

    The command is then retried, so its reader sees a delay and no error.
    """
    count = 5
    nvme.throttle(1, 1)
    start_reads(impatient, count)
    for line in ("timeout, aborting", "Abort status: 0x0", "timeout, reset controller"):
        wait_for_log(impatient, line)
    nvme.throttle(1, 0)
    check_reads(impatient, count)
    assert nvme.live()
    assert nvme.read(f"{impatient.sysfs}/inflight").split() == ["0", "0"]


@needs(program="fio")
def test_unresponsive_controller_is_reset(nvme: Nvme, impatient: Disk) -> None:
    """Neither commands nor aborts reach the controller: memory space is off (PCI command, bit 1).

    A reset turns it on again, and commands in flight are retried.
    """
    command = f"setpci -s {nvme.function().rpartition('/')[2]} COMMAND"
    with background_io(impatient):
        nvme.console.check(f"{command}=0:2")
        # "reset controller", or "will reset" if its registers read as ones
        wait_for_log(impatient, "reset")
    assert nvme.live()
    assert int(nvme.console.check(command), 16) & 2


@needs(symbol="FAIL_IO_TIMEOUT")
def test_lost_completions_are_recovered(nvme: Nvme, impatient: Disk) -> None:
    """The driver finds the completions itself; readers see a delay and no error."""
    flag = f"{impatient.sysfs}/io-timeout-fail"
    start_reads(impatient, 0)
    nvme.console.check(
        f"""
        echo 100 > {FAIL}/probability
        echo 2 > {FAIL}/times
        echo 0 > {FAIL}/verbose
        echo 1 > {flag}"""
    )
    try:
        start_reads(impatient, 4)
        wait_for_log(impatient, "timeout, aborting")
        check_reads(impatient, 4)
    finally:
        nvme.console.check(f"echo 0 > {flag}; echo 0 > {FAIL}/probability")
    assert nvme.live()


@needs(symbol="FAIL_IO_TIMEOUT", program="fio")
def test_lost_completions_are_recovered_under_io(nvme: Nvme, impatient: Disk) -> None:
    """Completions of retried commands get lost, too; all data arrives."""
    flag = f"{impatient.sysfs}/io-timeout-fail"
    nvme.console.check(
        f"""
        echo 1 > {FAIL}/probability
        echo 3 > {FAIL}/times
        echo 0 > {FAIL}/verbose
        echo 1 > {flag}"""
    )
    try:
        load = verified(
            impatient,
            bs="4k",
            size="2M",
            ioengine="libaio",
            iodepth=8,
        )
    finally:
        nvme.console.check(f"echo 0 > {flag}; echo 0 > {FAIL}/probability")
    assert load.read_bytes == 2 << 20
    wait_for_log(impatient, "timeout, ")


def test_io_timeout_can_be_changed(nvme: Nvme) -> None:
    """io_timeout can be changed; invalid values are refused."""
    disk = nvme.disk()
    before = disk.queue("io_timeout")
    for nonsense in ("0", "nonsense"):
        assert disk.set_queue("io_timeout", nonsense) == errno.EINVAL
        assert disk.queue("io_timeout") == before
    assert disk.set_queue("io_timeout", "5000") == 0
    assert disk.queue("io_timeout") == "5000"
    assert disk.set_queue("io_timeout", before) == 0


def test_zero_admin_timeout_is_einval(nvme: Nvme) -> None:
    path = f"/sys/class/nvme/{nvme.names[0]}/admin_timeout"
    if nvme.console.run(f"test -w {path}").exit_code:
        skip("kernel", "this kernel has no admin_timeout", "admin_timeout")
    before = read_file(nvme.console, path)
    assert write_file(nvme.console, path, "0") == errno.EINVAL
    assert read_file(nvme.console, path) == before
