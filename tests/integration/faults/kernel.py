# SPDX-License-Identifier: GPL-2.0-or-later
"""Faults of the guest's kernel: splats, hangs, panics, a flood of messages."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from blockyard.images.errors import CommandHung, GuestHung, GuestPanicked
from blockyard.images.machine.diagnose import EVIDENCE
from blockyard.images.machine.machine import Machine
from blockyard.tests.integration.faults.fault import GOES_ON, Guests, answers, fault, kinds, trouble
from blockyard.tests.lib.nvme import BlockStats


@fault("the kernel panics (`echo c > /proc/sysrq-trigger`)", "GuestPanicked")
def panic(guests: Guests) -> None:
    with guests.boot() as guest:
        with pytest.raises(GuestPanicked) as caught:
            guest.serial.run("echo c > /proc/sysrq-trigger; sleep 600", 600)
        assert "sysrq triggered crash" in caught.value.kernel_log


@fault("the kernel panics while the other console waits", "GuestPanicked")
def panic_over_ssh(guests: Guests) -> None:
    with guests.boot(ssh=True) as guest, pytest.raises(GuestPanicked):
        guest.console("ssh").run("echo c > /proc/sysrq-trigger; sleep 600", 600)


@fault("a module hits BUG()", f"{GOES_ON}; a splat is found")
def bug(guests: Guests) -> None:
    with guests.boot() as guest:
        assert trouble(guest, "bug") != 0
        answers(guest.serial)
        assert "BUG" in kinds(guest)


@fault("a module hits WARN()", f"{GOES_ON}; a splat is found")
def warn(guests: Guests) -> None:
    with guests.boot() as guest:
        assert trouble(guest, "warn") == 0
        answers(guest.serial)
        assert kinds(guest) == {"WARNING"}


@fault("a processor is held for seconds: soft lockup", f"{GOES_ON}; a splat is found", within_s=60)
def soft_lockup(guests: Guests) -> None:
    with guests.boot() as guest:
        guest.serial.check("echo 2 > /proc/sys/kernel/watchdog_thresh")
        assert trouble(guest, "lockup", 120, seconds=10) == 0
        answers(guest.serial)
        assert "soft lockup" in kinds(guest)


@fault("a kernel thread spins", GOES_ON)
def spinning_thread(guests: Guests) -> None:
    with guests.boot() as guest:
        assert trouble(guest, "spin") == 0
        for _ in range(20):
            answers(guest.serial)


HUNG = "CommandHung, the guest goes on"


@contextmanager
def busy_host() -> Iterator[None]:
    """Run twice as many busy loops as the host has processors."""
    programs = [
        subprocess.Popen([sys.executable, "-c", "while True: pass"])
        for _ in range(2 * (os.cpu_count() or 1))
    ]
    try:
        yield
    finally:
        for program in programs:
            program.kill()
            program.wait()


def hangs(guest: Machine, script: str, match: str) -> CommandHung:
    """Run a script that hangs, and check that this is found after 5 s of the guest's time."""
    started = time.monotonic()
    with pytest.raises(CommandHung, match=match) as caught:
        guest.serial.run(f"set -e\n{script}", 6000, blocked_s=5)
    assert 5 < time.monotonic() - started < 45
    answers(guest.serial)
    return caught.value


@fault("a task is stuck in the kernel", f"{HUNG}; its stack and the lines before it")
def stuck_task(guests: Guests) -> None:
    with guests.boot() as guest:
        guest.log.begin()
        script = "echo '<4>trouble: a line before' > /dev/kmsg; exec modprobe trouble what=stuck"
        error = hangs(guest, script, r"modprobe trouble what=stuck, pid \d+, hangs.*be killed")
        before, _, stack = error.kernel_log.partition("Show Blocked State")
        assert "trouble: a line before" in before
        assert "Linux version" not in before
        assert "do_init_module" in stack
        assert "RSP:" not in stack
        blocked = guest.log.text().partition("Show Blocked State")[2]
        assert "task:modprobe" in blocked
        assert "[trouble]" in blocked


@fault("the same, and the host is busy", f"{HUNG}, as soon")
def stuck_on_a_busy_host(guests: Guests) -> None:
    with busy_host(), guests.boot() as guest:
        hangs(guest, "modprobe trouble what=stuck", "modprobe")


