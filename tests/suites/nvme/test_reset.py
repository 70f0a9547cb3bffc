# SPDX-License-Identifier: GPL-2.0-or-later
"""Controller resets: queues are created again and requests in flight are retried."""

import errno

from blockyard.modules.disk import named_error, write_file
from blockyard.tests.harness.budget import Budget
from blockyard.tests.harness.requirements import feature, needs, skip, smoke, topology, waits
from blockyard.tests.lib.fio import background_io, fio, verified
from blockyard.tests.lib.nvme import Nvme

pytestmark = [feature("reset"), needs("nvme", program="nvme"), waits()]


def vectors(nvme: Nvme) -> int:
    """The number of MSI-X vectors of the controller's function."""
    return int(nvme.console.check(f"ls {nvme.function()}/msi_irqs | wc -w"))


@needs(program="fio")
@smoke
def test_reset_under_io(nvme: Nvme, budget: Budget) -> None:
    """No I/O fails because of a reset."""
    with background_io(nvme.disk()):
        for _ in range(budget.times(3)):
            nvme.console.check(f"nvme reset {nvme.device()}", timeout_s=30)
            assert nvme.live()
    load = fio(nvme.disk(), rw="read", bs="64k", size="1M", ioengine="psync")
    assert load.read_bytes == 1 << 20


@needs(program="fio")
def test_data_in_flight_survives_resets(nvme: Nvme) -> None:
    """Completed writes can be read; writes in flight are retried.

    A reset happens only while requests are in flight; the load runs until three have happened.
    """
    disk = nvme.disk()
    nvme.console.check(
        f"""
        rm -f /tmp/stop
        until [ -e /tmp/stop ]; do
            read -r reads writes < {disk.sysfs}/inflight
            if [ $((reads + writes)) != 0 ]; then
                echo 1 > {nvme.sysfs()}/reset_controller && echo done
            fi
            sleep 0.1
        done > /tmp/resets 2>&1 &
        echo $! > /tmp/resets.pid"""
    )
    try:
        for _ in range(20):
            load = verified(
                disk,
                bs="4k",
                size="4M",
                ioengine="libaio",
                iodepth=32,
            )
            assert load.read_bytes == load.written_bytes == 4 << 20
            if len(nvme.read("/tmp/resets").split()) >= 3:
                break
    finally:
        output = nvme.console.run(
            "touch /tmp/stop; pid=$(cat /tmp/resets.pid);"
            " wait_until 10 is_gone $pid; cat /tmp/resets"
        ).output
    resets = output.split()
    assert resets == ["done"] * len(resets) and len(resets) >= 3, output
    assert nvme.live()


def test_a_reset_leaks_nothing(nvme: Nvme) -> None:
    """Disk, limits, interrupts and queues are the same after a reset."""
    disk = nvme.disk()
    files = f"{disk.sysfs}/dev {disk.sysfs}/size {disk.sysfs}/diskseq {nvme.sysfs()}/queue_count"
    limits = f"{disk.sysfs}/queue/{{max_hw_sectors_kb,nr_requests,fua,write_cache}}"
    before = nvme.read(f"{files} {limits}")
    count = vectors(nvme)
    for _ in range(3):
        nvme.console.check(f"nvme reset {nvme.device()}")
    assert nvme.live()
    assert nvme.read(f"{files} {limits}") == before
    assert vectors(nvme) == count


def test_concurrent_resets_work(nvme: Nvme) -> None:
    """At least one reset succeeds; the others may fail with EBUSY or ENETRESET."""
    result = nvme.console.run(
        f"""
        for i in {{1..6}}; do
            (echo 1 > {nvme.sysfs()}/reset_controller && echo done) > /tmp/reset.$i 2>&1 &
        done
        wait
        cat /tmp/reset.*"""
    )
    answers = result.output.splitlines()
    assert len(answers) == 6 and "done" in answers, result.output
    # a reset that is followed by another at once does not see the controller live
    refusals = {errno.EBUSY, errno.ENETRESET}
    assert {named_error(line) for line in answers if line != "done"} <= refusals, result.output
    assert nvme.live()
    assert fio(nvme.disk(), rw="read", bs="64k", size="1M", ioengine="psync").read_bytes == 1 << 20


@needs(program="fio")
def test_function_level_reset_under_io(nvme: Nvme) -> None:
    """The PCI core resets the function and notifies the driver before and after."""
    function = nvme.function()
    if "flr" not in nvme.read(f"{function}/reset_method"):
        skip("hardware", "the function does not support function level reset")
    with background_io(nvme.disk()):
        assert write_file(nvme.console, f"{function}/reset", "1") == 0
        assert nvme.live()
    assert fio(nvme.disk(), rw="read", bs="64k", size="1M", ioengine="psync").read_bytes == 1 << 20


@needs(program="fio")
def test_rescans_under_io(nvme: Nvme, budget: Budget) -> None:
    """Rescanning namespaces keeps the disk, and its I/O goes on."""
    disk = nvme.disk()
    sequence = nvme.read(f"{disk.sysfs}/diskseq")
    with background_io(disk):
        for _ in range(budget.times(3)):
            nvme.console.check(f"echo 1 > {nvme.sysfs()}/rescan_controller")
            nvme.rescan(f"nvme ns-rescan {nvme.device()}")
    assert nvme.read(f"{disk.sysfs}/diskseq") == sequence


def test_unsupported_subsystem_reset_is_refused(nvme: Nvme) -> None:
    """CAP.NSSRS (section 3.1.3.1) is 0 in QEMU: the ioctl fails and nothing is reset."""
    nvme.console.check("dmesg --clear")
    result = nvme.console.run(f"nvme subsystem-reset {nvme.device()}")
    assert result.exit_code and "not supported" in result.output, result.output
    assert "resetting" not in nvme.console.check("dmesg")
    assert nvme.live()


@feature("sharing")
@topology("controllers")
@needs(program="fio")
def test_reset_leaves_the_other_controller_alone(nvme: Nvme) -> None:
    """I/O on the other controller goes on, and it is not reset."""
    other = nvme.disk(1)
    nvme.console.check("dmesg --clear")
    with background_io(other, bs=other.block_size):
        nvme.console.check(f"nvme reset {nvme.device(0)}")
    log = nvme.console.check("dmesg")
    assert f"{nvme.names[0]}: resetting" in log
    assert f"{nvme.names[1]}: resetting" not in log
    assert nvme.live(0) and nvme.live(1)
