# SPDX-License-Identifier: GPL-2.0-or-later
"""A controller is reset: its queues are made anew, and requests on their way come again."""

import errno

from blockyard.modules.disk import named_error, write_file
from blockyard.tests.harness.budget import Budget
from blockyard.tests.harness.requirements import feature, needs, skip, smoke, topology, waits
from blockyard.tests.lib.fio import background_io, fio, verified
from blockyard.tests.lib.nvme import Nvme

pytestmark = [feature("reset"), needs("nvme", program="nvme"), waits()]


def vectors(nvme: Nvme) -> int:
    """How many interrupts the controller's function has."""
    return int(nvme.console.check(f"ls {nvme.function()}/msi_irqs | wc -w"))


@needs(program="fio")
@smoke
def test_reset_under_io(nvme: Nvme, budget: Budget) -> None:
    """Nobody's I/O fails by it."""
    with background_io(nvme.disk()):
        for _ in range(budget.times(3)):
            nvme.console.check(f"nvme reset {nvme.device()}", timeout_s=30)
            assert nvme.live()
    load = fio(nvme.disk(), rw="read", bs="64k", size="1M", ioengine="psync")
    assert load.read_bytes == 1 << 20


@needs(program="fio")
def test_data_in_flight_survives_resets(nvme: Nvme) -> None:
    """What was acknowledged can be read, what was not is written again.

    Each reset meets requests that are under way, and the load goes on until there were some.
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
        told = nvme.console.run(
            "touch /tmp/stop; pid=$(cat /tmp/resets.pid);"
            " wait_until 10 is_gone $pid; cat /tmp/resets"
        )
    resets = told.output.split()
    assert resets == ["done"] * len(resets) and len(resets) >= 3, told.output
    assert nvme.live()


def test_a_reset_leaks_nothing(nvme: Nvme) -> None:
    """The same disk with the same settings, as many interrupts and queues as before."""
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
    """One of them resets, the others wait or are told that it is under way; then all works."""
    told = nvme.console.run(
        f"""
        for one in {{1..6}}; do
            (echo 1 > {nvme.sysfs()}/reset_controller && echo done) > /tmp/reset.$one 2>&1 &
        done
        wait
        cat /tmp/reset.*"""
    )
    answers = told.output.splitlines()
    assert len(answers) == 6 and "done" in answers, told.output
    # a reset that another one follows at once does not see the controller live
    refusals = {errno.EBUSY, errno.ENETRESET}
    assert {named_error(one) for one in answers if one != "done"} <= refusals, told.output
    assert nvme.live()
    assert fio(nvme.disk(), rw="read", bs="64k", size="1M", ioengine="psync").read_bytes == 1 << 20


@needs(program="fio")
def test_function_level_reset_under_io(nvme: Nvme) -> None:
    """PCI resets the function below the driver, which is told before and after."""
    function = nvme.function()
    if "flr" not in nvme.read(f"{function}/reset_method"):
        skip("hardware", "the function has no function level reset")
    with background_io(nvme.disk()):
        assert write_file(nvme.console, f"{function}/reset", "1") == 0
        assert nvme.live()
    assert fio(nvme.disk(), rw="read", bs="64k", size="1M", ioengine="psync").read_bytes == 1 << 20


@needs(program="fio")
def test_rescans_under_io(nvme: Nvme, budget: Budget) -> None:
    """Of namespaces: the disk stays, and so does what is done with it."""
    disk = nvme.disk()
    sequence = nvme.read(f"{disk.sysfs}/diskseq")
    with background_io(disk):
        for _ in range(budget.times(3)):
            nvme.console.check(f"echo 1 > {nvme.sysfs()}/rescan_controller")
            nvme.scanned(f"nvme ns-rescan {nvme.device()}")
    assert nvme.read(f"{disk.sysfs}/diskseq") == sequence


def test_unsupported_subsystem_reset_is_refused(nvme: Nvme) -> None:
    """CAP.NSSRS (section 3.1.3.1) is 0 in QEMU: ENOTTY, and nothing is written to the register."""
    nvme.console.check("dmesg --clear")
    told = nvme.console.run(f"nvme subsystem-reset {nvme.device()}")
    assert told.exit_code and "not supported" in told.output, told.output
    assert "resetting" not in nvme.console.check("dmesg")
    assert nvme.live()


@feature("sharing")
@topology("controllers")
@needs(program="fio")
def test_reset_leaves_the_other_controller_alone(nvme: Nvme) -> None:
    """The I/O of another one goes on; its queues are not touched."""
    other = nvme.disk(1)
    nvme.console.check("dmesg --clear")
    with background_io(other, bs=other.block_size):
        nvme.console.check(f"nvme reset {nvme.device(0)}")
    told = nvme.console.check("dmesg")
    assert f"{nvme.names[0]}: resetting" in told
    assert f"{nvme.names[1]}: resetting" not in told
    assert nvme.live(0) and nvme.live(1)