@fault("a command waits without end, in a way that a signal ends", HUNG)
def killable(guests: Guests) -> None:
    with guests.boot() as guest:
        vfork = "perl -e 'if (syscall(58) == 0) { sleep 600 }'"
        assert "killed" not in hangs(guest, vfork, "perl").what
        # make process ids wrap, so that perl's is less than that of its session
        most = "/proc/sys/kernel/pid_max"
        guest.serial.check("for n in {1..400}; do (:); done", 60)
        answers(guest.serial)  # so that the loop ends before the next script starts
        wrap = f"echo $((BASHPID + 20)) > {most}; for n in {{1..30}}; do (:); done"
        wrapped = "(exec perl -e '$$ < getppid or exit 9; syscall(58) or sleep 600')"
        hangs(guest, f"{wrap}\n{wrapped}", "perl")


@fault("a disk completes no request, and a task polls for it", HUNG)
def lost_request(guests: Guests) -> None:
    limits = dict.fromkeys(("bps_rd", "bps_wr", "iops", "iops_rd", "iops_wr"), 0)
    with guests.boot() as guest:
        guest.serial.check("modprobe nvme; wait_until 10 [ -b /dev/nvme0n1 ]")
        (device,) = [
            disk.qdev
            for disk in guest.qmp.query("query-blockstats", list[BlockStats])
            if disk.node_name == "nvme0n1"
        ]
        guest.qmp.execute("block_set_io_throttle", {"id": device, "bps": 1, **limits})
        fio = "fio --name=io --filename=/dev/nvme0n1 --rw=randread --direct=1 --size=1M"
        lost = r"fio --name=io .*\(a request to nvme0n1\), pid"
        hangs(guest, f"{fio} --ioengine=libaio --iodepth=4", lost)
        guest.kill_qemu()  # a shutdown would wait for the requests


@fault("commands sleep, compute and take a processor away while the host is busy", "no alarm")
def no_hang(guests: Guests) -> None:
    cpu = "/sys/devices/system/cpu/cpu1/online"
    scripts = (
        "sleep 8",
        "sleep 8 & wait",
        "timeout 8 sh -c 'while :; do :; done'",
        f"for n in 1 2 3 4; do echo 0 > {cpu}; sleep 1; echo 1 > {cpu}; done",
    )
    with busy_host(), guests.boot() as guest:
        for script in scripts:
            assert guest.serial.run(script, 60, blocked_s=3).exit_code in (0, 124)


@fault(
    "all processors hang with interrupts off",
    "GuestHung; backtrace by NMI, registers",
    within_s=60,
)
def hang(guests: Guests) -> None:
    with guests.boot() as guest:
        with pytest.raises(GuestHung, match="kernel hangs"):
            trouble(guest, "hang", 6000)
        assert "RIP" in (guest.directory / EVIDENCE / "registers").read_text()
        assert "NMI" in guest.log.text()
        with pytest.raises(GuestHung):
            guest.serial.run("true")


@fault("init crashes", "GuestPanicked")
def init_killed(guests: Guests) -> None:
    # no signal kills init, but without its stack it crashes at its next return
    script = """
        range=$(grep -F '[stack]' /proc/1/maps | cut -d' ' -f1)
        first=$((16#${range%-*} / 4096)) last=$((16#${range#*-} / 4096))
        dd if=/dev/zero of=/proc/1/mem bs=4096 seek=$first count=$((last - first)) conv=notrunc"""
    with guests.boot() as guest:
        with pytest.raises(GuestPanicked) as caught:
            guest.serial.run(f"{script}; sleep 20", 60)
        assert "Attempted to kill init" in caught.value.kernel_log


@fault(
    "100,000 lines flood the kernel log", f"{GOES_ON}; each line arrives or is counted as dropped"
)
def log_flood(guests: Guests) -> None:
    with guests.boot() as guest:
        assert trouble(guest, "flood", 600) == 0
        answers(guest.serial)
        end = guest.log.wait_for("line 100000 of", 0, 600, guest.watch)
        assert end is not None
        log = guest.log.text()
        dropped = sum(map(int, re.findall(r"\*\* (\d+) printk messages dropped", log)))
        assert log.count("trouble: line ") + dropped >= 100_000
