# SPDX-License-Identifier: GPL-2.0-or-later
"""Commands that are not answered in time: aborted, and at last the controller is reset.

A namespace is slowed down in QEMU, so that the time-outs are real ones, or the block layer is told
to lose completions (FAIL_IO_TIMEOUT), so that the driver finds them.
"""

import errno
from collections.abc import Iterator

import pytest

from blockyard.modules.disk import Disk, read_file, write_file
from blockyard.tests.harness.requirements import feature, needs, skip, waits
from blockyard.tests.lib.fio import background_io, verified
from blockyard.tests.lib.nvme import Nvme

pytestmark = [feature("timeouts"), needs("nvme", program="nvme"), waits()]

TIMEOUT_MS = 1000  # the block layer looks once a second
AT = 64  # MiB; nothing else reads there
FAIL = "/sys/kernel/debug/fail_io_timeout"


@pytest.fixture
def impatient(nvme: Nvme) -> Iterator[Disk]:
    """A disk with a short time-out, and the kernel log emptied for `dmesg`."""
    disk = nvme.disk()
    before = disk.queue("io_timeout")
    assert disk.set_queue("io_timeout", str(TIMEOUT_MS)) == 0
    nvme.console.check("dmesg --clear")
    yield disk
    nvme.throttle(1, 0)
    assert disk.set_queue("io_timeout", before) == 0


def reads(disk: Disk, count: int) -> None:
    """Begins reads of 4 KiB, each by a process of its own."""
    one = f"dd if={disk.path} of=/tmp/back.$one bs=4k count=1 iflag=direct status=none"
    disk.console.check(
        f"""
        rm -f /tmp/back.*
        dd if=/tmp/nvme-data of={disk.path} bs=1M seek={AT} count=1 oflag=direct status=none"""
    )
    start = AT << 8
    disk.console.check(
        f"""
        for one in {{1..{count}}}; do
            ({one} skip=$(({start} + one)); echo $? > /tmp/back.$one.code) > /tmp/back.log 2>&1 &
        done"""
    )


def ended(disk: Disk, count: int) -> None:
    """Waits for them; they have to have succeeded, with the right data."""
    disk.console.check(
        f"""
        for one in {{1..{count}}}; do
            wait_until 10 [ -s /tmp/back.$one.code ]
            [ "$(cat /tmp/back.$one.code)" = 0 ] || {{ cat /tmp/back.log; exit 1; }}
            cmp --bytes=4096 --ignore-initial=0:$((one * 4096)) /tmp/back.$one /tmp/nvme-data
        done"""
    )


def logged(disk: Disk, what: str, timeout_s: int = 10) -> None:
    """Waits for a line of the kernel log."""
    disk.console.check(
        f"""
        logged() {{ dmesg | grep --quiet -e {what!r}; }}
        wait_until {timeout_s} logged ||
            {{ dmesg | tail; echo "the kernel did not say: {what}"; exit 1; }}"""
    )


def test_slow_controller_gets_an_abort_then_a_reset(nvme: Nvme, impatient: Disk) -> None:
    """Abort at a command's first time-out, reset at its second; then it is sent again.

    Whoever waits for it notices no more than the delay.
    """
    count = 5
    nvme.throttle(1, 1)
    reads(impatient, count)
    for line in ("timeout, aborting", "Abort status: 0x0", "timeout, reset controller"):
        logged(impatient, line)
    nvme.throttle(1, 0)
    ended(impatient, count)
    assert nvme.live()
    assert nvme.read(f"{impatient.sysfs}/inflight").split() == ["0", "0"]


@needs(program="fio")
def test_unresponsive_controller_is_reset(nvme: Nvme, impatient: Disk) -> None:
    """No command reaches it, nor an abort: it decodes no addresses (PCI command, bit 1).

    A reset enables that again, and what was under way is sent once more.
    """
    command = f"setpci -s {nvme.function().rpartition('/')[2]} COMMAND"
    with background_io(impatient):
        nvme.console.check(f"{command}=0:2")
        logged(impatient, "reset")  # "reset controller"; where its registers read as ones, "will"
    assert nvme.live()
    assert int(nvme.console.check(command), 16) & 2


@needs(symbol="FAIL_IO_TIMEOUT")
def test_lost_completions_are_recovered(nvme: Nvme, impatient: Disk) -> None:
    """The driver has to find out by itself; no reader notices more than the delay."""
    flag = f"{impatient.sysfs}/io-timeout-fail"
    reads(impatient, 0)
    nvme.console.check(
        f"""
        echo 100 > {FAIL}/probability
        echo 2 > {FAIL}/times
        echo 0 > {FAIL}/verbose
        echo 1 > {flag}"""
    )
    try:
        reads(impatient, 4)
        logged(impatient, "timeout, aborting")
        ended(impatient, 4)
    finally:
        nvme.console.check(f"echo 0 > {flag}; echo 0 > {FAIL}/probability")
    assert nvme.live()


@needs(symbol="FAIL_IO_TIMEOUT", program="fio")
def test_lost_completions_are_recovered_under_io(nvme: Nvme, impatient: Disk) -> None:
    """Again and again, also of commands that were sent again; all data arrives."""
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
    logged(impatient, "timeout, ")


def test_io_timeout_can_be_changed(nvme: Nvme) -> None:
    """It can be changed, and nonsense cannot be set."""
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
